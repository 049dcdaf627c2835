"""Ctrl-C and SIGTERM become a wish that the run grants at the end of a step."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

_ECHO = 1.0  # seconds


def is_echo(first: float) -> bool:
    """Whether a SIGTERM that comes now is the one of `first`, which has come by a second way.

    A supervisor signals every process of a group, and their parent passes it on to its workers.

    Args:
        first: when it came, by `time.monotonic`.
    """
    return time.monotonic() - first < _ECHO


class Stop(Exception):  # noqa: N818 - no error: somebody asked for it
    """Unwinds from between two batches; the run's state is whole there."""


class Signals:
    """Notes SIGINT and SIGTERM instead of dying of them; the second one exits at once.

    But for an echo of SIGTERM, which changes nothing.

    Handlers can be set in the main thread alone; elsewhere, and for a signal that the process was
    started to ignore (as `nohup` and a shell's `&` do), this changes nothing.
    """

    def __init__(self) -> None:
        self._caught: signal.Signals | None = None
        self._when = 0.0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def code(self) -> int:
        """The exit code by convention, 128 + the signal's number; 130 where none was caught."""
        return 128 + (self._caught or signal.SIGINT)

    @property
    def caught(self) -> int:
        """The number of the signal that has come, 0 for none."""
        return int(self._caught or 0)

    def note(self, number: int) -> None:
        """Take a signal that has come to another process of the run for one's own; 0 is none."""
        if number and self._caught is None:
            self._caught = signal.Signals(number)

    def check(self) -> None:
        """Called between two batches.

        Raises:
            Stop: a signal has come.
        """
        if self._caught is not None:
            raise Stop

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # None: the handler before was not set from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == self._caught == signal.SIGTERM and is_echo(self._when):
            return
        if self._caught is not None:
            # Not sys.exit: whatever is under way may be what hangs.
            os._exit(128 + number)
        self._caught, self._when = signal.Signals(number), time.monotonic()
