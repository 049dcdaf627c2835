"""One run from settings to record: start or continue, epoch by epoch, and finish."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from . import checkpoint
from .check import resolve
from .config import TrainConfig
from .device import cpu_threads, determinism
from .errors import BadInput, Interrupted, RunFailed
from .finish import finish
from .folder import RunFolder, default_path
from .progress import Pace, Reporter, epoch_line
from .session import build_session
from .state import RunState
from .summary import headline
from .trainer import run_epoch


def train(config: TrainConfig, *, reporter: Reporter, command: str = "") -> dict[str, Any]:
    """Train as the settings say, or continue, or only report a run that is finished.

    Args:
        config: as built from a file and flags, ranges unchecked.
        reporter: told what happens, line by line.
        command: what was typed, for the record.
    Returns:
        The record.
    Raises:
        BadInput: the settings cannot be run; nothing was written.
        RunFailed: it broke off; the run folder can be continued from its last checkpoint.
        Interrupted: Ctrl-C; likewise.
    """
    path = default_path(config) if config.run.out is None else config.run.out
    config = resolve(replace(config, run=replace(config.run, out=path)))
    folder = RunFolder(path)
    folder.check(config)
    record = folder.load_record()
    if record is not None:
        reporter.say(f"{path} is finished; this is its record.")
        return record
    with determinism(config.run.deterministic):
        state = _build(config, reporter)
        folder.create(config)
        epoch = _restore(state, folder, reporter)
        reporter.say(headline(config, state.session, path))
        if epoch:
            reporter.say(f"continuing after epoch {epoch}.")
        step_flops = state.flops.total * config.optim.batch_size
        threads = cpu_threads(config.run.threads, step_flops=step_flops)
        with threads, _guarded(folder, state, reporter):
            _epochs(state, folder, reporter)
            return finish(state, folder, command=command)


def _build(config: TrainConfig, reporter: Reporter) -> RunState:
    try:
        return RunState.fresh(config, build_session(config, reporter.download))
    except ValueError as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise BadInput(f"cannot read the data: {error}.") from error
    finally:
        reporter.close()


def _restore(state: RunState, folder: RunFolder, reporter: Reporter) -> int:
    saved = checkpoint.load_newest(folder.checkpoints, reporter.say)
    if saved is not None:
        state.load_state_dict(saved["state"])
    folder.cut_metrics(saved["metrics"] if saved is not None else 0)
    return state.epoch


def _epochs(state: RunState, folder: RunFolder, reporter: Reporter) -> None:
    pace = Pace()
    with _told(reporter):
        while state.epoch < state.end:
            with state.totals.timed("total"):
                line = run_epoch(state, reporter)
                saved = {"metrics": folder.append_metrics(line), "state": state.state_dict()}
            checkpoint.save(folder.checkpoints, state.epoch, saved, keep=state.config.run.keep)
            left = pace.remaining(state.end - state.epoch)
            reporter.say(epoch_line(line, end=state.end, eta=left))


@contextmanager
def _guarded(folder: RunFolder, state: RunState, reporter: Reporter) -> Iterator[None]:
    """Turn what can go wrong on the way into one sentence that says how to go on."""
    again = f"The run folder {folder.path} keeps the epochs before it."
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped after epoch {state.epoch} of {state.end}; "
            "the same command with --resume auto continues there."
        ) from None
    except torch.OutOfMemoryError as error:
        raise RunFailed("the GPU's memory is full; lower batch_size.") from error
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror or error)
        raise RunFailed(f"cannot write {error.filename or folder.path}: {what}. {again}") from error
    except (FloatingPointError, ValueError, RunFailed) as error:
        raise RunFailed(f"epoch {state.epoch + 1}: {error} {again}") from error
    finally:
        reporter.close()


@contextmanager
def _told(reporter: Reporter) -> Iterator[None]:
    """Pass the library's own warnings on to the reporter."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reporter.say(record.getMessage())

    log, handler = logging.getLogger("sparsetrain"), Handler(logging.WARNING)
    log.addHandler(handler)
    propagate, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
