"""The process that computes diagrams: `python -m pytest_panic_doctor.topology.child PARENT THREADS ENGINE`.

It lives for many diagrams, and dies with its parent: on Linux by the kernel's hand (prctl(2), PR_SET_PDEATHSIG), which
also reaches it within the engine's C++ code.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import BinaryIO

PR_SET_PDEATHSIG = 1
LIMITED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def die_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent; leave at once where that is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def own_stdout() -> BinaryIO:
    """The stream to the parent; whatever a library prints from now on goes to stderr."""
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return stream


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes; the process ends where the parent has closed the stream."""
    data = bytearray()
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return bytes(data)


def main(parent: int, threads: int, engine_name: str) -> None:
    """Serve until the parent closes the stream."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    out = own_stdout()
    for name in LIMITED:
        os.environ[name] = str(threads)

    import numpy as np

    from pytest_panic_doctor.errors import DoctorError
    from pytest_panic_doctor.topology import engine as engines
    from pytest_panic_doctor.topology.cloud import Points
    from pytest_panic_doctor.topology.frames import LENGTHS, pack, unpack

    def send(header: dict[str, object], arrays: tuple[Points, ...] = ()) -> None:
        for piece in pack(header, arrays):
            sent = 0
            while sent < len(piece):
                sent += out.write(piece[sent:]) or 0

    try:
        engine = engines.pick(engine_name)
    except DoctorError as error:
        send({"kind": "refused", "text": str(error)})
        return
    send({"kind": "ready", "engine": engine.name, "version": engine.version})
    while True:
        text_size, data_size = LENGTHS.unpack(read_exactly(sys.stdin.buffer, LENGTHS.size))
        task, (points,) = unpack(read_exactly(sys.stdin.buffer, text_size), read_exactly(sys.stdin.buffer, data_size))
        begun = time.monotonic()
        try:
            diagram, merged = engines.compute(
                np.asarray(points, np.float32),
                engine=engine,
                max_dim=int(str(task["max_dim"])),
                threads=threads,
                tolerance=None if task["tolerance"] is None else float(str(task["tolerance"])),
            )
        except ValueError as error:
            send({"kind": "refused", "text": str(error)})
            continue
        send(
            {
                "kind": "done",
                "distinct": len(merged.points),
                "tolerance": merged.tolerance,
                "seconds": time.monotonic() - begun,
            },
            diagram.bars,
        )
        del diagram, merged, points
        give_back()


def give_back() -> None:
    """Hand the heap's free pages back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
