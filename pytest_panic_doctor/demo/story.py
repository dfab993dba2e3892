"""What the demo's models put out: captions that wander, then loop; images of them; and vectors of both."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

WIDTH = 768

SCENES = ("a photograph of", "a painting of", "a close-up of", "an old postcard of", "a drawing of", "a blurry view of")
THINGS = (
    "a red apple",
    "a penguin",
    "a stone bridge",
    "a wooden table",
    "a small boat",
    "a street lamp",
    "a white horse",
)
PLACES = (
    "in the rain",
    "by a campfire",
    "on a beach at night",
    "in a crowded market",
    "under a cloudy sky",
    "in a garden",
)


def captions(prompt: str, seed: int, steps: int) -> Iterator[str]:
    """`steps` captions: they begin near the prompt, drift, and from two fifths on repeat a loop of five."""
    random = np.random.default_rng([seed, *prompt.encode()])
    scene, thing, place = SCENES[0], prompt, PLACES[0]
    said: list[str] = []
    for step in range(steps):
        if step >= max(6, 2 * steps // 5):
            said.append(said[-5])
        else:
            change = random.integers(3)
            scene = str(random.choice(SCENES)) if change == 0 else scene
            thing = str(random.choice(THINGS)) if change == 1 else thing
            place = str(random.choice(PLACES)) if change == 2 else place
            said.append(f"{scene} {thing} {place}")
    yield from said


def feature(word: str, model: str) -> NDArray[np.float64]:
    """The direction of a word, for one embedding model."""
    digest = hashlib.sha256(f"{model} {word}".encode()).digest()
    return np.random.default_rng(struct.unpack("<4Q", digest)).standard_normal(WIDTH)


def vector(caption: str, model: str, batch: int) -> NDArray[np.float32]:
    """A unit vector; captions with common words lie near each other.

    The same caption in another batch differs in the last bits, as it does on a GPU.
    """
    words = caption.split()
    total = np.sum([feature(word, model) / (1 + 0.1 * place) for place, word in enumerate(words)], axis=0)
    unit: NDArray[np.float32] = (total / np.linalg.norm(total)).astype("<f4")
    if batch % 2:
        unit[::7] = np.nextafter(unit[::7], np.float32(2))
    return unit


def image(caption: str, step: int) -> bytes:
    """Bytes in the frame of a WEBP file: what an image is stands elsewhere, and no rule reads it."""
    body = hashlib.sha512(caption.encode()).digest() + bytes([step % 256])
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + b"\x00" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
