"""A repair session in this process: every item examined and repaired, without pytest."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock

from pytest_panic_doctor.compute.runner import DiagramRunner
from pytest_panic_doctor.compute.small_clouds import SmallFirst
from pytest_panic_doctor.database.connection import Database
from pytest_panic_doctor.database.generations import generation_of
from pytest_panic_doctor.database.python_generation import PYTHON
from pytest_panic_doctor.database.shared_folder import SharedFolder
from pytest_panic_doctor.examination import manifest as manifests
from pytest_panic_doctor.examination.check import CheckOptions
from pytest_panic_doctor.examination.examiner import Examiner, Lookahead
from pytest_panic_doctor.examination.outcome import Outcome
from pytest_panic_doctor.examination.parsing import model_types
from pytest_panic_doctor.examination.running_experiments import Running
from pytest_panic_doctor.repair.journal.writer import Writer
from pytest_panic_doctor.repair.recompute import RepairContext
from pytest_panic_doctor.repair.repairer import DatabaseRepairer
from pytest_panic_doctor.repair.result_store import ResultStore
from pytest_panic_doctor.rules import registry
from pytest_panic_doctor.rules.embedder import Embedder

RULES = registry()


def no_hook(model: str, outputs: Sequence[str | bytes]) -> None:
    """What pytest calls where nobody has brought an embedding hook."""
    del model, outputs


def fix_file(
    path: Path,
    runner: DiagramRunner,
    order: int = 1,
    text_models: Sequence[str] = (),
    most: str | None = None,
    hook: Embedder = no_hook,
    deep: Sequence[str] = (),
    taken: Collection[str] = (),
    running: Running | None = None,
) -> dict[str, list[Outcome]]:
    """The outcomes of all items, by rule, repaired in the manifest's order or against it.

    The file may be of any generation. `most` is what `--doctor-max-quarantine` says; `deep` names the deep rules that
    are asked too. `taken` are names that another worker holds, which lets go of them where it is waited for. With a
    computer of small clouds, the next items are looked at too.
    """
    known = model_types(text_models, [])

    def claim(name: str, *, wait: bool = True) -> AbstractContextManager[object]:
        if not wait and name in taken:
            raise TimeoutError
        return FileLock(path.with_name(f"{name}.lock"))

    database = Database(path, shared=True)
    writer = Writer(path, "session", lambda: True)
    settled = ResultStore(SharedFolder(path.with_suffix(".settled")))
    repairer = DatabaseRepairer(
        RepairContext(database, writer, known, running), lambda: runner, hook, claim, settled, most=most
    )
    examiner = Examiner(database, RULES, known, CheckOptions(deep=bool(deep)), repairer=repairer)
    outcomes: dict[str, list[Outcome]] = {}
    key = (database.read(generation_of) or PYTHON).key
    asked = [rule for rule in RULES.values() if rule.applies_to(key) and (not rule.deep or rule.id in deep)]
    entries = list(database.read(manifests.build_manifest).entries(asked))[::order]
    if isinstance(runner, SmallFirst):
        examiner.state.later = Lookahead(examiner, entries, lambda: True)
    for entry in entries:
        outcomes.setdefault(entry.rule, []).append(examiner.examine(RULES[entry.rule], entry.subject))
    writer.close()
    database.close()
    shutil.rmtree(settled.shared.folder, ignore_errors=True)
    return outcomes
