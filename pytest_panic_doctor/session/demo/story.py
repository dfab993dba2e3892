"""What the demo's models put out: captions that wander, then loop; images of them; and vectors of both."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WIDTH = 768

SCENES = ("a photograph of", "a painting of", "a close-up of", "an old postcard of", "a drawing of", "a blurry view of")
THINGS = (
    "a penguin",
    "a stone bridge",
    "a wooden table",
    "a small boat",
    "a street lamp",
    "a white horse",
    "an empty chair",
)
PLACES = (
    "in the rain",
    "by a campfire",
    "on a beach at night",
    "in a crowded market",
    "under a cloudy sky",
    "in a garden",
)


def captions(prompt: str, network: Sequence[str], run_seed: int, steps: int, seed: int = 0) -> list[str]:
    """The captions of one run: they begin at the prompt, drift without a repeat, and then loop.

    A run whose seed is not -1 would end with its first repeat, so it drifts to its end.
    """
    random = np.random.default_rng([seed, run_seed + 1, *" ".join([prompt, *network]).encode()])
    period = int(random.integers(3, 7))
    drift = int(random.integers(steps // 2 - 1, 2 * steps // 3)) if run_seed == -1 else steps
    said: list[str] = []
    parts = [SCENES[0], prompt, PLACES[int(random.integers(len(PLACES)))]]
    while len(said) < drift:
        if (caption := " ".join(parts)) not in said:
            said.append(caption)
        place = int(random.integers(3))
        parts[place] = str(random.choice((SCENES, (prompt, *THINGS), PLACES)[place]))
    while len(said) < steps:
        said.append(said[-period])
    return said


def feature(word: str, model: str) -> NDArray[np.float64]:
    """The direction of a word, for one embedding model: float64, shape (768,)."""
    digest = hashlib.sha256(f"{model} {word}".encode()).digest()
    return np.random.default_rng(struct.unpack("<4Q", digest)).standard_normal(WIDTH)


def vector(caption: str, model: str, batch: int) -> NDArray[np.float32]:
    """A unit vector, float32 of shape (768,); captions with common words lie near each other.

    The same caption in another batch differs in the last bits, as it does on a GPU.
    """
    words = caption.split()
    total = np.sum([feature(word, model) / (1 + 0.1 * place) for place, word in enumerate(words)], axis=0)
    unit: NDArray[np.float32] = (total / np.linalg.norm(total)).astype("<f4")
    if batch % 2:
        unit[::7] = np.nextafter(unit[::7], np.float32(2))
    return unit


def cloud(said: Sequence[str], model: str) -> NDArray[np.float32]:
    """The point cloud of a run's captions, or of the images that they describe: float32, shape (len(said), 768)."""
    return np.stack([vector(caption, model, batch=place // 8) for place, caption in enumerate(said)])


def image(caption: str, step: int) -> bytes:
    """Bytes in the frame of a WEBP file: what an image is stands elsewhere, and no rule reads it."""
    body = hashlib.sha512(caption.encode()).digest() + bytes([step % 256])
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + b"\x00" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
