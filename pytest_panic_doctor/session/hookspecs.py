"""Hooks for other people's rules, embedders, engines and listeners (pluggy: https://pluggy.readthedocs.io)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_panic_doctor.rules.base import Rule


@pytest.hookspec
def pytest_doctor_rules() -> Iterable[Rule]:  # type: ignore[empty-body]
    """Rules of your own; they are collected, selected, reported and repaired as the built-in ones are."""


@pytest.hookspec(firstresult=True)
def pytest_doctor_embed(embedding_model: str, outputs: Sequence[str | bytes]) -> NDArray[np.float32] | None:
    """Embed outputs again: float32, shape (len(outputs), width), in the order given; the first result wins.

    `outputs` are texts for a text model, and the bytes of WEBP images for an image model. None: not this model. It is
    asked for vectors that are stored, too, and believed only where it agrees with them.
    """


@pytest.hookspec
def pytest_doctor_outcome(item: Mapping[str, object]) -> None:
    """Hear of each item as it ends, in the controlling process: `item` is as the JSON report prints it.

    `nodeid`, `rule`, `outcome` (passed, failed, skipped or fixed), `duration` in seconds, `findings`, and where there
    are any `note`, `warnings`, `measures` and `accepted`.
    """


@pytest.hookspec(firstresult=True)
def pytest_doctor_engine(name: str) -> str | None:
    """Where the engine called `name` is: `module:attribute` of an object that follows `topology.engines.Engine`."""
