"""Imports flow one way: three things that the design does not give up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pytest_panic_doctor"
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """What a module imports when it runs; imports for the type checker alone do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_outer_layer_imports_pytest(path: Path) -> None:
    outer = {"plugin.py", "session.py", "items.py", "parallel.py", "surviving.py", "hookspecs.py"}
    if name_of(path) not in outer and not name_of(path).startswith("report/"):
        assert "pytest" not in set(imported(path))
    assert not any(name.startswith("_pytest") for name in imported(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_topology_imports_an_engine(path: Path) -> None:
    if not name_of(path).startswith("topology/"):
        assert not {name.split(".")[0] for name in imported(path)} & {"gph", "gudhi", "ripser"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_driver_imports_ray(path: Path) -> None:
    if name_of(path) != "topology/cluster/driver.py":
        assert "ray" not in {name.split(".")[0] for name in imported(path)}
        assert not {name for name in imported(path) if name.endswith("cluster.driver")}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_repair_writes_to_the_database(path: Path) -> None:
    if not name_of(path).startswith(("repair/", "demo/")):
        writes = r"INSERT (OR \w+ )?INTO|REPLACE INTO|DELETE FROM|BEGIN IMMEDIATE|UPDATE (OR \w+ )?\S+ SET"
        assert not re.search(writes, path.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_layers_import_only_what_lies_below(path: Path) -> None:
    layers = ("errors", "store", "topology", "rules", "repair")
    # `database` is where `store` and the clouds of `topology` will be: above the mathematics, and below all others.
    below = {"database": {"errors", "database", "store", "topology"}}
    below |= {layer: {"errors", "database", *layers[: layers.index(layer) + 1]} for layer in layers[1:]}
    below["topology"] -= {"database"}
    below["repair"] -= {"rules"}
    if (layer := name_of(path).split("/")[0]) in below:
        inner = [name.split(".")[1] for name in imported(path) if name.startswith("pytest_panic_doctor.")]
        assert set(inner) <= below[layer]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_two(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_query_numbers_its_parameters(path: Path) -> None:
    """Python 3.12 warns of `?1` with a sequence, and 3.14 refuses it: parameters are `?` or have a name."""
    texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    assert not [text for text in texts if isinstance(text, str) and re.search(r"\?\d", text)]
