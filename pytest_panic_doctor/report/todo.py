"""What has to be done about the findings of a session, by who does it and with which command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.generations import generations
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.database.subject import DiagramTarget
from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.examination.runs import unique_prefix
from pytest_panic_doctor.formatting import plural, printable, shorten, typed
from pytest_panic_doctor.report import text
from pytest_panic_doctor.rules.base import RepairKind, Rule, remedy_of

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination

REGENERATE = "regenerate the run"
"""The beginning of `manual_fix` of rules whose damage only new runs repair."""


@dataclass(slots=True)
class TodoEntry:
    """One thing that has to be done.

    Attributes:
        action: `regenerate`, `embed`, `fix`, `later`, `by hand` or `examine`.
        text: What it is, with the number, for a person.
        rules: The rules that found it.
        runs: The runs to regenerate, ids as stored.
        models: The embedding models to embed again.
        command: The command that does it; empty if there is none.
    """

    action: str
    text: str
    rules: tuple[str, ...]
    runs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    command: str = ""

    def as_plain(self) -> dict[str, object]:
        """Convert to the form of the JSON report."""
        plain: dict[str, object] = {"action": self.action, "text": self.text, "rules": list(self.rules)}
        more = {"runs": list(self.runs), "embedding_models": list(self.models), "command": self.command}
        return plain | {key: value for key, value in more.items() if value}


@dataclass(slots=True)
class Collected:
    """What failed items need, before it is counted."""

    runs: dict[str, None] = field(default_factory=dict)
    incomplete: bool = False
    """Whether not all runs to regenerate are known."""
    models: dict[str, None] = field(default_factory=dict)
    outputs: int = 0
    diagrams: dict[DiagramTarget, None] = field(default_factory=dict)
    lyapunov: int = 0
    """The number of findings about Lyapunov results that --doctor-fix computes."""
    quarantines: int = 0
    later: int = 0
    """The number of findings that --doctor-fix does not repair now."""
    others: dict[str, list[str]] = field(default_factory=dict)
    """The rules with a finding for each thing to be done by hand, once a finding."""
    unexamined: list[str] = field(default_factory=list)
    rules: dict[str, dict[str, None]] = field(default_factory=dict)
    """The rules of each part."""

    def note(self, part: str, rule: str) -> None:
        """Remember that a rule has a finding of a part."""
        self.rules.setdefault(part, {})[rule] = None

    def of(self, part: str) -> tuple[str, ...]:
        """Return the rules of a part."""
        return tuple(self.rules.get(part, ()))


def tasks(examination: Examination, items: Iterable[Result]) -> list[TodoEntry]:
    """List what has to be done about all failed items: first what a person does, then what `--doctor-fix` does."""
    found = Collected()
    place = {name: number for number, name in enumerate(examination.rules)}
    # Workers end their items in any order.
    for item in sorted(items, key=lambda item: (place.get(item.rule, 0), item.nodeid)):
        if item.status == "failed":
            collect(found, examination, item)
    return [task for task in made(found, examination) if task is not None]


def collect(found: Collected, examination: Examination, item: Result) -> None:
    """Add one failed item to what was collected."""
    rule = examination.rules[item.rule]
    if item.error or not item.findings:
        found.unexamined.append(item.rule)
        return
    if rule.repair is None and rule.manual_fix.startswith(REGENERATE):
        found.note("regenerate", rule.id)
        for finding in item.findings:
            counted = finding.runs or ({finding.run: finding.count} if finding.run else {})
            found.runs.update(dict.fromkeys(counted))
            found.incomplete |= sum(counted.values()) < finding.count
    elif rule.repair is RepairKind.EMBED:
        found.note("embed", rule.id)
        found.models.update(dict.fromkeys(str(each.embedding_model) for each in item.findings))
        found.outputs += sum(each.count for each in item.findings)
    elif rule.repair is not None:
        collect_repairable(found, examination, rule, item)
    else:
        remedy = remedy_of(rule, item.findings)
        found.others.setdefault(remedy or "nothing repairs this", []).extend([rule.id] * len(item.findings))


def collect_repairable(found: Collected, examination: Examination, rule: Rule, item: Result) -> None:
    """Add a failed item of a rule that computes or quarantines."""
    open_yet = examination.settings.fix or examination.verification.damaged
    if open_yet or text.is_unrepairable(rule, examination, item.findings):
        found.note("later", rule.id)
        found.later += len(item.findings)
    elif rule.repair is RepairKind.LYAPUNOV:
        found.note("lyapunov", rule.id)
        found.lyapunov += len(item.findings)
    elif rule.repair is not RepairKind.COMPUTE:
        found.note("quarantine", rule.id)
        found.quarantines += len(item.findings)
    else:
        found.note("compute", rule.id)
        found.diagrams |= {DiagramTarget(str(each.run), str(each.embedding_model)): None for each in item.findings}


def made(found: Collected, examination: Examination) -> Iterator[TodoEntry | None]:
    """Yield the tasks of what was collected."""
    commands = commands_of(examination)
    if found.rules.get("regenerate"):
        least = "at least " if found.incomplete else ""
        what = f"{least}{plural(len(found.runs), 'run')} to regenerate"
        runs = in_order(found.runs, examination)
        yield TodoEntry("regenerate", what, found.of("regenerate"), runs=runs, command=commands.get("regenerate", ""))
    if found.models:
        models = tuple(sorted(found.models))
        yield embedding_task(found, examination, models, found.of("embed"), commands.get("embed", ""))
    for remedy, rules in found.others.items():
        named = tuple(dict.fromkeys(rules))
        yield TodoEntry("by hand", f"{plural(len(rules), 'finding')} of {' and '.join(named)}: {remedy}", named)
    if found.unexamined:
        named = tuple(dict.fromkeys(found.unexamined))
        yield TodoEntry(
            "examine", f"{plural(len(found.unexamined), 'item')} not examined to the end: {', '.join(named)}", named
        )
    yield from left_to_fix(found, examination)


def left_to_fix(found: Collected, examination: Examination) -> Iterator[TodoEntry]:
    """Yield what `--doctor-fix` does, and what it cannot do now."""
    if found.diagrams:
        yield TodoEntry(
            "fix", f"{plural(len(found.diagrams), 'diagram')} that --doctor-fix computes", found.of("compute")
        )
    if found.lyapunov:
        what = f"{plural(found.lyapunov, 'finding')} about Lyapunov results that --doctor-fix computes"
        yield TodoEntry("fix", what, found.of("lyapunov"))
    if found.quarantines:
        what = f"{plural(found.quarantines, 'finding')} that --doctor-fix resolves by a quarantine"
        yield TodoEntry("fix", what, found.of("quarantine"))
    if found.later:
        how = "that --doctor-fix can repair once the rest is corrected"
        if examination.verification.damaged:
            how = "that can be repaired once the file is restored from a backup"
        elif examination.settings.fix:
            how = "that could not be repaired"
        elif not examination.repairable:
            how = "that this doctor does not repair in such a database"
        yield TodoEntry("later", f"{plural(found.later, 'finding')} {how}", found.of("later"))


def in_order(runs: Iterable[str], examination: Examination) -> tuple[str, ...]:
    """Sort runs as they are in the manifest."""
    place = {
        run.id: number for number, run in enumerate(each for e in examination.manifest.experiments for each in e.runs)
    }
    return tuple(sorted(runs, key=lambda run: (place.get(run, len(place)), run)))


def embedding_task(
    found: Collected, examination: Examination, models: tuple[str, ...], rules: tuple[str, ...], command: str
) -> TodoEntry:
    """Make the task of what has to be embedded: by the hook, if there is one."""
    outputs = f"{plural(found.outputs, 'output')} of {', '.join(models)}"
    closed = examination.settings.fix or examination.verification.damaged or not examination.repairable
    if examination.embeds and not closed:
        return TodoEntry("fix", f"{outputs} that --doctor-fix embeds by your hook", rules, models=models)
    what = f"{plural(len(models), 'model')} to embed again: {outputs}"
    hook = "" if command or examination.embeds or closed else " (--doctor-fix does it by an embedding hook)"
    flags = " ".join(f"--model {typed(model)}" for model in models)
    return TodoEntry("embed", what + hook, rules, models=models, command=f"{command} {flags}" if command else "")


def commands_of(examination: Examination) -> Mapping[str, str]:
    """Return the research tool's own commands for this database, by action."""
    generation = next((each for each in generations() if each.key == examination.generation), None)
    found = generation.commands if generation else {}
    return {action: line.format(database=text.shown_path(examination.settings)) for action, line in found.items()}


def named_runs(examination: Examination, runs: Sequence[str], most: int | None = text.RUNS_SHOWN) -> Iterator[str]:
    """Yield a line for each run: an id that `--doctor-run` takes, and its prompt and network."""
    every = [run.id for each in examination.manifest.experiments for run in each.runs]
    whole = bool(examination.settings.runs or examination.settings.experiments)
    for run in runs[:most]:
        short = dashed(run) if whole or run not in every else unique_prefix(run, every)
        yield f"{short}  {shorten(printable(examination.labels.get(run, '')), text.LABEL_WIDTH)}".rstrip()
    if most is not None and len(runs) > most:
        yield f"… and {len(runs) - most:,} more"
