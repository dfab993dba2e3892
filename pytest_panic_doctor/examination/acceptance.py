"""What the project accepts: by `doctor_severity`, and by the baseline, a file that is the same for the same findings.

An identity is an item and a row of a table. The message belongs to it too if the finding does not name each damaged
row, or if the named experiment or run is not damaged itself but lacks something: then a larger finding is a new one,
and accepting one missing run accepts no other. A finding with more rows than it names has no identity and cannot be
accepted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pytest_panic_doctor.database.files import atomic_write
from pytest_panic_doctor.database.memory_room import MemoryRoom, memory_room
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination.manifest import item_name
from pytest_panic_doctor.examination.outcome import Outcome, Result
from pytest_panic_doctor.examination.settings import Settings, Severity
from pytest_panic_doctor.formatting import join_notes, plural
from pytest_panic_doctor.rules.base import IDS_KEPT, Finding

SUBJECTS = ("experimentconfig", "run")
"""Tables whose row a finding names as its subject, although that row itself may be healthy."""

TOO_MANY = "not accepted: it has more rows than it names"

FORMAT = 1
"""The version of the file format; newer files are refused."""


class BadBaseline(DoctorError):
    """A file that is not a baseline; the message names it and says what to do."""


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """What identifies a finding within its item in later sessions; `message` is empty if the row identifies it."""

    table: str
    id: str
    message: str = ""


KnownFindings = Mapping[str, frozenset[Identity]]
"""Identities by the name of the item (the part of its id after `::`)."""


def of(finding: Finding) -> frozenset[Identity]:
    """Return the identities of a finding: one for each row; empty if it has more rows than it names."""
    ids, table = finding.ids, finding.table or ""
    names_its_subject = table in SUBJECTS and len(ids) == 1 and ids[0] in (finding.experiment, finding.run)
    if ids and len(ids) == finding.count and not names_its_subject:
        return frozenset(Identity(table, each) for each in ids)
    if len(ids) >= IDS_KEPT:
        return frozenset()
    return frozenset({Identity(table, " ".join(ids), finding.message)})


def split(finding: Finding, known: frozenset[Identity]) -> tuple[Finding | None, Finding | None]:
    """Split a finding into a new and a known part; None if a part is empty."""
    own = of(finding)
    if own and own <= known:
        return None, finding
    if len(own) < 2 or not own & known:
        return finding, None
    old = tuple(each for each in finding.ids if Identity(finding.table or "", each) in known)
    new = tuple(each for each in finding.ids if Identity(finding.table or "", each) not in known)
    message = f"{finding.message} ({len(new):,} new, {len(old):,} in the baseline)"
    return (
        replace(finding, message=message, ids=new, count=len(new)),
        replace(finding, message=message, ids=old, count=len(old)),
    )


class AcceptancePolicy:
    """Passes a failed outcome if all its findings are accepted; the report still shows them."""

    def __init__(self, settings: Settings) -> None:
        """Read the baseline, if there is one.

        Args:
            settings: The user's choices.

        Raises:
            BadBaseline: The file cannot be read.
        """
        self.severity = settings.severity
        self.writing = settings.baseline_write
        self.known: KnownFindings = {}
        path = settings.baseline
        if path and (path.exists() or not self.writing):
            self.known = load(path, memory_room(settings.memory))

    def apply(self, rule: str, name: str, outcome: Outcome) -> Outcome:
        """Apply severity and baseline to one outcome.

        Args:
            rule: The id of the rule.
            name: The name of the item.
            outcome: What the examination of the item found.

        Returns:
            The outcome with new and accepted findings apart.
        """
        if outcome.status != "failed" or not outcome.findings or outcome.error:
            # A check that ended early may have missed findings that are not accepted.
            return outcome
        new: tuple[Finding, ...] = ()
        old, by = outcome.findings, outcome.accepted_by
        if why := self._accepted_by_severity(rule, outcome.findings):
            by = "severity"
        else:
            new, old = self._split_by_baseline(name, outcome.findings)
            by = "baseline" if old else by
            why = "accepted by the baseline" if not new else TOO_MANY if self.writing else ""
        return replace(
            outcome,
            status="failed" if new else "passed",
            findings=new,
            accepted=(*old, *outcome.accepted),
            accepted_by=by,
            note=join_notes(why, outcome.note),
        )

    def _accepted_by_severity(self, rule: str, findings: tuple[Finding, ...]) -> str:
        severity = self.severity.get(rule, Severity())
        count = sum(max(1, finding.count) for finding in findings)
        if not severity.accepts(count):
            return ""
        limit = "" if severity.most is None else f": {plural(count, 'row')}, up to {severity.most:,} allowed"
        return f"a warning by doctor_severity{limit}"

    def _split_by_baseline(
        self, name: str, findings: tuple[Finding, ...]
    ) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
        known = self.known.get(name, frozenset())
        # While a baseline is written, a finding is accepted if it has an identity.
        parts = [split(finding, of(finding) if self.writing else known) for finding in findings]
        return tuple(fresh for fresh, _ in parts if fresh), tuple(old for _, old in parts if old)


def load(path: Path, space: MemoryRoom = MemoryRoom()) -> KnownFindings:  # noqa: B008
    """Read a baseline file.

    Args:
        path: The file.
        space: The memory limit.

    Returns:
        The accepted findings.

    Raises:
        BadBaseline: It is not a baseline, is newer, or does not fit into `space`.
    """
    try:
        if (size := path.stat().st_size) > space.json:
            raise BadBaseline(str(space.too_large(f"--doctor-baseline {path}", size, space.json)))
        plain = json.loads(path.read_text(encoding="utf-8"))
        version = plain["doctor_baseline"]
        if version > FORMAT:
            raise BadBaseline(
                f"--doctor-baseline {path} has format {version}, and this doctor reads up to {FORMAT}: "
                "install a newer one"
            )
        found: dict[str, set[Identity]] = {}
        for entry in plain["accepted"]:
            name = str(entry["item"])
            identity = Identity(str(entry.get("table", "")), str(entry.get("id", "")), str(entry.get("message", "")))
            found.setdefault(name, set()).add(identity)
    except FileNotFoundError as error:
        raise BadBaseline(
            f"--doctor-baseline {path} does not exist: add --doctor-baseline-write to write it"
        ) from error
    except OSError as error:
        raise BadBaseline(f"--doctor-baseline {path} cannot be read: {error.strerror}; give another file") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadBaseline(
            f"--doctor-baseline {path} is not a baseline: give another file, or move it away and write a new one"
        ) from error
    return {name: frozenset(each) for name, each in found.items()}


def save(path: Path, known: KnownFindings, like: Path | None = None) -> None:
    """Write a baseline file atomically: sorted, one finding a line, without a time.

    Args:
        path: The file.
        known: The accepted findings.
        like: A file whose permissions a new file gets.
    """
    lines = [
        json.dumps({"item": name} | {key: value for key, value in asdict(each).items() if value}, ensure_ascii=False)
        for name in sorted(known)
        for each in sorted(known[name])
    ]
    text = f'{{"doctor_baseline": {FORMAT},\n"accepted": [\n' + ",\n".join(lines) + "\n]}\n"
    with atomic_write(path, like) as partial:
        partial.write_text(text, encoding="utf-8")


@dataclass
class Comparison:
    """The findings of a session compared with the baseline."""

    new: int = 0
    known: int = 0
    healed: dict[str, frozenset[Identity]] = field(default_factory=dict)
    unlooked: int = 0
    """The number of accepted findings whose items were not examined."""
    accepted: dict[str, frozenset[Identity]] = field(default_factory=dict)
    """The contents of a baseline that is being written."""
    written: bool = False

    def as_plain(self) -> dict[str, object]:
        """Convert to the form of the JSON report."""
        healed = [{"item": name} | asdict(each) for name, found in self.healed.items() for each in sorted(found)]
        return {"new": self.new, "known": self.known, "healed": healed, "not looked at": self.unlooked}


def compare(known: KnownFindings, results: Iterable[Result], there: Iterable[str] | None) -> Comparison:
    """Compare the results with the baseline.

    Args:
        known: The baseline.
        results: The results of all items.
        there: The names of all items that the database has; None if the session did not list them all. Accepted
            findings of an item that no longer exists have healed.
    """
    found: dict[str, frozenset[Identity] | None] = {}
    compared = Comparison()
    for result in results:
        name = item_name(result.nodeid)
        if result.status == "skipped" or (result.status == "failed" and not result.findings) or result.error:
            continue
        if result.accepted_by == "severity":
            continue
        findings = (*result.accepted, *(() if result.status == "fixed" else result.findings))
        parts = list(map(of, findings))
        whole = frozenset[Identity]().union(*parts)
        compared.new += len(whole - known.get(name, frozenset()))
        # A part has no identity, so it is unknown what else has healed.
        found[name] = None if any(not part for part in parts) else whole
        if whole:
            compared.accepted[name] = whole
    names = None if there is None else frozenset(there)
    for name, before in known.items():
        if name in found:
            now = found[name]
            healed = frozenset() if now is None else before - now
            compared.known += len(before - healed)
            if now is None:
                compared.accepted[name] = before | compared.accepted.get(name, frozenset())
        elif names is not None and name not in names:
            healed = before
        else:
            healed = frozenset()
            compared.unlooked += len(before)
            compared.accepted[name] = before
        if healed:
            compared.healed[name] = healed
    return compared
