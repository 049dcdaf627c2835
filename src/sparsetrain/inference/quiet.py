"""torch's tracer without its own noise: where a trace fails, we make another or say why."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back torch's warnings, log records and dumps to standard error for a while.

    All of that is the process's own, so only one thread may do so at a time.
    """
    known = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
    torchs = [logger for logger in known if logger.name.split(".")[0] == "torch"]
    handlers = {handler for logger in torchs for handler in logger.handlers}
    for handler in handlers:
        handler.addFilter(_nothing)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False
