"""Calls of the hooks that other people implement: stores of trajectories, an embedder and the place of an engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from pytest_panic_doctor.database import generations as known
from pytest_panic_doctor.database.generation import Generation
from pytest_panic_doctor.errors import DoctorError
from pytest_panic_doctor.examination.foreign_code import Misbehaved, calling, repr_foreign

if TYPE_CHECKING:
    import numpy as np
    import pytest
    from numpy.typing import NDArray

    from pytest_panic_doctor.rules.embedder import Embedder

ENGINE_NAME = re.compile(r"\w[\w-]*|\w+(\.\w+)*:\w+")
"""The name of an engine, or the place of one: `module:attribute`."""


def add_generations(config: pytest.Config) -> None:
    """Let this process know the stores of the hook `pytest_doctor_generations`, in place of those of an earlier call.

    Args:
        config: The session's config.

    Raises:
        Misbehaved: The hook raised an exception, or returned something that is not a list of generations, each with a
            key and a name of its own.
    """
    known.ADDED.clear()
    with calling("pytest_doctor_generations", DoctorError):
        given: list[object] = [each for found in config.hook.pytest_doctor_generations() for each in (found or ())]
    for each in given:
        if not isinstance(each, Generation):
            raise Misbehaved(
                f"pytest_doctor_generations returned {repr_foreign(each)}, which is not a generation: make it with "
                "describe_store"
            )
        if any(each.key == other.key or each.name == other.name for other in known.generations()):
            raise Misbehaved(
                f"pytest_doctor_generations returned two generations called {each.key} or {each.name}: rename one"
            )
        known.ADDED.append(each)


def call_embed_hook(config: pytest.Config, model: str, outputs: Sequence[str | bytes]) -> NDArray[np.float32] | None:
    """Embed outputs with the hook `pytest_doctor_embed`.

    Args:
        config: The session's config.
        model: The name of the embedding model.
        outputs: Texts for a text model, the bytes of WEBP images for an image model.

    Returns:
        What the hook returned, not checked; None if no plugin knows the model.

    Raises:
        Misbehaved: The hook raised an exception.
    """
    with calling("pytest_doctor_embed"):
        vectors: NDArray[np.float32] | None = config.hook.pytest_doctor_embed(embedding_model=model, outputs=outputs)
    return vectors


def embedder_of(config: pytest.Config) -> Embedder | None:
    """Return the embedding hooks as one function; None if no plugin has any."""
    return partial(call_embed_hook, config) if config.hook.pytest_doctor_embed.get_hookimpls() else None


def locate_engine(config: pytest.Config, name: str) -> str:
    """Ask the hook `pytest_doctor_engine` for the place of an engine.

    Args:
        config: The session's config.
        name: The name of the engine as the user gave it.

    Returns:
        `module:attribute`, or `name` itself if no plugin knows it.

    Raises:
        Misbehaved: The hook raised an exception, or returned neither a place nor None.
    """
    with calling("pytest_doctor_engine"):
        found: object = config.hook.pytest_doctor_engine(name=name)
    if found is not None and not (isinstance(found, str) and ENGINE_NAME.fullmatch(found)):
        raise Misbehaved(f"pytest_doctor_engine returned {repr_foreign(found)}: return 'module:attribute', or None")
    return found or name
