"""The contents of the report as plain values: rules, experiments, runs, and items that did not simply pass.

Subjects are numbers: an experiment's place in the manifest, a run's place among all runs. The outcomes of a rule's
items are one text with a letter for each subject of its scope, in the order of the manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_panic_doctor.database.subject import DiagramTarget, Subject
from pytest_panic_doctor.examination.manifest import Entry, Manifest, item_name
from pytest_panic_doctor.examination.outcome import Result
from pytest_panic_doctor.report import text
from pytest_panic_doctor.report.html.run_locations import UNKNOWN_RUNS, RunCounts, RunLocator
from pytest_panic_doctor.report.html.timelines import Timelines
from pytest_panic_doctor.report.remaining_work import next_step
from pytest_panic_doctor.report.results import Results, largest_of, shorten_label, verdict, worst_first
from pytest_panic_doctor.rules.base import Finding, Rule, Scope, remedy_of

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examination import Examination

NOT_EXAMINED = "n"
LETTERS = {"failed": "s", "fixed": "f", "warned": "w", "passed": "h", "skipped": "k", "late": NOT_EXAMINED}
"""A letter for each outcome of an item as shown; `unreached` items have that of `late` ones."""
NOT_EXAMINED_LABEL = "not examined"
NO_ITEM = "."

IDS_IN_ALL = 50_000
IDS_OF_ONE = (10_000, 1_000, 200, 50, 20, 5)
"""Maximum number of row ids of one finding: the largest of these with which the report has at most `IDS_IN_ALL`."""

HealedPlaces = Mapping[tuple[str, str, str], RunCounts]


@dataclass
class Subjects:
    """The position of each subject in the manifest."""

    manifest: Manifest
    experiments: dict[str, int] = field(init=False)
    runs: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Number all subjects."""
        self.experiments = {each.id: place for place, each in enumerate(self.manifest.experiments)}
        self.runs = {}
        self._pairs: dict[Subject, int] = {}
        self._models: dict[Subject, int] = {}
        for experiment in self.manifest.experiments:
            for model in experiment.embedding_models:
                self._models[Subject(experiment.id, None, model)] = len(self._models)
            for run in experiment.runs:
                self.runs[run.id] = len(self.runs)
                for model in experiment.embedding_models:
                    self._pairs[Subject(experiment.id, run.id, model)] = len(self._pairs)

    def count(self, scope: Scope) -> int:
        """Return the number of subjects of a scope."""
        sizes = {Scope.DATABASE: 1, Scope.EXPERIMENT: len(self.experiments), Scope.RUN: len(self.runs)}
        return (sizes | {Scope.EXPERIMENT_MODEL: len(self._models), Scope.RUN_MODEL: len(self._pairs)})[scope]

    def place(self, scope: Scope, subject: Subject) -> int:
        """Return the position of a subject in its scope."""
        if scope is Scope.DATABASE:
            return 0
        if scope is Scope.EXPERIMENT:
            return self.experiments[str(subject.experiment)]
        if scope is Scope.RUN:
            return self.runs[str(subject.run)]
        return self._models[subject] if scope is Scope.EXPERIMENT_MODEL else self._pairs[subject]

    def as_plain(self) -> list[object]:
        """Convert the experiments with their runs to plain values."""
        return [
            {
                "id": each.id,
                "label": shorten_label(each.label),
                "models": list(each.embedding_models),
                "runs": [[run.id, shorten_label(run.label)] for run in each.runs],
            }
            for each in self.manifest.experiments
        ]


