"""Embedding hooks for tests: the one that the databases of `databases.py` were embedded with, and wrong ones."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
from databases import LENGTH, PROMPTS, WIDTH, vectors
from numpy.typing import NDArray


def vector_of(text: str) -> NDArray[np.float32]:
    """The vector of a caption `text 3 of an apple`; those of other captions are far from it."""
    words = text.removeprefix("text ").split(" of ")
    if len(words) == 2 and words[0].isdigit() and words[1] in PROMPTS:
        return np.asarray(vectors(PROMPTS.index(words[1]), image=False)[int(words[0]) // 2], np.float32)
    return np.random.default_rng(list(text.encode())).normal(size=WIDTH).astype("<f4")


def embed(model: str, outputs: Sequence[str | bytes]) -> NDArray[np.float32] | None:
    """A hook that knows one model."""
    return np.stack([vector_of(str(text)) for text in outputs]) if model == "Nomic" else None


HOOK = f"""
from __future__ import annotations
import numpy as np
LENGTH, PROMPTS, WIDTH = {LENGTH}, {PROMPTS}, {WIDTH}
{inspect.getsource(vectors)}
{inspect.getsource(vector_of)}
{inspect.getsource(embed)}
def pytest_doctor_embed(embedding_model, outputs):
    return embed(embedding_model, outputs)
"""
"""The same as a `conftest.py`."""
