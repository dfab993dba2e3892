"""The doctor's hooks within a pytest session; registered only where one was asked for."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack, nullcontext
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.compute.memory import available_memory
from pytest_panic_doctor.database.readahead import ReadAhead
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.acceptance import AcceptancePolicy
from pytest_panic_doctor.examination.baseline import compare, save
from pytest_panic_doctor.examination.examination import Examination, check_node, from_database, from_worker_input
from pytest_panic_doctor.examination.foreign_code import Misbehaved, calling, shown
from pytest_panic_doctor.examination.lookahead import Lookahead
from pytest_panic_doctor.examination.manifest import item_name
from pytest_panic_doctor.examination.prerequisites import prerequisites
from pytest_panic_doctor.examination.sharding import PAGES
from pytest_panic_doctor.formatting import format_size, plural, printable
from pytest_panic_doctor.report import terminal
from pytest_panic_doctor.report.command_line import invoked_command
from pytest_panic_doctor.report.files import ReportFiles, check_outputs
from pytest_panic_doctor.report.junit import path_of
from pytest_panic_doctor.report.progress_display import progress
from pytest_panic_doctor.report.results import Results
from pytest_panic_doctor.session import options
from pytest_panic_doctor.session.commands import DISTRIBUTION, build_demo, own_rules
from pytest_panic_doctor.session.items import ACCEPTANCE, EXAMINATION, EXAMINER, DoctorFile, DoctorItem
from pytest_panic_doctor.session.outcome_hooks import ReportHooks
from pytest_panic_doctor.session.selection import kept, nothing_chosen, selection_arguments
from pytest_panic_doctor.session.signals import TerminationSignals
from pytest_panic_doctor.topology.engines import describe_substitute, resolve_engine, would_compute

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pytest_panic_doctor.examination.result import Result
    from pytest_panic_doctor.repair.cluster.controller import ClusterRepair
    from pytest_panic_doctor.repair.controller import RepairController
    from pytest_panic_doctor.repair.journal.size import SessionTotals
    from pytest_panic_doctor.repair.repairer import DatabaseRepairer
    from pytest_panic_doctor.rules.base import Rule

PLACE = re.compile(r"\w[\w-]*|\w+(\.\w+)*:\w+")
"""An engine's name, or where one is: `module:attribute`."""

SLOW_CHECK_BYTES = 1e9
"""Bytes of a file that is not checked in a moment."""


def written(database: Path, table: str, row: int) -> bool:
    """Whether the doctor itself wrote a row, as its journal has it; the journal is imported when it is asked."""
    from pytest_panic_doctor.repair.journal import journal

    return journal.written(database, table, row)