class Contents:
    """Everything that the page shows except the diagrams."""

    def __init__(self, examination: Examination, results: Results, placer: RunLocator, healed: HealedPlaces) -> None:
        """Keep the sources; `healed` are the places of the rows that this session repaired."""
        self.examination = examination
        self.results = results
        self.placer = placer
        self.healed = healed
        self.subjects = Subjects(examination.manifest)
        self.entries: Mapping[str, Entry] = {entry.name: entry for entry in examination.entries()}
        self.most_ids = max_ids_per_finding(results.items)
        self.order = {name: place for place, name in enumerate(examination.rules)}

    def as_plain(self) -> dict[str, object]:
        """Convert to plain values."""
        return {
            "rules": self.rules(),
            "experiments": self.subjects.as_plain(),
            "states": self.states(),
            "items": [self.item(each) for each in self.results.items if is_notable(each)],
            "timelines": self.timelines(),
        }

    def timelines(self) -> list[dict[str, object]]:
        """Describe where the defects of runs sit in their sequences; empty for merged reports."""
        if not self.placer.left:
            return []
        manifest = self.examination.manifest
        lengths = {run.id: run.length for each in manifest.experiments for run in each.runs}
        timelines = Timelines(self.examination.database, lengths)
        timelines.add(self.results.items)
        return [each.as_plain(self.subjects.runs[run]) for run, each in timelines.found.items()]

    def entry(self, item: Result) -> Entry | None:
        """Return an item's entry in the manifest; None if it belongs to another manifest."""
        return self.entries.get(item_name(item.nodeid))

    def by_target(self) -> list[tuple[DiagramTarget, Result]]:
        """List the items of rules about diagrams, each with its target."""
        found = []
        for item in self.results.items:
            entry = self.entry(item)
            if entry and self.examination.rules[item.rule].scope is Scope.RUN_MODEL:
                found.append((entry.subject.target, item))
        return found

    def of_rules(self, names: Iterable[str]) -> list[tuple[Subject, Result]]:
        """List the items of some rules, each with its subject."""
        wanted = set(names)
        found = ((self.entry(item), item) for item in self.results.items if item.rule in wanted)
        return [(entry.subject, item) for entry, item in found if entry]

    def rules(self) -> list[dict[str, object]]:
        """List the rules that have items, worst first."""
        by_rule: dict[str, list[Result]] = {}
        for item in self.results.items:
            by_rule.setdefault(item.rule, []).append(item)
        return [
            self.rule(self.examination.rules[name], by_rule.get(name, []), dict(outcomes))
            for name, outcomes in worst_first(self.results.by_rule().items())
        ]

    def rule(self, rule: Rule, items: Sequence[Result], outcomes: Mapping[str, int]) -> dict[str, object]:
        """Describe one rule and the outcomes of its items."""
        sick = outcomes.get("failed", 0)
        failed = [item.findings for item in items if item.status == "failed"]
        return {
            "id": rule.id,
            "scope": str(rule.scope),
            "order": self.order[rule.id],
            "sentence": rule.description,
            "repair": str(rule.repair) if rule.repair else "",
            "remedy": remedy_of(rule, [each for findings in failed for each in findings]),
            "source": rule.source,
            "verdict": verdict(outcomes),
            "outcomes": {word: outcomes.get(word, 0) for word in LETTERS if word != "late"}
            | {NOT_EXAMINED_LABEL: outcomes.get("late", 0) + outcomes.get("unreached", 0)},
            "found": largest_finding(items),
            "rows": sum(finding.count for item in items for finding in item.findings),
            "warnings": sum(len(item.warnings) for item in items),
            "seconds": round(sum(item.duration for item in items), 3),
            "examined": describe_examined(items),
            "next": "" if self.examination.settings.fix or not sick else next_step(rule, self.examination, failed),
        }

    def states(self) -> dict[str, str]:
        """Return for each rule one letter for each subject."""
        letters: dict[str, list[str]] = {}
        ended = [(self.entry(item), LETTERS[item.display_outcome]) for item in self.results.items]
        unreached = [(self.entries.get(name), NOT_EXAMINED) for name in self.results.unreached]
        for entry, letter in (*ended, *unreached):
            if entry is not None:
                scope = self.examination.rules[entry.rule].scope
                row = letters.setdefault(entry.rule, [NO_ITEM] * self.subjects.count(scope))
                row[self.subjects.place(scope, entry.subject)] = letter
        return {rule: "".join(row) for rule, row in letters.items()}

    def item(self, item: Result) -> dict[str, object]:
        """Describe an item; empty values are left out."""
        entry = self.entry(item)
        subject = entry.subject if entry else Subject()
        plain: dict[str, object] = {
            "rule": item.rule,
            "outcome": NOT_EXAMINED_LABEL if item.not_started else item.display_outcome,
            "seconds": round(item.duration, 3),
            "note": item.note,
            "warnings": list(item.warnings),
            "measures": dict(item.measures),
            "findings": [self.finding(each, subject) for each in item.findings],
            "accepted": [self.finding(each, subject) for each in item.accepted],
            "by": item.accepted_by,
            "examined": text.looked_at(item.rows) if item.status != "skipped" else "",
        }
        if not entry:
            plain["name"] = item.nodeid
        if item.status == "fixed" and subject.experiment and not subject.run:
            key = (item.rule, subject.experiment, subject.embedding_model or "")
            plain |= self.placed(self.healed.get(key, UNKNOWN_RUNS))
        return self.numbered(subject) | {key: value for key, value in plain.items() if value}

    def numbered(self, subject: Subject) -> dict[str, object]:
        """Convert a subject to numbers."""
        plain: dict[str, object] = {}
        if subject.experiment in self.subjects.experiments:
            plain["experiment"] = self.subjects.experiments[subject.experiment]
        if subject.run in self.subjects.runs:
            plain["run"] = self.subjects.runs[subject.run]
        if subject.embedding_model:
            plain["model"] = subject.embedding_model
        return plain

    def finding(self, finding: Finding, subject: Subject) -> dict[str, object]:
        """Describe one finding, with as many ids as the report has room for, and the runs of its rows."""
        ids, count, run = finding.ids, finding.count, finding.run or ""
        plain: dict[str, object] = {
            "message": finding.message,
            "count": count,
            "table": self.examination.described.real_name(finding.table or ""),
            "ids": list(ids[: self.most_ids]),
            "more": max(count, len(ids)) - min(len(ids), self.most_ids),
        }
        if run and run != subject.run:
            plain |= {"run": self.subjects.runs.get(run, -1), "run_id": run}
        if subject.experiment and not subject.run:
            places = (
                RunCounts({run: count}, complete=True) if run else self.placer.place(str(finding.table), ids, count)
            )
            plain |= self.placed(places)
        return {key: value for key, value in plain.items() if value not in ("", None, [], {}) or key == "count"}

    def placed(self, places: RunCounts) -> dict[str, object]:
        """List runs by number, and whether the list is complete."""
        runs = self.subjects.runs
        found = [[runs[run], count] for run, count in places.runs.items() if run in runs]
        return {"runs": found, "complete": places.complete and len(found) == len(places.runs)} if found else {}


