"""Limits the threads of BLAS, since workers are parallel already."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController


@functools.cache
def controller() -> ThreadpoolController:
    """Controller of the BLAS libraries of this process, cached because the search takes milliseconds."""
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Context in which BLAS uses one thread.

    OpenBLAS's threads wait for each other by spinning: on two busy cores the distances of 200 points took 16 ms on two
    threads and 0.7 ms on one.
    """
    limited: AbstractContextManager[object] = controller().limit(limits=1, user_api="blas")
    return limited
