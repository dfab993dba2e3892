"""Merge the JSON reports of shards into the report of one session (`--doctor-merge`), without a database.

An incomplete merge is not green: missing shards and missing items are named, and the exit status is 1.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination import options
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.manifest import Experiment, Manifest, Run, item_name
from pytest_panic_doctor.examination.outcome import Result, from_plain
from pytest_panic_doctor.examination.settings import NO_SHARDING, Settings, Shard
from pytest_panic_doctor.examination.sharding import ShardSelection
from pytest_panic_doctor.formatting import WIDTH, doctor_version, name_first, plural
from pytest_panic_doctor.report import terminal
from pytest_panic_doctor.report.files import check_output, write_report
from pytest_panic_doctor.report.results import WORST_FIRST, Results
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.base import Rule

MOST_NAMED = 5


class NotMergeable(DoctorError):
    """Reports that do not belong together, or a file that is not a report; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class ShardReport:
    """The report of one shard; `head` is its `doctor` part."""

    path: Path
    shard: Shard
    head: Mapping[str, object]
    settings: Mapping[str, object]
    items: tuple[Result, ...]


def read_shard_report(path: Path) -> ShardReport:
    """Read a JSON report.

    Raises:
        NotMergeable: It is not the report of a shard.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotMergeable(f"--doctor-merge {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise NotMergeable(
            f"--doctor-merge {path} is not a JSON report: give what --doctor-report wrote as .json"
        ) from error
    try:
        head, settings = plain["doctor"], plain["doctor"]["settings"]
        if not head["version"] or "shards" in head:
            raise NotMergeable(f"--doctor-merge {path} is already merged: give the shards' own reports")
        here = Shard.parse(settings["shard"]) if settings["shard"] else NO_SHARDING
        items = tuple(map(result, plain["items"]))
        counted = Counter(each.status for each in items)
        if dict(head["totals"]) != {outcome: counted[outcome] for outcome in WORST_FIRST}:
            raise NotMergeable(
                f"--doctor-merge {path} was changed after it was written: its totals are not those of its items; "
                "examine that shard again"
            )
        return ShardReport(path, here, head, settings, items)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise NotMergeable(
            f"--doctor-merge {path} is not a report of this doctor: give what --doctor-report wrote as .json"
        ) from error


def result(plain: Mapping[str, object]) -> Result:
    """Read one item, as `Result.as_dict` printed it."""
    found = from_plain(str(plain["nodeid"]), float(plain["duration"]), plain)  # type: ignore[arg-type]
    if "findings" not in plain or not isinstance(found.measures, Mapping):
        raise TypeError("an item without findings, or whose measures are not numbers")
    if found.status not in WORST_FIRST or (found.status == "passed" and (found.findings or found.error)):
        raise TypeError("an item whose outcome does not fit its findings")
    for finding in (*plain["findings"], *plain.get("accepted", ())):  # type: ignore[misc]
        if not isinstance(finding["ids"], list) or not isinstance(finding["count"], int):
            raise TypeError("a finding without ids or count")
        if not isinstance(finding.get("blocked_by", []), list):
            raise TypeError("a finding with an invalid blocked_by")
        runs = finding.get("runs", {})
        if not isinstance(runs, Mapping) or not all(isinstance(count, int) for count in runs.values()):
            raise TypeError("a finding with invalid runs")
    return found


def check_reports(parts: Sequence[ShardReport]) -> None:
    """Check that reports are of one database, version and selection, and of different shards.

    Raises:
        NotMergeable: They are not.
    """
    for part in parts:
        if wrong := next(mismatches(part, parts[0]), None):
            raise NotMergeable(wrong)
    for here, count in Counter(part.shard for part in parts).items():
        if count > 1:
            paths = " and ".join(str(part.path) for part in parts if part.shard == here)
            raise NotMergeable(f"{here.named} was given {'twice' if count == 2 else f'{count} times'}: {paths}")


def mismatches(part: ShardReport, first: ShardReport) -> Iterator[str]:
    """Yield why a report does not belong to the first one, as sentences."""
    version = doctor_version()
    if part.head["version"] != version:
        written = part.head["version"]
        yield f"{part.path} was written by version {written}, and this is {version}: use the one that wrote it"
    if part.head.get("experiments") != first.head.get("experiments"):
        yield f"{part.path} is of another database than {first.path}: their experiments or runs differ"
    if part.shard.of != first.shard.of:
        both = f"{part.path} is {part.shard.named}, and {first.path} is {first.shard.named}"
        yield f"{both}: give the reports of one split"
    may_differ = {option.setting for option in options.OPTIONS if option.may_differ}
    for name in sorted((part.settings.keys() | first.settings.keys()) - may_differ):
        if part.settings.get(name) != first.settings.get(name):
            other = name.replace("_", "-")
            yield f"{part.path} was made with another {other} than {first.path}: run both with the same options"
    if part.head.get("selected") != first.head.get("selected"):
        yield f"{part.path} was made with other rules than {first.path}: run both with the same options"


def manifest(plain: Iterable[Mapping[str, object]]) -> Manifest:
    """Make a manifest from the result of `json_subjects`; labels may be shortened."""
    return Manifest(
        tuple(
            Experiment(
                str(each["id"]),
                str(each["label"]),
                tuple(map(str, each["embedding_models"])),  # type: ignore[call-overload]
                tuple(Run(run["id"], run["label"], run["length"]) for run in each["runs"]),  # type: ignore[attr-defined]
            )
            for each in plain
        )
    )


@dataclass(frozen=True, slots=True)
class MergedReport:
    """All reports together; `missing` are shards without a report, `incomplete` the items that a report should have."""

    examination: Examination
    results: Results
    missing: tuple[Shard, ...]
    incomplete: Mapping[Path, tuple[Shard, int, int]]

    def sentences(self) -> Iterator[str]:
        """Describe what is missing, and what to do."""
        if self.missing:
            shown = name_first([f"{each.number:,}" for each in self.missing], MOST_NAMED)
            one = len(self.missing) == 1
            yield (
                f"{'shard' if one else 'shards'} {shown} of {self.missing[0].of:,} {'is' if one else 'are'} "
                f"missing, so nothing is known about {'its' if one else 'their'} items: give the "
                f"{'report' if one else 'reports'} too"
            )
        for path, (here, count, of) in self.incomplete.items():
            yield (
                f"{path} lacks {count:,} of the {plural(of, 'item')} of {here.named}: it was stopped, or -k, -m or a "
                "node id left them out"
            )


def doubts_of(parts: Iterable[ShardReport]) -> list[str]:
    """Collect why shards without failed items were not green, each reason once."""
    found: list[str] = []
    for part in parts:
        doubts = part.head.get("doubts", [])
        found += map(str, doubts) if isinstance(doubts, list) else [f"{part.path}: {doubts}"]
    return list(dict.fromkeys(found))


def combine(parts: Sequence[ShardReport], reports: Sequence[Path], extra: Iterable[Rule]) -> MergedReport:
    """Combine reports of shards to one session.

    Args:
        parts: The reports.
        reports: The files to write.
        extra: Rules of plugins and conftest files.
    """
    first = parts[0]
    rules = registry(extra)
    try:
        selected = [str(name) for name in first.head["selected"]]  # type: ignore[attr-defined]
        listed = manifest(first.head["experiments"])  # type: ignore[arg-type]
        rows = {str(table): int(count) for table, count in first.head["rows"].items()}  # type: ignore[attr-defined]
        settings = replace(Settings.from_dict(first.settings), shard=None, reports=tuple(reports))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise NotMergeable(
            f"{first.path} is not a report of this doctor: run that shard again with this one"
        ) from error
    for name in selected:
        if name not in rules:
            raise NotMergeable(
                f"{first.path} was made with the rule {name}, which is not known here: merge where the conftest.py or "
                "plugin is that brings it"
            )
    origin, repairable = str(first.head.get("generation", "")), bool(first.head.get("repairable", True))
    examination = Examination(settings, rules, listed, rows, origin=origin, repairable=repairable)
    if [rule.id for rule in examination.selected] != selected:
        examination = replace(examination, settings=replace(settings, rules=tuple(selected)))
    incomplete: dict[Path, tuple[Shard, int, int]] = {}
    for part in parts:
        mine = ShardSelection(listed, examination.selected, part.shard, settings.fix)
        entries = mine.of(listed.entries(examination.selected))
        expected = {entry.name for entry in entries if examination.in_sample(entry)}
        found = {item_name(item.nodeid) for item in part.items}
        if strange := found - expected:
            raise NotMergeable(
                f"{part.path} holds {min(strange)}, which is not an item of {part.shard.named}: run it again"
            )
        if left := len(expected - found):
            incomplete[part.path] = part.shard, left, len(expected)
    given = {part.shard.number for part in parts}
    missing = tuple(Shard(number, first.shard.of) for number in range(1, first.shard.of + 1) if number not in given)
    place = {entry.name: index for index, entry in enumerate(examination.entries())}
    items = sorted((item for part in parts for item in part.items), key=lambda item: place[item_name(item.nodeid)])
    return MergedReport(
        examination,
        Results(items, itemless=examination.itemless, unsampled=examination.unsampled, doubts=doubts_of(parts)),
        missing,
        incomplete,
    )


def merge_reports(paths: Sequence[Path], reports: Sequence[Path], extra: Iterable[Rule]) -> int:
    """Merge reports, write the result, and print a summary.

    Args:
        paths: The reports of the shards.
        reports: The files to write.
        extra: Rules of plugins and conftest files.

    Returns:
        The exit status: 0 if everything was examined and is healthy or fixed, else 1.

    Raises:
        NotMergeable: The reports do not belong together, or a file could not be written.
    """
    for path in reports:
        if os.path.realpath(path) in map(os.path.realpath, paths):
            raise NotMergeable(f"--doctor-report {path} is one of the reports to be merged: name another")
        check_output("--doctor-report", path)
    parts = [read_shard_report(path) for path in paths]
    check_reports(parts)
    merged = combine(sorted(parts, key=lambda part: part.shard.number), reports, extra)
    examination, results, sentences = merged.examination, merged.results, list(merged.sentences())
    what = f"{plural(len(parts), 'report')} of {plural(parts[0].shard.of, 'shard')} merged"
    more = {
        "shards": {
            "merged": {str(part.path): str(part.shard) for part in parts},
            "missing": [str(each) for each in merged.missing],
            "items_missing": {str(path): count for path, (_, count, _) in merged.incomplete.items()},
        }
    }
    for path in reports:
        try:
            write_report(path, examination, results, more, [what, *sentences])
        except OSError as error:
            raise NotMergeable(f"{path} could not be written ({error.strerror}): make room for it") from error
    print(f"doctor: {what}, {examination.settings.database.name}: {plural(len(results.items), 'item')}")
    if results.items:
        terminal.verdict_lines(terminal.PlainWriter(), results)
        for line in terminal.todo_lines(examination, results, WIDTH):
            print(line)
    for sentence in sentences:
        print(f"doctor: {sentence}")
    return int(bool(merged.missing or merged.incomplete or results.doubts or results.totals()["failed"]))
