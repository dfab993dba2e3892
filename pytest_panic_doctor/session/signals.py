"""Makes SIGTERM and SIGHUP end a session as Ctrl-C does, so that what was written is kept.

Imports nothing heavy, because it is loaded before there is a session.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that end a session, as far as the platform has them."""

GRACE_PERIOD = 10.0
"""Seconds after the first signal during which a second one is ignored; later the default action ends the process."""

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


class TerminationSignals:
    """Raises KeyboardInterrupt, once, for a signal; a signal that the user has ignored stays ignored."""

    def __init__(self) -> None:
        """Listen to no signal yet."""
        self._before: dict[int, object] = {}
        self._asked: float | None = None

    def listen(self) -> None:
        """Begin; without effect outside of the main thread, since Python allows no handler there."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._end)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._asked is None:
            self._asked = time.monotonic()
            raise KeyboardInterrupt(signal.Signals(number).name)
        if time.monotonic() - self._asked > GRACE_PERIOD:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def stop(self) -> None:
        """Restore the handlers; a second call has no effect."""
        while self._before:
            number, handler = self._before.popitem()
            if signal.getsignal(number) == self._end:
                signal.signal(number, handler)  # type: ignore[arg-type]


def interrupt_in_a_line() -> None:
    """Let Ctrl-C before the session end in one line, since pytest would show a traceback."""
    before: Hook = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> object:
        if issubclass(kind, KeyboardInterrupt):
            return sys.stderr.write("doctor: interrupted before anything began\n")
        return before(kind, error, trace)

    if getattr(before, "__module__", "") != __name__:
        sys.excepthook = hook
