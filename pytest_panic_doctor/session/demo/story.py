"""The outputs of the demo's models: captions that drift and then loop, images of them, and vectors of both."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DEMO_WIDTH = 768
"""The number of components of a vector in the Python generation."""

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


def captions(
    prompt: str, network: Sequence[str], run_seed: int, steps: int, seed: int = 0, number: str = ""
) -> list[str]:
    """Make the captions of one run: they begin at the prompt, drift without a repeat, and then loop.

    A run whose seed is not -1 would end with its first repeat, so its captions drift to the end.

    Args:
        prompt: The first caption contains it.
        network: The models of the run.
        run_seed: The seed of the run.
        steps: The number of captions.
        seed: The seed of the demo.
        number: Tells runs of one network and prompt apart; empty if their seeds do.
    """
    words = [prompt, *network, *([number] if number else [])]
    random = np.random.default_rng([seed, run_seed + 1, *" ".join(words).encode()])
    period = int(random.integers(3, 7))
    drift = int(random.integers(steps // 2 - 1, 2 * steps // 3)) if run_seed == -1 else steps
    found: list[str] = []
    parts = [SCENES[0], prompt, PLACES[int(random.integers(len(PLACES)))]]
    while len(found) < drift:
        if (caption := " ".join(parts)) not in found:
            found.append(caption)
        place = int(random.integers(3))
        parts[place] = str(random.choice((SCENES, (prompt, *THINGS), PLACES)[place]))
    while len(found) < steps:
        found.append(found[-period])
    return found


def feature(word: str, model: str, width: int) -> NDArray[np.float64]:
    """Return the direction of a word in the space of one embedding model: float64, shape (width,)."""
    digest = hashlib.sha256(f"{model} {word}".encode()).digest()
    return np.random.default_rng(struct.unpack("<4Q", digest)).standard_normal(width)


def vector(caption: str, model: str, batch: int, width: int) -> NDArray[np.float32]:
    """Return a unit vector of a caption: float32, shape (width,). Captions with common words are near each other.

    The same caption in another batch differs in the last bits, as it does on a GPU.
    """
    words = caption.split()
    total = np.sum([feature(word, model, width) / (1 + 0.1 * place) for place, word in enumerate(words)], axis=0)
    unit: NDArray[np.float32] = (total / np.linalg.norm(total)).astype("<f4")
    if batch % 2:
        unit[::7] = np.nextafter(unit[::7], np.float32(2))
    return unit


def cloud(texts: Sequence[str], model: str, width: int = DEMO_WIDTH) -> NDArray[np.float32]:
    """Return the point cloud of captions, or of the images that they describe: float32, one row for each.

    Args:
        texts: The captions.
        model: The embedding model.
        width: The number of components of a vector.
    """
    return np.stack([vector(caption, model, place // 8, width) for place, caption in enumerate(texts)])


def image(caption: str, step: int) -> bytes:
    """Return bytes in the format of a WEBP file; no rule reads the content of an image."""
    body = hashlib.sha512(caption.encode()).digest() + bytes([step % 256])
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + b"\x00" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def avif(caption: str, step: int) -> bytes:
    """Return bytes in the boxes of an AVIF file; no rule reads the content of an image."""
    body = hashlib.sha512(caption.encode()).digest() + bytes([step % 256])
    boxes = ((b"ftyp", b"avif" + bytes(4) + b"avifmif1miaf"), (b"meta", bytes(4)), (b"mdat", body))
    return b"".join(struct.pack(">I", 8 + len(content)) + name + content for name, content in boxes)
