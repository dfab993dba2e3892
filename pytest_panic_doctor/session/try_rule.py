"""`--doctor-try-rule`: loads one rule from a module or a file, runs it, and prints what it does."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pytest_panic_doctor.errors import BadOption
from pytest_panic_doctor.examination.foreign_code import calling, repr_foreign
from pytest_panic_doctor.examination.opening import from_database
from pytest_panic_doctor.examination.rule_trial import Trial, try_rule
from pytest_panic_doctor.formatting import WIDTH, did_you_mean, format_duration_exact, plural, shorten
from pytest_panic_doctor.report import text
from pytest_panic_doctor.report.activity import Activity
from pytest_panic_doctor.report.findings import row_lines, subject_lines
from pytest_panic_doctor.rules.base import Rule
from pytest_panic_doctor.session.foreign_hooks import embedder_of

if TYPE_CHECKING:
    from types import ModuleType

    import pytest

    from pytest_panic_doctor.examination.examination import Examination
    from pytest_panic_doctor.examination.settings import Settings

FLAG = "--doctor-try-rule"
FINDINGS = 10
"""Maximum number of items whose findings are printed."""

MORE = "docs/how-to/own-rule.md"


def run_trial(config: pytest.Config, settings: Settings, name: str) -> tuple[list[str], int]:
    """Try a rule.

    Returns:
        The lines to print, and the exit status: 0 if nothing is wrong with the rule.

    Raises:
        BadOption: The rule cannot be loaded.
        BadRule: Its id, scope or repair is not valid.
    """
    rule = load_rule(name, config.invocation_params.dir)
    alone = replace(settings, rules=(rule.id,), fix=False, plan=False, deep=settings.deep or rule.deep)
    with TemporaryDirectory(prefix="panic-doctor-") as scratch, Activity() as activity:
        examination = replace(from_database(alone, [rule]), scratch=scratch, embedder=embedder_of(config))
        try:
            trial = try_rule(examination, examination.examiner(), rule, activity.count)
        finally:
            examination.database.close()
    return list(trial_lines(trial, examination, name)), int(any(map(serious, trial.problems)))


def serious(problem: str) -> bool:
    """Return whether a problem keeps a rule from being used."""
    return not problem.endswith("it works without")


def load_rule(name: str, folder: Path) -> Rule:
    """Load a rule by `module:function` or `path/to/file.py:function`.

    Args:
        name: What the user wrote.
        folder: The folder that a path, or a module beside the user, is relative to.

    Raises:
        BadOption: There is no such module or function, or it is not a rule; the message says what to do.
        Misbehaved: The module raises when it is imported.
    """
    where, colon, function = name.rpartition(":")
    if not colon or not where or not function:
        raise BadOption(f"{FLAG} {name} names no function: give module:function or file.py:function")
    module = load_module(where, folder)
    rules = {key: value for key, value in vars(module).items() if isinstance(value, Rule)}
    by_id = {rule.id: rule for rule in rules.values()}
    found = getattr(module, function, by_id.get(function))
    if found is None:
        hint = did_you_mean(function, rules) or (f": it has {', '.join(rules)}" if rules else ": it has no rule")
        raise BadOption(f"{FLAG}: {where} has no {function}{hint}")
    if not isinstance(found, Rule):
        what = "a function without @rule(…) above it" if callable(found) else repr_foreign(found)
        raise BadOption(f"{FLAG} {name} is not a rule, but {what}: see {MORE}")
    check_signature(found, name)
    return found


def check_signature(rule: Rule, name: str) -> None:
    """Raise `BadOption` if a check cannot be called with a context alone."""
    try:
        inspect.signature(rule.check).bind(None)
    except TypeError as error:
        raise BadOption(
            f"{FLAG} {name} has a wrong signature, {rule.check.__name__}{inspect.signature(rule.check)}: a check takes "
            "one argument, the context"
        ) from error


def load_module(where: str, folder: Path) -> ModuleType:
    """Import a module by its name, or a file by its path; the folder of the user is searched first.

    Raises:
        BadOption: There is no such module or file.
        Misbehaved: It raises when it is imported.
    """
    path = folder / where
    if where.endswith(".py"):
        if not path.is_file():
            raise BadOption(f"{FLAG}: there is no file {path}: name one, relative to the current folder")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(path.parent))
        with calling(f"the import of {where}", BadOption):
            spec.loader.exec_module(module)
        return module
    sys.path.insert(0, str(folder))
    with calling(f"the import of {where}", ModuleNotFoundError):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is None or not where.startswith(error.name):
                raise BadOption(
                    f"{FLAG}: the import of {where} needs {error.name}, which is not installed: install it"
                ) from error
            raise BadOption(f"{FLAG}: there is no module {where}: give its name, or the path of its file") from error


def trial_lines(trial: Trial, examination: Examination, name: str) -> Iterator[str]:
    """Yield what a rule does, and what is wrong with it."""
    rule = trial.rule
    yield from folded(f"{rule.id} of {name}, one item for each {rule.scope}: {rule.description}")
    skipped = sum(trial.skipped.values())
    healthy = trial.items - skipped - len(trial.found) - trial.failed
    parts = [f"{len(trial.found):,} with findings", f"{healthy:,} healthy", f"{skipped:,} skipped"]
    parts += [f"{trial.failed:,} not examined to the end"] if trial.failed else []
    yield f"{plural(trial.items, 'item')}: {', '.join(parts)}"
    for reason, count in trial.skipped.items():
        yield from folded(f"skipped: {plural(count, 'item')}, {reason}")
    yield from example_lines(trial, examination)
    yield f"examined: {text.looked_at(trial.rows)}"
    seconds, slowest = trial.slowest
    yield f"time: {format_duration_exact(round(trial.seconds, 3)) or '0 s'}" + (
        f", at most {format_duration_exact(round(seconds, 3)) or '0 s'} for an item ({slowest})"
        if trial.items > 1
        else ""
    )
    for statement in trial.statements:
        yield from folded(f"query: {shorten(statement.sql, 4 * WIDTH)}")
        yield from (f"  {line}" for line in statement.plan)
    yield from problem_lines(trial.problems)
    if not any(map(serious, trial.problems)):
        if name.partition(":")[0].endswith("conftest.py"):
            yield f"next: {text.command(examination.settings, f'-m {rule.id}')}"
            yield "(if pytest_doctor_rules() of this file returns it)"
        else:
            yield from folded(f"next: return it from pytest_doctor_rules() in a conftest.py ({MORE})")


def example_lines(trial: Trial, examination: Examination) -> Iterator[str]:
    """Yield the findings, each with its run or experiment and some of its rows."""
    for _, findings in trial.found[:FINDINGS]:
        for finding in findings:
            yield from folded(finding.sentence)
            yield from subject_lines(finding, examination)
            yield from row_lines(finding, examination)
    if len(trial.found) > FINDINGS:
        yield f"… and {plural(len(trial.found) - FINDINGS, 'more item')} with findings"


def problem_lines(problems: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the rule, one sentence each."""
    for problem in problems:
        yield from folded(f"{'wrong' if serious(problem) else 'hint'}: {problem}")
    if not problems:
        yield "nothing is wrong with the rule"


def folded(line: str) -> list[str]:
    """Fold a line at 80 characters."""
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
