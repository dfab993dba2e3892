"""Reads a database as the research tool does, by the rules in DATABASE.md; whatever it cannot read it raises for.

Written for the tests: it unpickles, as the tool does, so that it is for payloads of our own alone.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

Read = dict[str, str | NDArray[np.generic] | list[NDArray[np.generic]]]


def read_payload(payload: bytes) -> Read:
    """What the tool makes of a `diagram_data`: bars, generators, texts and arrays, by their names.

    Of a count and of a key that ends in `_meta` it takes the first element; a list is as long as its count says; every
    other array is taken as it is.
    """
    with np.load(io.BytesIO(payload), allow_pickle=True) as stored:
        held = {name: stored[name] for name in stored.files}
    read: Read = {"dgms": numbered(held, "dgms", "dgms_count")}
    if {"gens_0", "gens_1_count", "gens_2", "gens_3_count"} <= held.keys():
        for name in ("gens_1", "gens_3"):
            read[name] = numbered(held, name, f"{name}_count")
        read |= {"gens_0": held["gens_0"], "gens_2": held["gens_2"]}
    for name, array in held.items():
        if name.endswith("_meta"):
            read[name.removesuffix("_meta")] = str(array[0])
        elif not name.startswith(("dgms_", "gens_")) and not name.endswith("_count"):
            read[name] = array
    return read


def numbered(held: dict[str, NDArray[np.generic]], name: str, count: str) -> list[NDArray[np.generic]]:
    """The arrays `name_0`, `name_1`, …: as many as the first element of `count` says."""
    return [held[f"{name}_{number}"] for number in range(int(held[count][0]))]
