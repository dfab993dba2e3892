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

from pytest_panic_doctor.compute.memory import available
from pytest_panic_doctor.database.readahead import ReadAhead
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.acceptance import Judge
from pytest_panic_doctor.examination.baseline import compare, save
from pytest_panic_doctor.examination.examination import Doctor, begin, check_node, join
from pytest_panic_doctor.examination.foreign_code import Misbehaved, calling, shown
from pytest_panic_doctor.examination.lookahead import Lookahead
from pytest_panic_doctor.examination.manifest import item_name
from pytest_panic_doctor.examination.prerequisites import prerequisites
from pytest_panic_doctor.examination.sharding import PAGES
from pytest_panic_doctor.formatting import format_size, plural, printable
from pytest_panic_doctor.report import terminal
from pytest_panic_doctor.report.command_line import called
from pytest_panic_doctor.report.files import ReportFiles, check_outputs
from pytest_panic_doctor.report.junit import path_of
from pytest_panic_doctor.report.progress_display import progress
from pytest_panic_doctor.report.results import Results
from pytest_panic_doctor.session import options
from pytest_panic_doctor.session.commands import DISTRIBUTION, build_demo, own_rules
from pytest_panic_doctor.session.items import DOCTOR, EXAMINER, JUDGE, DoctorFile, DoctorItem
from pytest_panic_doctor.session.outcome_hooks import ReportHooks
from pytest_panic_doctor.session.selection import chosen_with, kept, nothing_chosen
from pytest_panic_doctor.session.signals import Ending
from pytest_panic_doctor.topology.engines import instead, located, would_compute

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pytest_panic_doctor.examination.result import Result
    from pytest_panic_doctor.repair.cluster.controller import Remote
    from pytest_panic_doctor.repair.controller import Treatment
    from pytest_panic_doctor.repair.journal.size import Tally
    from pytest_panic_doctor.repair.repairer import OperatingSurgeon
    from pytest_panic_doctor.rules.base import Rule

PLACE = re.compile(r"\w[\w-]*|\w+(\.\w+)*:\w+")
"""An engine's name, or where one is: `module:attribute`."""