def is_notable(item: Result) -> bool:
    """Whether there is more to report about an item than that it passed."""
    return bool(
        item.status != "passed" or item.findings or item.warnings or item.note or item.measures or item.accepted
    )


def largest_finding(items: Iterable[Result]) -> str:
    """Say what the items of one rule found: the largest finding, and how many others; empty if nothing."""
    for wanted in ("failed", "fixed", "passed"):
        ended = [item for item in items if item.status == wanted]
        findings = [each for item in ended for each in (item.findings if wanted != "passed" else item.accepted)]
        if findings:
            _, message, more = largest_of(findings)
            return f"{message}{more}"
        if noted := [item.error or item.note for item in ended if item.status == "failed"]:
            return noted[0]
    return ""


def max_ids_per_finding(items: Iterable[Result]) -> int:
    """Return how many row ids of one finding the page holds."""
    sizes = [len(finding.ids) for item in items for finding in (*item.findings, *item.accepted)]
    within = (most for most in IDS_OF_ONE if sum(min(most, size) for size in sizes) <= IDS_IN_ALL)
    return next(within, IDS_OF_ONE[-1])


def describe_examined(items: Sequence[Result]) -> str:
    """Describe what the items of one rule examined together; empty if all were skipped."""
    counted: Counter[str] = Counter()
    for item in items:
        counted.update(item.rows)
    ended = any(item.status != "skipped" for item in items)
    return text.looked_at(counted) if ended else ""
