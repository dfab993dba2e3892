"""What has to be done about the findings of a session, by who does it and with which command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.clouds import MODEL_TYPE_KEY
from pytest_panic_doctor.database.integrity import ABSENT
from pytest_panic_doctor.database.spelling import dashed
from pytest_panic_doctor.database.subject import DiagramTarget
from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.examination.run_selection import unique_prefix
from pytest_panic_doctor.formatting import plural, printable, shorten, typed
from pytest_panic_doctor.report import text
from pytest_panic_doctor.rules.base import Finding, RepairKind, Rule, remedy_of

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
class TodoPart:
    """The failed items that need the same thing.

    Attributes:
        items: Their number.
        findings: Their findings.
        rules: Their rules, each once.
    """

    items: int = 0
    findings: list[Finding] = field(default_factory=list)
    rules: dict[str, None] = field(default_factory=dict)


PARTS = ("regenerate", "embed", "by hand", "examine", "compute", "lyapunov", "quarantine", "later")
"""What failed items may need, in the order in which it is listed: first what a person does."""

FIXES = {
    "lyapunov": "about Lyapunov results that --doctor-fix computes",
    "quarantine": "that --doctor-fix resolves by a quarantine",
}
"""What `--doctor-fix` does about findings that are counted one by one."""


def tasks(examination: Examination, items: Iterable[Result]) -> list[TodoEntry]:
    """List what has to be done about all failed items: first what a person does, then what `--doctor-fix` does."""
    parts: dict[tuple[str, str], TodoPart] = {}
    place = {name: number for number, name in enumerate(examination.rules)}
    # Workers end their items in any order.
    for item in sorted(items, key=lambda item: (place.get(item.rule, 0), item.nodeid)):
        if item.status == "failed":
            part = parts.setdefault(needed(examination, item), TodoPart())
            part.items += 1
            part.findings += item.findings
            part.rules[item.rule] = None
    ordered = sorted(parts.items(), key=lambda pair: PARTS.index(pair[0][0]))
    return [entry_of(name, remedy, part, examination) for (name, remedy), part in ordered]


def needed(examination: Examination, item: Result) -> tuple[str, str]:
    """Return what a failed item needs, as in `PARTS`, and what has to be done by hand."""
    rule = examination.rules[item.rule]
    if item.error or not item.findings:
        return "examine", ""
    if rule.repair is None:
        by_hand = remedy_of(rule, item.findings) or "nothing repairs this"
        return ("regenerate", "") if rule.manual_fix.startswith(REGENERATE) else ("by hand", by_hand)
    if rule.repair is RepairKind.EMBED:
        return "embed", ""
    open_yet = examination.settings.fix or examination.verification.damaged
    if open_yet or is_unrepairable(rule, examination, item.findings):
        return "later", ""
    return {RepairKind.LYAPUNOV: "lyapunov", RepairKind.COMPUTE: "compute"}.get(rule.repair, "quarantine"), ""


def entry_of(name: str, remedy: str, part: TodoPart, examination: Examination) -> TodoEntry:
    """Describe what one part of the failed items needs."""
    rules, findings = tuple(part.rules), plural(len(part.findings), "finding")
    match name:
        case "regenerate":
            return regeneration_task(part, examination)
        case "embed":
            return embedding_task(part, examination)
        case "by hand":
            return TodoEntry(name, f"{findings} of {' and '.join(rules)}: {remedy}", rules)
        case "examine":
            return TodoEntry(name, f"{plural(part.items, 'item')} not examined to the end: {', '.join(rules)}", rules)
        case "compute":
            diagrams = {DiagramTarget(str(each.run), str(each.embedding_model)) for each in part.findings}
            return TodoEntry("fix", f"{plural(len(diagrams), 'diagram')} that --doctor-fix computes", rules)
        case "later":
            return TodoEntry(name, f"{findings} {why_later(examination)}", rules)
    return TodoEntry("fix", f"{findings} {FIXES[name]}", rules)


def why_later(examination: Examination) -> str:
    """Say why `--doctor-fix` does not repair something now, as the end of a sentence."""
    if examination.verification.damaged:
        return "that can be repaired once the file is restored from a backup"
    if examination.settings.fix:
        return "that could not be repaired"
    if not examination.repairable:
        return "that this doctor does not repair in such a database"
    return "that --doctor-fix can repair once the rest is corrected"


def is_unrepairable(rule: Rule, examination: Examination, findings: Sequence[Finding]) -> bool:
    """Whether --doctor-fix cannot repair an item with these findings."""
    no_hook = rule.repair is RepairKind.EMBED and not examination.embeds
    excluded = bool(findings) and all(each.not_repaired for each in findings)
    nothing = rule.repair is None or not examination.repairable
    return nothing or no_hook or excluded or bool(blocked_by(rule, findings))


def blocked_by(rule: Rule, findings: Sequence[Finding]) -> list[str]:
    """List what must be corrected before an item can be repaired: rules in the order of `requires`, or an ini key."""
    named = {name for each in findings for name in each.blocked_by}
    return [name for name in (MODEL_TYPE_KEY, *rule.requires) if name in named]


def next_step(rule: Rule, examination: Examination, items: Sequence[Sequence[Finding]]) -> str:
    """Describe what to do about a sick rule.

    Args:
        rule: The rule.
        examination: The session.
        items: The findings of each failed item of the rule.

    Returns:
        One clause for a person.
    """
    found = [each for findings in items for each in findings]
    if any(ABSENT in each.message for each in found):
        return "nothing repairs this until that is removed"
    if rule.repair is None:
        remedy = remedy_of(rule, found)
        return f"nothing repairs this: {remedy}" if remedy else "nothing repairs this"
    if not examination.repairable:
        return f"not repaired: this doctor only examines a database of {examination.origin.split(',')[0]}"
    if rule.repair is RepairKind.EMBED and not examination.embeds:
        return "repaired by --doctor-fix where a conftest.py provides an embedding hook (pytest_doctor_embed)"
    if items and all(is_unrepairable(rule, examination, each) for each in items):
        first = blocked_by(rule, found)
        if MODEL_TYPE_KEY in first:
            return f"blocked: say in {MODEL_TYPE_KEY} or doctor_image_models what the model embeds"
        if not first:
            return "nothing repairs this until what the findings name is corrected"
        return f"blocked by {' and '.join(first)}: repair {'that' if len(first) == 1 else 'those'} first"
    return f"next: {text.rerun_command(examination, next_option(examination).split()[0], rules=(rule.id,))}"


def next_option(examination: Examination) -> str:
    """Return the option of the next command: after an examination the plan, after a plan the repair."""
    if not examination.settings.plan:
        return "--doctor-plan"
    return "--doctor-fix -n 2" if examination.distributes else "--doctor-fix"


def regeneration_task(part: TodoPart, examination: Examination) -> TodoEntry:
    """Describe the runs that have to be regenerated, as far as they are known."""
    runs: dict[str, None] = {}
    least = ""
    for finding in part.findings:
        counted = finding.runs or ({finding.run: finding.count} if finding.run else {})
        runs.update(dict.fromkeys(counted))
        least = "at least " if sum(counted.values()) < finding.count else least
    return TodoEntry(
        "regenerate",
        f"{least}{plural(len(runs), 'run')} to regenerate",
        tuple(part.rules),
        runs=in_order(runs, examination),
        command=commands_of(examination).get("regenerate", ""),
    )


def in_order(runs: Iterable[str], examination: Examination) -> tuple[str, ...]:
    """Sort runs as they are in the manifest."""
    place = {
        run.id: number for number, run in enumerate(each for e in examination.manifest.experiments for each in e.runs)
    }
    return tuple(sorted(runs, key=lambda run: (place.get(run, len(place)), run)))


def embedding_task(part: TodoPart, examination: Examination) -> TodoEntry:
    """Make the task of what has to be embedded: by the hook, if there is one."""
    models = tuple(sorted({str(each.embedding_model) for each in part.findings}))
    rules, command = tuple(part.rules), commands_of(examination).get("embed", "")
    outputs = f"{plural(sum(each.count for each in part.findings), 'output')} of {', '.join(models)}"
    closed = examination.settings.fix or examination.verification.damaged or not examination.repairable
    if examination.embeds and not closed:
        return TodoEntry("fix", f"{outputs} that --doctor-fix embeds by your hook", rules, models=models)
    what = f"{plural(len(models), 'model')} to embed again: {outputs}"
    hook = "" if command or examination.embeds or closed else " (--doctor-fix does it by an embedding hook)"
    flags = " ".join(f"--model {typed(model)}" for model in models)
    return TodoEntry("embed", what + hook, rules, models=models, command=f"{command} {flags}" if command else "")


def commands_of(examination: Examination) -> Mapping[str, str]:
    """Return the research tool's own commands for this database, by action."""
    database = text.display_path(examination.settings.database)
    return {action: line.format(database=database) for action, line in examination.described.commands.items()}


def named_runs(examination: Examination, runs: Sequence[str], most: int | None = text.RUNS_SHOWN) -> Iterator[str]:
    """Yield a line for each run: an id that `--doctor-run` takes, and its prompt and network."""
    every = [run.id for each in examination.manifest.experiments for run in each.runs]
    whole = bool(examination.settings.runs or examination.settings.experiments)
    for run in runs[:most]:
        short = dashed(run) if whole or run not in every else unique_prefix(run, every)
        yield f"{short}  {shorten(printable(examination.labels.get(run, '')), text.LABEL_WIDTH)}".rstrip()
    if most is not None and len(runs) > most:
        yield f"… and {len(runs) - most:,} more"
