"""Hooks of the controlling process: header, results as they arrive, the end of the session, and the summary."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.database.progress import progress_to
from pytest_panic_doctor.examination.acceptance import compare, save
from pytest_panic_doctor.examination.examination import Examination
from pytest_panic_doctor.examination.foreign_code import Misbehaved, calling
from pytest_panic_doctor.examination.manifest import item_name
from pytest_panic_doctor.examination.outcome import Result, from_plain
from pytest_panic_doctor.examination.prerequisites import no_longer_passed, prerequisites
from pytest_panic_doctor.formatting import format_size, plural, printable
from pytest_panic_doctor.report import terminal, text
from pytest_panic_doctor.report.activity import Activity
from pytest_panic_doctor.report.files import ReportFiles
from pytest_panic_doctor.report.item_status import item_status
from pytest_panic_doctor.report.results import Results
from pytest_panic_doctor.session.failures import no_summary, one_line
from pytest_panic_doctor.session.foreign_hooks import locate_engine
from pytest_panic_doctor.session.items import agree
from pytest_panic_doctor.session.selection import explain_empty_selection
from pytest_panic_doctor.topology.engines import describe_substitute

if TYPE_CHECKING:
    from pytest_panic_doctor.repair.controller import RepairController
    from pytest_panic_doctor.repair.journal.size import SessionTotals


@dataclass(eq=False)
class ControllerPlugin:
    """Gathers the results of all processes, decides on the exit status, and writes the reports.

    Attributes:
        config: The session's config.
        examination: The session's examination.
        files: The reports that are written; None if items are only collected.
        repair: The controller's part of the repair; None if nothing is repaired.
        totals: What all planned repairs would take; None without `--doctor-plan`.
        demo_notes: Sentences about the demo database.
        worker_note: How many workers there are, for the header; None if nothing is distributed.
        results: The results of the items, as they arrive.
        notes: Sentences for the end of the summary.
    """

    config: pytest.Config
    examination: Examination
    files: ReportFiles | None
    repair: RepairController | None
    totals: SessionTotals | None
    demo_notes: Sequence[str]
    worker_note: str | None
    results: Results = field(default_factory=Results)
    notes: list[str] = field(default_factory=list)

    def pytest_report_header(self) -> list[str]:
        """Describe the database, its rows, and how many items there are."""
        lines = [
            *(f"doctor: {printable(each)}" for each in self.demo_notes),
            *terminal.header(self.examination, self.worker_note),
        ]
        if self.repair:
            from pytest_panic_doctor.report.plan import repair_header

            lines += map(printable, repair_header(self.examination, self.repair.outlook))
            lines += [f"doctor: warning: {printable(warning)}" for warning in self.repair.warnings]
            settings = self.examination.settings
            fallback = (
                None
                if settings.ray
                else describe_substitute(locate_engine(self.config, settings.engine), settings.max_dim)
            )
            if fallback:
                lines.append(f"doctor: {fallback}")
            if backup := settings.backup:
                lines.append(f"doctor: backup: {text.display_path(backup)}, {format_size(self.repair.copied)}")
            if recovered := self.repair.recovered:
                lines.append(
                    f"doctor: completed {plural(len(recovered), 'repair')} that an earlier run left unfinished"
                )
        return lines

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """Give an item of the database its letter or its words; those of other tests are pytest's."""
        plain = getattr(report, "doctor", None)
        return plain and item_status(report, plain, self.examination.labels, self.config.get_verbosity())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        """Store the result of an item, before any other plugin reads the report."""
        plain: Mapping[str, object] | None = getattr(report, "doctor", None)
        if plain is not None:
            result = from_plain(report.nodeid, report.duration, plain)
            agree(report, result.status, result.note or result.error)
            if report.failed and isinstance(report.longrepr, str):
                report.longrepr = one_line(self.config, report.nodeid, result, report.longrepr)  # type: ignore[assignment]
            self.results.add(result)
            if self.files:
                self.files.add(result)
            self._notify(result)
        yield

    def _notify(self, result: Result) -> None:
        """Call the listeners; one that raises changes no outcome, and is named at the end."""
        try:
            with calling("pytest_doctor_outcome"):
                self.config.hook.pytest_doctor_outcome(item=result.as_dict())
        except Misbehaved as raised:
            self.results.listener_errors[str(raised)] += 1

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, None, None]:
        """Set the exit status, then write the baseline and the reports.

        This runs after the workers have ended and pytest has written the JUnit file, and before the terminal's
        summary, which names what was written.
        """
        with self.files.junit_written() if self.files else nullcontext():
            yield
        self.results.itemless, self.results.unsampled = self.examination.itemless, self.examination.unsampled
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.examination.all_elsewhere:
            # There are more shards than items to split: this shard has nothing to do, which is no failure.
            session.exitstatus = pytest.ExitCode.OK
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            self.notes += explain_empty_selection(self.config, self.examination.rules)
        if self.repair:
            self.results.repairs = self.repair.repairs()
        self._find_doubts()
        session.exitstatus = self.exit_status(session.exitstatus)
        ended_well = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        self._compare(complete=ended_well and not self.results.unreached)
        if self.repair:
            self.notes += self.repair.finish()
        if self.files:
            with Activity(quiet=self.config.get_verbosity() < 0) as activity, progress_to(activity):
                self.files.end(self.results, self.config.pluginmanager.get_plugin("terminalreporter"))
            self.notes += self.files.failed.values()
            session.exitstatus = self.exit_status(session.exitstatus)

    def exit_status(self, status: int) -> int:
        """Return `status`, or 1 instead of 0 if an item failed, something is in doubt, or a report was not written.

        Another plugin may have set a status that is green.
        """
        doubtful = bool(self.results.doubts or self.results.totals()["failed"] or self.results.unreached)
        if doubtful or (self.files and self.files.failed):
            return status or pytest.ExitCode.TESTS_FAILED
        return status

    def _find_doubts(self) -> None:
        """Find why the session is not green although no item failed: items may be missing, or did not end."""
        self.results.doubts += [self.examination.doubt] if self.examination.doubt else []
        if self.config.getoption("collectonly"):
            return
        ended = {item_name(item.nodeid) for item in self.results.items}
        distributed = self.config.getoption("dist", "no") != "no"
        self.results.unreached = self.examination.to_run(distributed=distributed) - ended
        if self.results.items:
            self.results.doubts += prerequisites(self.examination)
        if any(each.verb == "quarantine" for each in self.results.repairs):
            outcomes = self.results.by_rule()
            passed = [name for name, counts in outcomes.items() if set(counts) == {"passed"}]
            self.results.doubts += no_longer_passed(self.examination, passed)
        if self.results.unreached and not self.results.totals()["failed"]:
            count = plural(len(self.results.unreached), "item")
            self.results.doubts.append(f"{count} did not end, so nothing is known about them")

    def _compare(self, *, complete: bool) -> None:
        """Compare with the baseline, and write it if that was asked for and the session is `complete`."""
        settings = self.examination.settings
        if settings.baseline is None or self.files is None or settings.runs:
            # A finding that is reduced to some runs says nothing about what has healed.
            return
        self.results.compared = compare(
            self.examination.acceptance.known, self.results.items, self.examination.all_names()
        )
        if settings.baseline_write and complete:
            with self.files.trying(settings.baseline):
                save(settings.baseline, self.results.compared.accepted, settings.database)
                self.results.compared.written = True
        elif settings.baseline_write:
            self.notes.append("the baseline was not written: the examination did not finish")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the rules, worst first, and what to type next; with -qq or --no-summary only why it is not green."""
        if no_summary(self.config) or terminalreporter.verbosity < -1:
            for doubt in self.results.doubts:
                terminalreporter.write_line(f"doctor: {printable(doubt)}", yellow=True)
            return
        if self.totals:
            self.results.planned, self.results.planned_in_all = self.totals.by_rule(), self.totals.total()
            self.results.planned_by_table = self.totals.by_table()
        width = self.config.get_terminal_writer().fullwidth
        terminal.summary(terminalreporter, self.examination, self.results, width)
        # With -q there is no header, so the notes about the demo come here.
        demo_notes = self.demo_notes if terminalreporter.verbosity < 0 else ()
        for note in (*demo_notes, *self.results.notes, *self.notes):
            terminalreporter.write_line(f"doctor: {printable(note)}", yellow=True)
