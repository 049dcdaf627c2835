"""One run after the other in one process: imports and data are loaded once."""

from __future__ import annotations

import io
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.catalog import AnyDataset
from ..training.config import DataConfig
from ..training.errors import BadInput, Diverged, Interrupted, InUse, RunFailed
from ..training.feeds import load_data
from ..training.progress import Reporter
from ..training.run import train
from ..training.settings import build
from . import failure


@dataclass(frozen=True)
class Job:
    """A run to be made.

    Attributes:
        index: the run's place in the sweep.
        settings: flat, with the run folder in `out`. Not a TrainConfig: the class of a method's
            options is made when it is asked for, so another process could not unpickle it.
        command: for the record.
    """

    index: int
    settings: Mapping[str, Any]
    command: str


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        index: the run's place in the sweep.
        record: None where it failed.
        error: the sentence of what went wrong; empty where nothing did.
        final: whether a run with these settings would fail again: bad input, or numbers that
            became NaN or infinite; a full disk, a busy GPU or a killed process is none of it.
        seconds: wall clock, of this process.
        taken: the job, where another process is at it and it was not run.
    """

    index: int
    record: dict[str, Any] | None = None
    error: str = ""
    final: bool = False
    seconds: float = 0.0
    taken: Job | None = None


class Bench:
    """Where runs are made; keeps the data set of the last one."""

    def __init__(self) -> None:
        self._config: DataConfig | None = None
        self._dataset: AnyDataset | None = None

    def run(self, job: Job) -> Outcome:
        """Train, or continue; whatever goes wrong with the run is in the outcome.

        A failure that would come again is noted beside the run folder.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; the run can be continued.
        """
        started, folder = time.perf_counter(), Path(job.settings["out"])
        record, error, final = None, "", False
        failure.forget(folder)
        try:
            config = build(job.settings)
            dataset = self.load(config.data)
            record = train(config, reporter=_silent(), command=job.command, dataset=dataset)
        except Interrupted:
            raise
        except InUse as problem:
            return Outcome(job.index, error=str(problem), taken=job)
        except (BadInput, RunFailed) as problem:
            error, final = str(problem), _is_final(problem)
        except Exception as problem:  # of whatever kind: the other runs go on
            error = _sentence(problem)
        if final:
            failure.note(folder, error)
        return Outcome(job.index, record, error, final, time.perf_counter() - started)

    def load(self, config: DataConfig, reporter: Reporter | None = None) -> AnyDataset:
        """The data set, from the last run if that had the same.

        Args:
            reporter: told of downloads.
        Raises:
            BadInput: it cannot be had.
        """
        if self._dataset is None or config != self._config:
            self._dataset = None  # before the next is read: the two may not fit into memory
            try:
                self._dataset = load_data(config, reporter.download if reporter else None)
            except ValueError as error:
                raise BadInput(str(error)) from error
            except OSError as error:
                raise BadInput(f"cannot read the data: {error}.") from error
            self._config = config
        return self._dataset


def _silent() -> Reporter:
    return Reporter(io.StringIO())


def _is_final(error: BaseException) -> bool:
    """Whether it comes from the settings alone, and not from a disk or a file."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    return isinstance(error, BadInput | Diverged) and cause is None


def _sentence(error: Exception) -> str:
    """An error nobody foresaw, with the place in the code that it comes from."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.name}, line {frame.lineno})"
