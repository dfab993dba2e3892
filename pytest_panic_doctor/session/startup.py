"""The start of a session: reads the options, examines what is asked, and registers the plugin objects of its role."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from pytest_panic_doctor.compute.memory import available_memory
from pytest_panic_doctor.database.progress import progress_to
from pytest_panic_doctor.database.readahead import ReadAhead
from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.examination import Examination, check_node
from pytest_panic_doctor.examination.opening import from_database
from pytest_panic_doctor.examination.parsing import absolute
from pytest_panic_doctor.examination.sharding import PAGES
from pytest_panic_doctor.examination.worker_input import from_worker_input
from pytest_panic_doctor.formatting import format_size
from pytest_panic_doctor.report.activity import Activity
from pytest_panic_doctor.report.command_line import invoked_command
from pytest_panic_doctor.report.files import ReportFiles, check_outputs
from pytest_panic_doctor.report.junit import path_of
from pytest_panic_doctor.session.activity_plugin import ActivityPlugin, reading
from pytest_panic_doctor.session.chosen_options import chosen, on_command_line
from pytest_panic_doctor.session.commands import build_demo, own_rules
from pytest_panic_doctor.session.controller_plugin import ControllerPlugin
from pytest_panic_doctor.session.failures import FailuresSection
from pytest_panic_doctor.session.foreign_hooks import add_generations, call_embed_hook, embedder_of, locate_engine
from pytest_panic_doctor.session.items import EXAMINATION, EXAMINER, ExaminationPlugin
from pytest_panic_doctor.session.repair_plugin import RepairPlugin
from pytest_panic_doctor.session.report_memory import ReportMemory
from pytest_panic_doctor.session.selection import pytest_options, selection_arguments
from pytest_panic_doctor.session.signals import TerminationSignals
from pytest_panic_doctor.session.xdist import XdistHooks, describe_workers, worker_count
from pytest_panic_doctor.topology.engines import resolve_engine, would_compute

if TYPE_CHECKING:
    from pytest_panic_doctor.examination.examiner import Repairer
    from pytest_panic_doctor.examination.settings import Settings
    from pytest_panic_doctor.repair.cluster.controller import ClusterRepair
    from pytest_panic_doctor.repair.controller import RepairController
    from pytest_panic_doctor.repair.journal.size import SessionTotals
    from pytest_panic_doctor.repair.preview import DatabasePlanner
    from pytest_panic_doctor.rules.base import Rule

SLOW_CHECK_BYTES = 1e9
"""Size in bytes of a database whose check before the first write takes long enough to be announced."""


def start(config: pytest.Config) -> ExitStack:
    """Start a session, in the controller or in an xdist worker, and register its plugin objects.

    Returns:
        What the session holds open; `close` releases it.

    Raises:
        DoctorError: The options or the database do not allow this session; nothing is held then.
    """
    if config.getoption("setuponly", False):
        raise BadOption("--setup-only and --setup-plan examine nothing: leave them out, or give --collect-only")
    add_generations(config)
    rules = own_rules(config)
    worker_input: dict[str, object] | None = getattr(config, "workerinput", {}).get("doctor")
    with ExitStack() as resources:
        if worker_input is None:
            start_controller(config, rules, resources)
        else:
            start_worker(config, with_hooks(config, from_worker_input(worker_input, rules)), resources)
        return resources.pop_all()


def written_by_plugin(database: Path, table: str, row: int) -> bool:
    """Return whether the plugin itself wrote a row, according to the journal beside the database."""
    # Only a session that asks this imports the journal.
    from pytest_panic_doctor.repair.journal.reading import written

    return written(database, table, row)


def start_worker(config: pytest.Config, examination: Examination, resources: ExitStack) -> None:
    """Register the plugin objects of an xdist worker, for the examination that the controller sent."""
    resources.callback(examination.database.close)
    prepare(config, examination, own_repairer(config, examination, resources))
    if examination.repair_run:
        config.pluginmanager.register(RepairPlugin(config, examination), "panic-doctor-repair")
    config.pluginmanager.register(ActivityPlugin(config, examination), "panic-doctor-activity")
    config.pluginmanager.register(ReportMemory(config), "panic-doctor-report-memory")


def start_controller(config: pytest.Config, rules: list[Rule], resources: ExitStack) -> None:
    """Examine the options and the database, and register the plugin objects of the controller."""
    # First, so that a signal during the examination releases what is held, too.
    signals = TerminationSignals()
    resources.callback(signals.stop)
    signals.listen()
    settings = chosen(config).settings
    collect_only = bool(config.getoption("collectonly"))
    if not collect_only:
        check_outputs(settings, path_of(config.getoption("xmlpath", None)))
    if settings.fix or settings.engine != "auto":
        # An engine that is missing is an error of the options, before anything is examined.
        resolve_engine(locate_engine(config, settings.engine), settings.max_dim)
    demo_notes = build_demo(settings.database, settings.demo) if settings.demo else []
    read_ahead = ReadAhead(settings.database, available_memory())
    resources.callback(read_ahead.stop)
    repair = open_repair(config, settings, read_ahead, resources) if settings.fix and not collect_only else None
    examination = examine(config, settings, rules, resources, repair)
    resources.callback(examination.database.close)
    cluster = plan_repair(config, examination, repair, resources) if repair else None
    # With workers, the controller itself runs no item.
    runs_items = config.getoption("dist", "no") == "no"
    totals = prepare(config, examination, own_repairer(config, examination, resources) if runs_items else None)
    worker_note = register_xdist(config, examination, cluster)
    files = None
    if not collect_only:
        junit = path_of(config.getoption("xmlpath", None))
        files = ReportFiles(examination, junit, config.getini("junit_family"))
        if any(rule.expensive or rule.id in PAGES for rule in examination.selected):
            read_ahead.start()
    plugin = ControllerPlugin(
        config, examination, files=files, repair=repair, totals=totals, demo_notes=demo_notes, worker_note=worker_note
    )
    config.pluginmanager.register(plugin, "panic-doctor-controller")
    config.pluginmanager.register(ReportMemory(config), "panic-doctor-report-memory")
    status = cluster.status if cluster else tuple if repair else partial(reading, read_ahead)
    activity = ActivityPlugin(config, examination, status, repair.run if repair else None)
    config.pluginmanager.register(activity, "panic-doctor-activity")
    section = FailuresSection(config, examination, plugin.results)
    config.pluginmanager.register(section, "panic-doctor-failures")
    if repair:
        config.pluginmanager.register(RepairPlugin(config, examination, repair, cluster), "panic-doctor-repair")


def open_repair(
    config: pytest.Config, settings: Settings, read_ahead: ReadAhead, resources: ExitStack
) -> RepairController:
    """Lock the database for a repair, and recover what an earlier one left; announce the check if it takes long."""
    from pytest_panic_doctor.repair.backup import check_target
    from pytest_panic_doctor.repair.controller import RepairController

    if settings.backup:
        check_target(settings.backup, settings.database)
    read_ahead.start()
    size = settings.database.stat().st_size if settings.database.is_file() else 0
    if size >= SLOW_CHECK_BYTES and config.get_verbosity() >= 0:
        line = f"doctor: every page of {format_size(size)} is checked before the first write …"
        print(line, file=sys.stderr, flush=True)
    with Activity(quiet=config.get_verbosity() < 0) as activity, progress_to(activity):
        repair = RepairController(settings, activity.report)
    resources.callback(repair.close)
    return repair


def with_hooks(config: pytest.Config, examination: Examination) -> Examination:
    """Add to a session what the plugins of this process bring."""
    settings, engine = examination.settings, examination.engine
    if settings.plan or settings.fix:
        engine = would_compute(locate_engine(config, settings.engine), settings.max_dim)
    return replace(examination, engine=engine, embedder=embedder_of(config), written=written_by_plugin)


def examine(
    config: pytest.Config,
    settings: Settings,
    rules: list[Rule],
    resources: ExitStack,
    repair: RepairController | None,
) -> Examination:
    """List the items of the database, largest diagrams first for a repair, and note how pytest was called."""
    found = from_database(settings, rules, worker_count(config))
    run = repair.run if repair else None
    examination = replace(
        with_hooks(config, found),
        chosen_by=selection_arguments(config, settings.database),
        program=" ".join((invoked_command(), *pytest_options(config.invocation_params.args))),
        distributes=config.pluginmanager.hasplugin("xdist"),
        repair_run=run.as_plain() if run else {},
        scratch=str(run.scratch) if run else resources.enter_context(TemporaryDirectory(prefix="panic-doctor-")),
    )
    return examination.scheduled() if run else examination


def plan_repair(
    config: pytest.Config, examination: Examination, repair: RepairController, resources: ExitStack
) -> ClusterRepair | None:
    """Check the room on the disk for the repair, and join the Ray cluster if one was named."""
    with Activity(quiet=config.get_verbosity() < 0) as activity:
        repair.check_room(examination, activity.count)
    if not examination.settings.ray:
        return None
    from pytest_panic_doctor.repair.cluster.controller import ClusterRepair

    cluster = ClusterRepair(examination, repair.run, partial(locate_engine, config))
    resources.callback(cluster.close)
    return cluster


def prepare(config: pytest.Config, examination: Examination, repairer: Repairer | None) -> SessionTotals | None:
    """Prepare a process that may run items: markers, examiner, what is collected, and the plugin of both roles.

    Returns:
        What all planned repairs would take; None without `--doctor-plan`.
    """
    for rule in examination.rules.values():
        for name in dict.fromkeys((rule.id, rule.marker)):
            config.addinivalue_line("markers", f"{name}: {rule.description}")
    config.addinivalue_line("markers", "doctor: every item of pytest-panic-doctor")
    planner = make_planner(examination) if examination.settings.plan else None
    config.stash[EXAMINATION] = examination
    config.stash[EXAMINER] = examination.examiner(repairer=repairer, planner=planner.plan if planner else None)
    choose_what_is_collected(config, examination)
    config.pluginmanager.register(ExaminationPlugin(config, examination), "panic-doctor-examination")
    return planner.totals if planner else None


def make_planner(examination: Examination) -> DatabasePlanner:
    """Make what plans repairs instead of making them, and counts what all of them would take."""
    from pytest_panic_doctor.repair.journal.size import SessionTotals
    from pytest_panic_doctor.repair.preview import DatabasePlanner

    return DatabasePlanner(
        *(examination.database, examination.settings.kinds),
        SessionTotals(Path(examination.scratch, "tally.sqlite")),
        embeds=examination.embeds,
        most=examination.settings.max_quarantine,
        engine=examination.engine,
    )


def choose_what_is_collected(config: pytest.Config, examination: Examination) -> None:
    """Collect the database alone, or with the paths that were given beside it."""
    database = examination.settings.database
    if "[" in str(database) or "::" in str(database):
        raise BadOption(f"--doctor-db {database} has [ or :: in it, which pytest takes for an item: link to it")
    folder = config.invocation_params.dir
    named = [arg for arg in config.args if absolute(folder / arg.split("::")[0]) == database]
    for arg in named:
        if "::" in arg:
            check_node(arg.split("::", 1)[1], examination)
    by_ini_alone = not on_command_line(config)
    paths_given = config.args_source is pytest.Config.ArgsSource.ARGS
    if named or (by_ini_alone and paths_given):
        # The database is named already, or the user asked for other tests and the ini file adds nothing to them.
        return
    if not paths_given and not by_ini_alone:
        # An option alone means: examine the database, and run no tests of the project.
        config.args.clear()
    config.args.append(str(database))


def register_xdist(config: pytest.Config, examination: Examination, cluster: ClusterRepair | None) -> str | None:
    """Register the hooks of pytest-xdist, if it is there.

    Returns:
        How many workers there are, for the header; None if nothing is distributed.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return None
    config.pluginmanager.register(XdistHooks(examination, cluster), "panic-doctor-xdist")
    return describe_workers(config, examination.settings)


def own_repairer(config: pytest.Config, examination: Examination, resources: ExitStack) -> Repairer | None:
    """Make the repairer of a process that runs items; None if nothing is repaired."""
    if not examination.repair_run:
        return None
    from pytest_panic_doctor.repair.controller import RepairRun, make_repairer

    run = RepairRun.from_plain(examination.repair_run)
    repairer = make_repairer(examination, run, partial(call_embed_hook, config), partial(locate_engine, config))
    resources.callback(repairer.close)
    return repairer
