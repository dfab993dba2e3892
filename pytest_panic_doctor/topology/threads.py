"""Keeping BLAS from fighting with the other workers."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController


@functools.cache
def controller() -> ThreadpoolController:
    """The BLAS libraries of this process; looking for them takes milliseconds, so once."""
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """One BLAS thread within: workers are parallel already, and OpenBLAS's threads wait for each other by spinning.

    On two busy cores the distances of 200 points took 16 ms on two threads, 0.7 ms on one.
    """
    limited: AbstractContextManager[object] = controller().limit(limits=1, user_api="blas")
    return limited
