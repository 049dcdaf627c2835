"""SIGTERM as Ctrl-C: what is under way is left in order before the process ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..training import stop
from ..training.errors import Interrupted


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; unwinds from wherever the process is, as Ctrl-C does."""


def exit_code(error: KeyboardInterrupt | Interrupted) -> int:
    """128 + the signal's number."""
    if isinstance(error, Interrupted):
        return error.code
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated` in the main thread; elsewhere nothing changes.

    A second one raises anew, so that nothing is waited for any longer; an echo of the first does
    not. A process that was started to ignore the signal goes on doing so; a container's first
    process would ignore it without a handler.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        yield
        return
    first: float | None = None

    def raise_(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is None or not stop.is_echo(first):
            first = time.monotonic()
            raise Terminated

    before = signal.signal(signal.SIGTERM, raise_)
    try:
        yield
    except Terminated:
        raise
    except KeyboardInterrupt as error:
        if first is None:
            raise
        raise Terminated from error  # Ray raises its own, for whatever a handler raises
    finally:
        # None: the handler before was not set from Python and cannot be put back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
