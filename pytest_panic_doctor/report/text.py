"""The sentences that a person reads."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_panic_doctor.manifest import dashed
from pytest_panic_doctor.rules.model import Finding, RepairKind, plural

if TYPE_CHECKING:
    from pytest_panic_doctor.doctor import Doctor
    from pytest_panic_doctor.examine import Outcome
    from pytest_panic_doctor.options import Settings
    from pytest_panic_doctor.rules.model import Rule

FINDINGS_SHOWN = 20
IDS_SHOWN = 20
WIDTH = 80
LABEL_WIDTH = 48
DASHED = 36
"""Characters of a UUID with dashes."""


def failure(outcome: Outcome, rule: Rule, doctor: Doctor) -> str:
    """The text of a failed item: its findings, worst first, what became of a repair, and what to type next."""
    worst = sorted(outcome.findings, key=lambda finding: -finding.count)
    lines: list[str] = []
    for finding in worst[:FINDINGS_SHOWN]:
        lines += [finding.sentence, *where(finding, doctor), *identified(finding)]
    if len(worst) > FINDINGS_SHOWN:
        lines.append(
            f"… and {plural(len(worst) - FINDINGS_SHOWN, 'more finding')} (showing {FINDINGS_SHOWN} of {len(worst):,})"
        )
    if outcome.note:
        lines.append(outcome.note)
    elif not doctor.settings.fix:
        lines.append(next_step(rule, doctor))
    return "\n".join(lines)


def repaired(outcome: Outcome) -> str:
    """The text of a fixed item, for reports that know only passed and failed: what was found, and what was done."""
    found = [finding.sentence for finding in outcome.findings[:FINDINGS_SHOWN]]
    if len(outcome.findings) > FINDINGS_SHOWN:
        found.append(f"… and {plural(len(outcome.findings) - FINDINGS_SHOWN, 'more finding')}")
    return "\n".join([*found, outcome.note])


def where(finding: Finding, doctor: Doctor) -> Iterator[str]:
    """The run and the experiment that a finding is about, by id and as a person knows them."""
    for noun, stored in (("run", finding.run), ("experiment", finding.experiment)):
        if stored:
            label = doctor.labels.get(stored, "")
            yield f"  {noun:<10} {dashed(stored)}  {label}".rstrip()


def identified(finding: Finding) -> Iterator[str]:
    """The rows of a finding: at most 20 of them, two a line, the count exact."""
    if not finding.table or not finding.ids or finding.ids == (finding.run,) or finding.ids == (finding.experiment,):
        return
    shown = finding.ids[:IDS_SHOWN]
    more = f" (showing {len(shown)} of {finding.count:,})" if finding.count > len(shown) else ""
    yield f"  {finding.table}{more}"
    for start in range(0, len(shown), 2):
        yield f"    {'  '.join(shown[start : start + 2])}"


def next_step(rule: Rule, doctor: Doctor) -> str:
    """What to do about a rule that is sick."""
    if rule.repair is None:
        return f"nothing repairs this: {rule.remedy}" if rule.remedy else "nothing repairs this"
    if rule.repair is RepairKind.EMBED:
        return "repaired by --doctor-fix where a conftest.py brings an embedding hook (pytest_doctor_embed)"
    return f"next: {command(doctor.settings, '--doctor-fix', f'--doctor-rule {rule.id}')}"


def label_of(nodeid: str, labels: Mapping[str, str]) -> str:
    """What a person calls the run or the experiment that an item is about, cut short; empty for the whole database."""
    subject = nodeid.split("[", 1)[1] if "[" in nodeid else ""
    label = labels.get(subject[:DASHED].replace("-", ""), "")
    return cut(label, LABEL_WIDTH)


def cut(line: str, width: int) -> str:
    """A text of at most `width` characters, the last of which says where more was."""
    return line if len(line) <= width else line[: width - 1] + "…"


def command(settings: Settings, *options: str) -> str:
    """The command line that examines the same database with other options."""
    base = f"--doctor-db {shown_path(settings)}"
    return " ".join(("pytest", base, *options))


def shown_path(settings: Settings) -> str:
    """The database's path, short where it lies below the current folder."""
    return short(settings.database)


def short(path: Path) -> str:
    """A path as a person types it from the current folder."""
    relative = os.path.relpath(path)
    return shlex.quote(min(relative, str(path), key=len))
