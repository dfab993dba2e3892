"""Hooks that other people implement: rules, stores, embedders, engines and listeners (https://pluggy.readthedocs.io)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_panic_doctor.database.generation import Generation
    from pytest_panic_doctor.rules.base import Rule


@pytest.hookspec
def pytest_doctor_rules() -> Iterable[Rule]:  # type: ignore[empty-body]
    """Return rules of your own; they are collected, selected, reported and repaired like the built-in ones."""


@pytest.hookspec
def pytest_doctor_generations() -> Iterable[Generation]:  # type: ignore[empty-body]
    """Return stores of trajectories of your own, so that the rules examine their files."""


@pytest.hookspec(firstresult=True)
def pytest_doctor_embed(embedding_model: str, outputs: Sequence[str | bytes]) -> NDArray[np.float32] | None:
    """Embed outputs again; the first result that is not None is used.

    Vectors that are stored are asked for too: the hook is trusted only if it agrees with them.

    Args:
        embedding_model: The name of the model.
        outputs: Texts for a text model, the bytes of images as stored for an image model: WEBP, or AVIF.

    Returns:
        float32 vectors of shape (len(outputs), width), in the order of `outputs`; None for an unknown model.
    """


@pytest.hookspec
def pytest_doctor_outcome(item: Mapping[str, object]) -> None:
    """Receive the result of each item as it ends, in the controller.

    Args:
        item: The item as the JSON report prints it: `nodeid`, `rule`, `outcome` (passed, failed, skipped or fixed),
            `duration` in seconds, `findings`, and if there are any `note`, `warnings`, `measures` and `accepted`.
    """


@pytest.hookspec(firstresult=True)
def pytest_doctor_engine(name: str) -> str | None:
    """Return the place of an engine.

    Args:
        name: The name of the engine as the user gave it.

    Returns:
        `module:attribute` of an object that implements `topology.engines.Engine`; None for an unknown name.
    """
