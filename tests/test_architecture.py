"""Imports run one way, and each kind of access has one place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pytest_panic_doctor"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = (
    "errors",
    "formatting",
    "topology",
    "compute",
    "database",
    "rules",
    "examination",
    "repair",
    "report",
    "session",
    "plugin",
)
"""From the ground up; a module imports only from its own layer and from those before it."""


GENERATION = "of each generation of the research tool"
FORM = "of each form of a payload"

HOMONYMS = {
    "T": "a type variable",
    "TIMES": GENERATION,
    "__all__": "of each package",
    "bars_of": FORM,
    "codec": GENERATION,
    "decode": f"{FORM}, and of Erlang terms",
    "encode": f"{FORM}, and of Erlang terms",
    "make_indexable": FORM,
    "new_id": GENERATION,
    "schema_version": GENERATION,
    "stamp": GENERATION,
    "time_of_id": GENERATION,
}
"""Top-level names that stand in two modules, and why."""


def imported(path: Path, *, types: bool = False) -> Iterator[str]:
    """What a module imports when it runs, and with `types` what it imports for the type checker alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if (
            not types
            and isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        ):
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def layer_of(path: Path) -> str:
    """The folder of a module, or its name where it stands at the root."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of_import(name: str) -> str:
    """The layer of `pytest_panic_doctor.LAYER.…`; of the package itself, which only gathers names, the highest."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else LAYERS[-1]


def test_every_module_is_in_a_layer() -> None:
    assert {layer_of(path) for path in MODULES} - {"__init__"} == set(LAYERS)
    at_the_root = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert len(at_the_root) <= 13


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent != PACKAGE or path.stem != "__init__"], ids=name_of
)
def test_a_module_imports_only_its_own_layer_and_those_below(path: Path) -> None:
    """Imports for types alone count too."""
    allowed = set(LAYERS[: LAYERS.index(layer_of(path)) + 1])
    inner = {name for name in imported(path, types=True) if name.split(".")[0] == PACKAGE.name}
    assert {layer_of_import(name) for name in inner} <= allowed


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_session_knows_pytest(path: Path) -> None:
    if layer_of(path) not in ("session", "plugin", "report"):
        assert "pytest" not in set(imported(path, types=True))
    assert not any(name.startswith("_pytest") for name in imported(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_topology_imports_an_engine(path: Path) -> None:
    if layer_of(path) != "topology":
        assert not {name.split(".")[0] for name in imported(path)} & {"gph", "gudhi", "ripser"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_maps_objects_to_rows(path: Path) -> None:
    """So no version of SQLModel, which the research tool pins, is in the way, and no model of a project is met."""
    assert not {name.split(".")[0] for name in imported(path, types=True)} & {"sqlmodel", "sqlalchemy", "pydantic"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_driver_imports_ray(path: Path) -> None:
    if name_of(path) != "compute/ray/driver.py":
        assert "ray" not in {name.split(".")[0] for name in imported(path)}
        assert not {name for name in imported(path) if name.endswith("ray.driver")}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_repair_writes_to_the_database(path: Path) -> None:
    if not name_of(path).startswith(("repair/", "session/demo/")):
        writes = r"INSERT (OR \w+ )?INTO|REPLACE INTO|DELETE FROM|BEGIN IMMEDIATE|UPDATE (OR \w+ )?\S+ SET"
        assert not re.search(writes, path.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_two(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_query_numbers_its_parameters(path: Path) -> None:
    """Python 3.12 warns of `?1` with a sequence, and 3.14 refuses it: parameters are `?` or have a name."""
    texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    assert not [text for text in texts if isinstance(text, str) and re.search(r"\?\d", text)]


def module_of(path: Path) -> str:
    """The name by which a module is imported."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def inner_imports(path: Path, modules: set[str]) -> set[str]:
    """The modules of the package that a module imports anywhere, in functions and for types alone too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules else str(node.module) for name in names}
    # A package that imports its own compiled module is in no circle.
    return (found & modules) - {module_of(path)}


def test_no_modules_import_each_other() -> None:
    """Neither directly nor by others: a module that can be reached from itself is in a circle."""
    modules = {module_of(path): path for path in MODULES}
    reached = {name: inner_imports(path, set(modules)) for name, path in modules.items()}
    for middle in modules:
        for name, found in reached.items():
            if middle in found:
                reached[name] = found | reached[middle]
    assert not {name for name, found in reached.items() if name in found}


def defined(path: Path) -> set[str]:
    """The functions, classes and constants of a module."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return found


def test_no_name_stands_in_two_modules() -> None:
    """But for those that mean the same in each of them."""
    modules: dict[str, list[Path]] = {}
    for path in MODULES:
        for name in defined(path):
            modules.setdefault(name, []).append(path)
    assert {name for name, paths in modules.items() if len(paths) > 1} == HOMONYMS.keys()
