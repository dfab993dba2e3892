"""The doctor's hooks within a pytest session; registered only where one was asked for."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor import options
from pytest_panic_doctor.doctor import Doctor, begin, check_node, join
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examine import Examiner, Outcome
from pytest_panic_doctor.items import DOCTOR, EXAMINER, DoctorFile, DoctorItem
from pytest_panic_doctor.planner import Planner
from pytest_panic_doctor.report import terminal
from pytest_panic_doctor.report.files import ReportFiles
from pytest_panic_doctor.report.live import progress
from pytest_panic_doctor.report.results import Results, from_plain, to_plain
from pytest_panic_doctor.rules.model import plural

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pytest_panic_doctor.remote import Remote
    from pytest_panic_doctor.rules.model import Rule
    from pytest_panic_doctor.surgery import OperatingSurgeon
    from pytest_panic_doctor.treatment import Treatment

DISTRIBUTION = "pytest-panic-doctor"
UNEXAMINED = "the examination itself failed, so nothing is known about this item"
FIXED = ("fixed", "+", ("FIXED", {"cyan": True}))


class DoctorSession:
    """One session, in the controller or in an xdist worker."""

    def __init__(self, config: pytest.Config) -> None:
        """Read the options, look at the database (or take what the controller sends), and choose what is collected."""
        self.config = config
        self.input: dict[str, object] | None = getattr(config, "workerinput", {}).get("doctor")
        self.results = Results()
        self.files: ReportFiles | None = None
        self.cap: str | None = None
        self.notes: list[str] = []
        self.treatment: Treatment | None = None
        self.remote: Remote | None = None
        self.surgeon: OperatingSurgeon | None = None
        rules = own_rules(config)
        try:
            self.doctor = join(self.input, rules) if self.input else self._begin(rules)
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        config = self.config
        for rule in self.doctor.rules.values():
            for name in dict.fromkeys((rule.id, rule.marker)):
                config.addinivalue_line("markers", f"{name}: {rule.sentence}")
        config.addinivalue_line("markers", "doctor: every item of pytest-panic-doctor")
        config.stash[DOCTOR] = self.doctor
        examiner = Examiner(self.doctor.database, self.doctor.rules, self.doctor.settings.kinds)
        if self.doctor.settings.plan:
            examiner.planner = Planner(self.doctor.database, self.doctor.settings.kinds)
        config.stash[EXAMINER] = examiner
        self._choose_what_is_collected()
        if self.input is None:
            self._begin_reports()

    def pytest_sessionstart(self) -> None:
        """Where items are to be repaired and run in this process, a surgeon."""
        if self.doctor.ward and (self.input is not None or not self._distributes()):
            from pytest_panic_doctor.treatment import Ward, surgeon

            self.surgeon = surgeon(self.doctor, Ward.from_plain(self.doctor.ward), self._embed, self._engine)
            self.config.stash[EXAMINER].surgeon = self.surgeon

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Show what is being computed, while it is."""
        if self.treatment is None or session.testsfailed:
            return (yield)
        with ExitStack() as stack:
            if self.remote:
                stack.enter_context(self.remote.dispatching())
                self.collected(item.nodeid for item in session.items)
            status = self.remote.status if self.remote else tuple
            stack.enter_context(progress(self.config, self.doctor, self.treatment.ward, status))
            return (yield)

    def collected(self, nodeids: Iterable[str]) -> None:
        """Begin to compute what these items will need, where a cluster does; in the controller."""
        chosen = list(nodeids)
        if self.remote and chosen:
            self.remote.collected(chosen)

    def pytest_keyboard_interrupt(self) -> None:
        """Tell the workers, before xdist waits for them."""
        if self.treatment:
            self.treatment.ward.stop_file.touch()

    def _distributes(self) -> bool:
        return bool(self.config.getoption("dist", "no") != "no")

    def _embed(self, model: str, outputs: Sequence[str | bytes]) -> NDArray[np.float32] | None:
        vectors: NDArray[np.float32] | None = self.config.hook.pytest_doctor_embed(
            embedding_model=model, outputs=outputs
        )
        return vectors

    def _engine(self, name: str) -> str:
        found: str | None = self.config.hook.pytest_doctor_engine(name=name)
        return found or name

    def _begin(self, rules: list[Rule]) -> Doctor:
        from pytest_panic_doctor.plugin import ini_dir

        settings = options.settings(self.config, self.config.invocation_params.dir, ini_dir(self.config))
        if settings.demo:
            build_demo(settings.database)
        if settings.fix and not self.config.getoption("collectonly"):
            from pytest_panic_doctor.treatment import Treatment

            self.treatment = Treatment(settings)
        doctor = begin(settings, rules)
        if self.treatment:
            doctor.ward = self.treatment.ward.as_plain()
            doctor.largest_first(len(self.config.getoption("tx", None) or ()) or 1)
            self.treatment.check_room(doctor)
            if settings.ray:
                from pytest_panic_doctor.remote import Remote

                self.remote = Remote(doctor, self.treatment.ward, self._engine)
        return doctor

    def _begin_reports(self) -> None:
        if self.config.pluginmanager.hasplugin("xdist"):
            from pytest_panic_doctor.parallel import XdistHooks, said_of_workers

            self.config.pluginmanager.register(XdistHooks(self.doctor.rules, self.collected), "panic-doctor-xdist")
            self.cap = said_of_workers(self.config, self.doctor.settings)
        if not self.config.getoption("collectonly"):
            self.files = ReportFiles(self.doctor, version(DISTRIBUTION))

    def _choose_what_is_collected(self) -> None:
        """A database alone means: examine it and nothing else; with paths beside it, both."""
        config, database = self.config, self.doctor.settings.database
        named = [arg for arg in config.args if self._is_database(arg.split("::")[0])]
        for arg in named:
            if "::" in arg:
                check_node(arg.split("::", 1)[1], self.doctor)
        by_ini_alone = not any(config.getoption(option.key) not in (None, False, []) for option in options.OPTIONS)
        paths_given = config.args_source is pytest.Config.ArgsSource.ARGS
        if named or (by_ini_alone and paths_given):
            return
        if not paths_given and not by_ini_alone:
            config.args.clear()
        config.args.append(str(database))

    def _is_database(self, arg: str) -> bool:
        path = Path(self.config.invocation_params.dir, arg)
        return options.absolute(path) == self.doctor.settings.database

    def pytest_report_header(self) -> list[str]:
        """The database, its rows, and how many items there are."""
        lines = terminal.header(self.doctor, self.cap)
        if self.treatment:
            lines += [f"doctor: warning: {warning}" for warning in self.treatment.warnings]
            if settled := self.treatment.settled:
                lines.append(f"doctor: settled {plural(len(settled), 'repair')} that an earlier run was interrupted in")
        return lines

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> DoctorFile | None:
        """The database is a file of tests."""
        if options.absolute(file_path) == self.doctor.settings.database:
            return DoctorFile.from_parent(parent, path=file_path)
        return None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put the outcome on the report, as plain values, so that it reaches the controller."""
        report = yield
        if isinstance(item, DoctorItem) and (report.when == "call" or report.failed):
            outcome = item.outcome or Outcome("failed", note=UNEXAMINED)
            report.doctor = to_plain(item.entry.rule, outcome)  # type: ignore[attr-defined]
            item.outcome = None
            if report.skipped:
                report.longrepr = (item.nodeid.split("::")[0], 1, f"Skipped: {outcome.note}")
        return report

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """A fixed item has a letter, a word, a colour and a count of its own."""
        plain = getattr(report, "doctor", None)
        return FIXED if plain and plain["outcome"] == "fixed" and report.passed else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what came of each item, in the controller."""
        plain = getattr(report, "doctor", None)
        if plain is None or self.input is not None:
            return
        result = from_plain(report.nodeid, report.duration, plain)
        self.results.items.append(result)
        if self.files:
            self.files.add(result)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        """Write the reports, the JUnit file after pytest has."""
        yield
        if self.treatment and (late := self.treatment.finish()):
            self.notes.append(late)
        if self.files:
            self.files.end(self.results)
            xml = self.config.getoption("xmlpath", None)
            if xml and self.results.items and Path(xml).is_file():
                from pytest_panic_doctor.report.junit import enrich

                enrich(Path(xml), self.config.getini("junit_family"), self.doctor, self.results, version(DISTRIBUTION))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The rules, worst first, and what to type next."""
        terminal.summary(terminalreporter, self.doctor, self.results)
        for note in self.notes:
            terminalreporter.write_line(f"doctor: {note}", yellow=True)

    def close(self) -> None:
        """Let go of the database, of the child, and of the lock."""
        if doctor := getattr(self, "doctor", None):
            doctor.database.close()
        if self.surgeon:
            self.surgeon.close()
        if self.remote:
            self.remote.close()
        if self.treatment:
            self.treatment.close()


def build_demo(database: Path) -> None:
    """Build the demo database, in a process of its own: diagrams are never computed in this one.

    Raises `DoctorError` with the sentence of the process that could not.
    """
    command = [sys.executable, "-m", "pytest_panic_doctor.demo", str(database.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DoctorError((done.stderr.strip().splitlines() or ["the demo could not be built"])[-1])


def own_rules(config: pytest.Config) -> list[Rule]:
    """The rules that plugins and conftest files bring."""
    return [rule for rules in config.hook.pytest_doctor_rules() for rule in rules or ()]