class DoctorSession:
    """One session, in the controller or in an xdist worker."""

    def __init__(self, config: pytest.Config) -> None:
        """Read the options, look at the database (or take what the controller sends), and choose what is collected."""
        self.config = config
        self.input: dict[str, object] | None = getattr(config, "workerinput", {}).get("doctor")
        self.results = Results()
        self.files: ReportFiles | None = None
        self.worker_note: str | None = None
        self.notes: list[str] = []
        self.demo_notes: list[str] = []
        self.repair_controller: RepairController | None = None
        self.cluster_repair: ClusterRepair | None = None
        self.repairer: DatabaseRepairer | None = None
        self.read_ahead: ReadAhead | None = None
        self.totals: SessionTotals | None = None
        self.scratch: TemporaryDirectory[str] | None = None
        self.signals = TerminationSignals()
        if config.getoption("setuponly", False):
            raise BadOption("--setup-only and --setup-plan examine nothing: leave them out, or give --collect-only")
        rules = own_rules(config)
        try:
            if self.input is None:
                self.signals.listen()
            self.examination = from_worker_input(self.input, rules, written) if self.input else self._begin(rules)
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        config = self.config
        for rule in self.examination.rules.values():
            for name in dict.fromkeys((rule.id, rule.marker)):
                config.addinivalue_line("markers", f"{name}: {rule.description}")
        config.addinivalue_line("markers", "doctor: every item of pytest-panic-doctor")
        config.stash[EXAMINATION] = self.examination
        self.examination.embeds = bool(config.hook.pytest_doctor_embed.get_hookimpls())
        settings = self.examination.settings
        if settings.plan or settings.fix:
            self.examination.engine = would_compute(self._engine(settings.engine), settings.max_dim)
        examiner = self.examination.examiner()
        examiner.embedder = self._embed if self.examination.embeds else None
        if settings.plan:
            from pytest_panic_doctor.repair.journal.size import SessionTotals
            from pytest_panic_doctor.repair.preview import Planner

            self.totals = SessionTotals(Path(self.examination.scratch, "tally.sqlite"))
            examiner.planner = Planner(
                self.examination.database,
                settings.kinds,
                self.totals,
                embeds=self.examination.embeds,
                most=settings.max_quarantine,
                engine=self.examination.engine,
            )
        config.stash[EXAMINER] = examiner
        config.stash[ACCEPTANCE] = AcceptancePolicy(self.examination.settings)
        self._choose_what_is_collected()
        hooks = ReportHooks(config, self.examination, self.results, None if self.input else self._ended)
        config.pluginmanager.register(hooks, "panic-doctor-reports")
        if self.input is None:
            self._begin_reports()

    def _ended(self, result: Result) -> None:
        if self.files:
            self.files.add(result)

    def pytest_sessionstart(self) -> None:
        """Where items are to be repaired and run in this process, a surgeon."""
        if self.examination.repair_run and (self.input is not None or not self._distributes()):
            from pytest_panic_doctor.repair.controller import RepairRun, make_repairer

            self.repairer = make_repairer(
                self.examination, RepairRun.from_plain(self.examination.repair_run), self._embed, self._engine
            )
            self.config.stash[EXAMINER].repairer = self.repairer

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Show what is being computed, while it is."""
        if self.repair_controller is None or session.testsfailed:
            return (yield)
        with ExitStack() as stack:
            if self.cluster_repair:
                stack.enter_context(self.cluster_repair.dispatching())
                if session.items:
                    self.cluster_repair.collected()
            status = self.cluster_repair.status if self.cluster_repair else tuple
            stack.enter_context(progress(self.config, self.examination, self.repair_controller.run, status))
            return (yield)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """The rules of these items, and no others, are repaired: also by an item that needs them first."""
        items = [item for item in session.items if isinstance(item, DoctorItem)]
        self.examination.collect(item.name for item in items)
        examiner = self.config.stash[EXAMINER]
        examiner.repairable_rules = self.examination.chosen_rules()
        ends_early = any(self.config.getoption(name, 0) for name in ("maxfail", "stepwise"))
        if self.repairer and not ends_early:
            # Where any item may be the last, nothing is repaired ahead of its own.
            examiner.later = Lookahead(examiner, (item.entry for item in items), self.examination.in_time)

    def workers_collected(self, nodeids: Iterable[str]) -> None:
        """The same in a controller that lets its workers collect; where a cluster computes, it may begin."""
        self.examination.collect(map(item_name, nodeids))
        if self.cluster_repair:
            self.cluster_repair.collected()

    def pytest_keyboard_interrupt(self) -> None:
        """Tell the workers, before xdist waits for them."""
        if self.repair_controller:
            self.repair_controller.run.stop_file.touch()

    def _distributes(self) -> bool:
        return bool(self.config.getoption("dist", "no") != "no")

    def _embed(self, model: str, outputs: Sequence[str | bytes]) -> NDArray[np.float32] | None:
        with calling("pytest_doctor_embed"):
            vectors: NDArray[np.float32] | None = self.config.hook.pytest_doctor_embed(
                embedding_model=model, outputs=outputs
            )
        return vectors

    def _engine(self, name: str) -> str:
        with calling("pytest_doctor_engine"):
            found: object = self.config.hook.pytest_doctor_engine(name=name)
        if found is not None and not (isinstance(found, str) and PLACE.fullmatch(found)):
            raise Misbehaved(f"pytest_doctor_engine returned {shown(found)}: return 'module:attribute', or None")
        return found or name

    def _begin(self, rules: list[Rule]) -> Examination:
        from pytest_panic_doctor.session.options import ini_folder

        settings = options.settings(self.config, self.config.invocation_params.dir, ini_folder(self.config))
        if not self.config.getoption("collectonly"):
            check_outputs(settings, self._junit())
        if settings.fix or settings.engine != "auto":
            resolve_engine(self._engine(settings.engine), settings.max_dim)
        if settings.demo:
            self.demo_notes = build_demo(settings.database)
        if settings.fix and not self.config.getoption("collectonly"):
            from pytest_panic_doctor.repair.controller import RepairController

            self._read_ahead(settings.database)
            self._announce_check(settings.database)
            self.repair_controller = RepairController(settings)
        workers = len(self.config.getoption("tx", None) or ())
        examination = from_database(settings, rules, workers)
        examination.written = written
        examination.chosen_by = selection_arguments(self.config, settings.database)
        program = (invoked_command(), *kept(self.config.invocation_params.args))
        examination.program, examination.distributes = " ".join(program), self.config.pluginmanager.hasplugin("xdist")
        if self.repair_controller:
            examination.scratch = str(self.repair_controller.run.scratch)
            examination.repair_run = self.repair_controller.run.as_plain()
            examination.schedule_largest_first(workers or 1)
            self.repair_controller.check_room(examination)
            if settings.ray:
                from pytest_panic_doctor.repair.cluster.controller import ClusterRepair

                self.cluster_repair = ClusterRepair(examination, self.repair_controller.run, self._engine)
        else:
            self.scratch = TemporaryDirectory(prefix="panic-doctor-")
            examination.scratch = self.scratch.name
        return examination

    def _begin_reports(self) -> None:
        if self.config.pluginmanager.hasplugin("xdist"):
            from pytest_panic_doctor.session.xdist import XdistHooks, describe_workers

            hooks = XdistHooks(self.examination.rules, self.workers_collected)
            self.config.pluginmanager.register(hooks, "panic-doctor-xdist")
            self.worker_note = describe_workers(self.config, self.examination.settings)
        if not self.config.getoption("collectonly"):
            family = self.config.getini("junit_family")
            self.files = ReportFiles(self.examination, version(DISTRIBUTION), self._junit(), family)
            if any(rule.expensive or rule.id in PAGES for rule in self.examination.selected):
                self._read_ahead(self.examination.settings.database)

    def _read_ahead(self, database: Path) -> None:
        self.read_ahead = self.read_ahead or ReadAhead(database, available_memory())
        self.read_ahead.start()

    def _announce_check(self, database: Path) -> None:
        """Before the first write every page is looked at, which takes minutes where there are many."""
        size = database.stat().st_size if database.is_file() else 0
        if size >= SLOW_CHECK_BYTES and self.config.get_verbosity() >= 0:
            said = f"doctor: every page of {format_size(size)} is checked before the first write …"
            print(said, file=sys.stderr, flush=True)

    def _choose_what_is_collected(self) -> None:
        """A database alone means: examine it and nothing else; with paths beside it, both."""
        config, database = self.config, self.examination.settings.database
        if "[" in str(database) or "::" in str(database):
            raise BadOption(f"--doctor-db {database} has [ or :: in it, which pytest takes for an item: link to it")
        named = [arg for arg in config.args if self._is_database(arg.split("::")[0])]
        for arg in named:
            if "::" in arg:
                check_node(arg.split("::", 1)[1], self.examination)
        by_ini_alone = not any(config.getoption(option.key) not in (None, False, []) for option in options.OPTIONS)
        paths_given = config.args_source is pytest.Config.ArgsSource.ARGS
        if named or (by_ini_alone and paths_given):
            return
        if not paths_given and not by_ini_alone:
            config.args.clear()
        config.args.append(str(database))

    def _is_database(self, arg: str) -> bool:
        path = Path(self.config.invocation_params.dir, arg)
        return options.absolute(path) == self.examination.settings.database

    def pytest_report_header(self) -> list[str]:
        """The database, its rows, and how many items there are."""
        lines = [
            *(f"doctor: {printable(each)}" for each in self.demo_notes),
            *terminal.header(self.examination, self.worker_note),
        ]
        if self.repair_controller:
            lines += [f"doctor: warning: {printable(warning)}" for warning in self.repair_controller.warnings]
            settings = self.examination.settings
            if not settings.ray and (said := describe_substitute(self._engine(settings.engine), settings.max_dim)):
                lines.append(f"doctor: {said}")
            if settled := self.repair_controller.recovered:
                lines.append(f"doctor: completed {plural(len(settled), 'repair')} that an earlier run left unfinished")
        return lines

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> DoctorFile | None:
        """The database is a file of tests."""
        if options.absolute(file_path) == self.examination.settings.database:
            return DoctorFile.at(parent, file_path)
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> object:
        """Run a doctor item once, by pytest's own protocol, whatever plugin would run a failed one again.

        A database is not flaky: a second look would find the same, and every look would be counted.
        """
        if not isinstance(item, DoctorItem):
            return None
        runner = self.config.pluginmanager.get_plugin("runner")
        assert runner is not None
        return runner.pytest_runtest_protocol(item=item, nextitem=nextitem)

    @pytest.hookimpl(optionalhook=True)
    def pytest_timeout_set_timer(self, item: pytest.Item) -> bool | None:
        """Keep pytest-timeout's clock from a doctor item: a diagram may take hours, and has `--doctor-timeout`."""
        return True if isinstance(item, DoctorItem) else None

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, None, None]:
        """Write the baseline and the reports: after the workers are gone and pytest has written the JUnit file, and
        before the terminal's summary, which tells of it."""
        with self.files.junit_written() if self.files else nullcontext():
            yield
        self.results.itemless = self.examination.itemless
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.examination.all_elsewhere:
            # More shards than there is to split: this one has nothing to do, and has done it.
            session.exitstatus = pytest.ExitCode.OK
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            self.notes += nothing_chosen(self.config, self.examination.rules)
        if self.input is None and self.config.getoption("collectonly"):
            self.results.doubts += [self.examination.doubt] if self.examination.doubt else []
        elif self.input is None:
            ended = {item_name(item.nodeid) for item in self.results.items}
            self.results.unreached = self.examination.to_run(distributed=self._distributes()) - ended
            self._find_doubts()
        self._agree(session)
        ended_well = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        self._compare(complete=ended_well and not self.results.unreached)
        if self.repair_controller:
            self.results.repairs = self.repair_controller.repairs()
            self.notes += self.repair_controller.finish()
        if self.files:
            self.files.end(self.results, self.config.pluginmanager.get_plugin("terminalreporter"))
            self.notes += self.files.failed.values()
            if self.files.failed and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _junit(self) -> Path | None:
        """The JUnit file that pytest writes."""
        given = self.config.getoption("xmlpath", None)
        return path_of(given) if given else None

    def _find_doubts(self) -> None:
        """Why the session is not green though no item failed: items may be missing, or were not reached."""
        doubts = [self.examination.doubt] if self.examination.doubt else []
        if self.results.items:
            doubts += prerequisites(self.examination, self.config.stash[ACCEPTANCE])
        if self.results.unreached and not self.results.totals()["failed"]:
            doubts.append(f"{plural(len(self.results.unreached), 'item')} did not end, so nothing is known about them")
        self.results.doubts += doubts

    def _agree(self, session: pytest.Session) -> None:
        """A session ends well only where no item failed and nothing is in doubt, whoever else set its status."""
        if self.input is None and (self.results.doubts or self.results.totals()["failed"] or self.results.unreached):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _compare(self, *, complete: bool) -> None:
        """Compare with the baseline, and write it where that was asked for and the session came to its end."""
        settings = self.examination.settings
        if settings.baseline is None or self.files is None:
            return
        known = self.config.stash[ACCEPTANCE].known
        self.results.compared = compare(known, self.results.items, self.examination.all_names())
        if settings.baseline_write and complete:
            with self.files.trying(settings.baseline):
                save(settings.baseline, self.results.compared.accepted, settings.database)
                self.results.compared.written = True
        elif settings.baseline_write:
            self.notes.append("the baseline was not written: the examination did not finish")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The rules, worst first, and what to type next."""
        if self.totals:
            self.results.planned, self.results.planned_in_all = self.totals.by_rule(), self.totals.total()
        terminal.summary(terminalreporter, self.examination, self.results)
        unsaid = self.demo_notes if terminalreporter.verbosity < 0 else []
        for note in (*unsaid, *self.results.notes, *self.notes):
            terminalreporter.write_line(f"doctor: {printable(note)}", yellow=True)

    def close(self) -> None:
        """Let go of the database, of the child, and of the lock."""
        if self.read_ahead:
            self.read_ahead.stop()
        if examination := getattr(self, "examination", None):
            examination.database.close()
        if self.repairer:
            self.repairer.close()
        if self.cluster_repair:
            self.cluster_repair.close()
        if self.repair_controller:
            self.repair_controller.close()
        if self.scratch:
            self.scratch.cleanup()
        self.signals.stop()