TAKES_LONG = 1e9
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
        self.cap: str | None = None
        self.notes: list[str] = []
        self.replaced: list[str] = []
        self.treatment: Treatment | None = None
        self.remote: Remote | None = None
        self.surgeon: OperatingSurgeon | None = None
        self.ahead: ReadAhead | None = None
        self.tally: Tally | None = None
        self.scratch: TemporaryDirectory[str] | None = None
        self.ending = Ending()
        if config.getoption("setuponly", False):
            raise BadOption("--setup-only and --setup-plan examine nothing: leave them out, or give --collect-only")
        rules = own_rules(config)
        try:
            if self.input is None:
                self.ending.listen()
            self.doctor = join(self.input, rules, written) if self.input else self._begin(rules)
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
        self.doctor.embeds = bool(config.hook.pytest_doctor_embed.get_hookimpls())
        settings = self.doctor.settings
        if settings.plan or settings.fix:
            self.doctor.engine = would_compute(self._engine(settings.engine), settings.max_dim)
        examiner = self.doctor.examiner()
        examiner.embedder = self._embed if self.doctor.embeds else None
        if settings.plan:
            from pytest_panic_doctor.repair.journal.size import Tally
            from pytest_panic_doctor.repair.preview import Planner

            self.tally = Tally(Path(self.doctor.scratch, "tally.sqlite"))
            examiner.planner = Planner(
                self.doctor.database,
                settings.kinds,
                self.tally,
                embeds=self.doctor.embeds,
                most=settings.max_quarantine,
                engine=self.doctor.engine,
            )
        config.stash[EXAMINER] = examiner
        config.stash[JUDGE] = Judge(self.doctor.settings)
        self._choose_what_is_collected()
        hooks = ReportHooks(config, self.doctor, self.results, None if self.input else self._ended)
        config.pluginmanager.register(hooks, "panic-doctor-reports")
        if self.input is None:
            self._begin_reports()

    def _ended(self, result: Result) -> None:
        if self.files:
            self.files.add(result)

    def pytest_sessionstart(self) -> None:
        """Where items are to be repaired and run in this process, a surgeon."""
        if self.doctor.ward and (self.input is not None or not self._distributes()):
            from pytest_panic_doctor.repair.controller import Ward, surgeon

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
                if session.items:
                    self.remote.collected()
            status = self.remote.status if self.remote else tuple
            stack.enter_context(progress(self.config, self.doctor, self.treatment.ward, status))
            return (yield)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """The rules of these items, and no others, are repaired: also by an item that needs them first."""
        items = [item for item in session.items if isinstance(item, DoctorItem)]
        self.doctor.collect(item.name for item in items)
        examiner = self.config.stash[EXAMINER]
        examiner.chosen = self.doctor.chosen_rules()
        ends_early = any(self.config.getoption(name, 0) for name in ("maxfail", "stepwise"))
        if self.surgeon and not ends_early:
            # Where any item may be the last, nothing is repaired ahead of its own.
            examiner.later = Lookahead(examiner, (item.entry for item in items), self.doctor.in_time)

    def workers_collected(self, nodeids: Iterable[str]) -> None:
        """The same in a controller that lets its workers collect; where a cluster computes, it may begin."""
        self.doctor.collect(map(item_name, nodeids))
        if self.remote:
            self.remote.collected()

    def pytest_keyboard_interrupt(self) -> None:
        """Tell the workers, before xdist waits for them."""
        if self.treatment:
            self.treatment.ward.stop_file.touch()

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

    def _begin(self, rules: list[Rule]) -> Doctor:
        from pytest_panic_doctor.session.options import ini_folder

        settings = options.settings(self.config, self.config.invocation_params.dir, ini_folder(self.config))
        if not self.config.getoption("collectonly"):
            check_outputs(settings, self._junit())
        if settings.fix or settings.engine != "auto":
            located(self._engine(settings.engine), settings.max_dim)
        if settings.demo:
            self.replaced = build_demo(settings.database)
        if settings.fix and not self.config.getoption("collectonly"):
            from pytest_panic_doctor.repair.controller import Treatment

            self._read_ahead(settings.database)
            self._tell_of_check(settings.database)
            self.treatment = Treatment(settings)
        workers = len(self.config.getoption("tx", None) or ())
        doctor = begin(settings, rules, workers)
        doctor.written = written
        doctor.chosen_with = chosen_with(self.config, settings.database)
        program = (called(), *kept(self.config.invocation_params.args))
        doctor.program, doctor.distributes = " ".join(program), self.config.pluginmanager.hasplugin("xdist")
        if self.treatment:
            doctor.scratch = str(self.treatment.ward.scratch)
            doctor.ward = self.treatment.ward.as_plain()
            doctor.largest_first(workers or 1)
            self.treatment.check_room(doctor)
            if settings.ray:
                from pytest_panic_doctor.repair.cluster.controller import Remote

                self.remote = Remote(doctor, self.treatment.ward, self._engine)
        else:
            self.scratch = TemporaryDirectory(prefix="panic-doctor-")
            doctor.scratch = self.scratch.name
        return doctor

    def _begin_reports(self) -> None:
        if self.config.pluginmanager.hasplugin("xdist"):
            from pytest_panic_doctor.session.xdist import XdistHooks, said_of_workers

            hooks = XdistHooks(self.doctor.rules, self.workers_collected)
            self.config.pluginmanager.register(hooks, "panic-doctor-xdist")
            self.cap = said_of_workers(self.config, self.doctor.settings)
        if not self.config.getoption("collectonly"):
            family = self.config.getini("junit_family")
            self.files = ReportFiles(self.doctor, version(DISTRIBUTION), self._junit(), family)
            if any(rule.expensive or rule.id in PAGES for rule in self.doctor.selected):
                self._read_ahead(self.doctor.settings.database)

    def _read_ahead(self, database: Path) -> None:
        self.ahead = self.ahead or ReadAhead(database, available())
        self.ahead.start()

    def _tell_of_check(self, database: Path) -> None:
        """Before the first write every page is looked at, which takes minutes where there are many."""
        size = database.stat().st_size if database.is_file() else 0
        if size >= TAKES_LONG and self.config.get_verbosity() >= 0:
            said = f"doctor: every page of {format_size(size)} is checked before the first write …"
            print(said, file=sys.stderr, flush=True)

    def _choose_what_is_collected(self) -> None:
        """A database alone means: examine it and nothing else; with paths beside it, both."""
        config, database = self.config, self.doctor.settings.database
        if "[" in str(database) or "::" in str(database):
            raise BadOption(f"--doctor-db {database} has [ or :: in it, which pytest takes for an item: link to it")
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
        lines = [*(f"doctor: {printable(each)}" for each in self.replaced), *terminal.header(self.doctor, self.cap)]
        if self.treatment:
            lines += [f"doctor: warning: {printable(warning)}" for warning in self.treatment.warnings]
            settings = self.doctor.settings
            if not settings.ray and (said := instead(self._engine(settings.engine), settings.max_dim)):
                lines.append(f"doctor: {said}")
            if settled := self.treatment.settled:
                lines.append(f"doctor: completed {plural(len(settled), 'repair')} that an earlier run left unfinished")
        return lines

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> DoctorFile | None:
        """The database is a file of tests."""
        if options.absolute(file_path) == self.doctor.settings.database:
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
        self.results.itemless = self.doctor.itemless
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.doctor.all_elsewhere:
            # More shards than there is to split: this one has nothing to do, and has done it.
            session.exitstatus = pytest.ExitCode.OK
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            self.notes += nothing_chosen(self.config, self.doctor.rules)
        if self.input is None and self.config.getoption("collectonly"):
            self.results.doubts += [self.doctor.doubt] if self.doctor.doubt else []
        elif self.input is None:
            ended = {item_name(item.nodeid) for item in self.results.items}
            self.results.unreached = self.doctor.to_run(distributed=self._distributes()) - ended
            self._find_doubts()
        self._agree(session)
        ended_well = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        self._compare(complete=ended_well and not self.results.unreached)
        if self.treatment:
            self.results.repairs = self.treatment.repairs()
            self.notes += self.treatment.finish()
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
        doubts = [self.doctor.doubt] if self.doctor.doubt else []
        if self.results.items:
            doubts += prerequisites(self.doctor, self.config.stash[JUDGE])
        if self.results.unreached and not self.results.totals()["failed"]:
            doubts.append(f"{plural(len(self.results.unreached), 'item')} did not end, so nothing is known about them")
        self.results.doubts += doubts

    def _agree(self, session: pytest.Session) -> None:
        """A session ends well only where no item failed and nothing is in doubt, whoever else set its status."""
        if self.input is None and (self.results.doubts or self.results.totals()["failed"] or self.results.unreached):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _compare(self, *, complete: bool) -> None:
        """Compare with the baseline, and write it where that was asked for and the session came to its end."""
        settings = self.doctor.settings
        if settings.baseline is None or self.files is None:
            return
        known = self.config.stash[JUDGE].known
        self.results.compared = compare(known, self.results.items, self.doctor.all_names())
        if settings.baseline_write and complete:
            with self.files.trying(settings.baseline):
                save(settings.baseline, self.results.compared.accepted, settings.database)
                self.results.compared.written = True
        elif settings.baseline_write:
            self.notes.append("the baseline was not written: the examination did not finish")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The rules, worst first, and what to type next."""
        if self.tally:
            self.results.planned, self.results.planned_in_all = self.tally.by_rule(), self.tally.total()
        terminal.summary(terminalreporter, self.doctor, self.results)
        unsaid = self.replaced if terminalreporter.verbosity < 0 else []
        for note in (*unsaid, *self.results.notes, *self.notes):
            terminalreporter.write_line(f"doctor: {printable(note)}", yellow=True)

    def close(self) -> None:
        """Let go of the database, of the child, and of the lock."""
        if self.ahead:
            self.ahead.stop()
        if doctor := getattr(self, "doctor", None):
            doctor.database.close()
        if self.surgeon:
            self.surgeon.close()
        if self.remote:
            self.remote.close()
        if self.treatment:
            self.treatment.close()
        if self.scratch:
            self.scratch.cleanup()
        self.ending.stop()
