"""One run from settings to record: start or continue, epoch by epoch, and finish."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch

from ..data.catalog import AnyDataset
from .check import resolve
from .config import TrainConfig
from .device import cpu_threads, determinism
from .errors import BadInput, Diverged, Interrupted, RunFailed
from .finish import finish
from .folder import RunFolder, default_path
from .live import shown
from .parallel import World, joined
from .progress import Pace, Reporter, Silent, epoch_line
from .saver import Saver
from .session import build_session
from .state import RunState
from .stop import Signals, Stop
from .summary import headline
from .trainer import run_epoch


def train(
    config: TrainConfig, *, reporter: Reporter, command: str = "", dataset: AnyDataset | None = None
) -> dict[str, Any]:
    """Train as the settings say, or continue, or only report a run that is finished.

    Args:
        config: as built from a file and flags, ranges unchecked.
        reporter: told what happens, line by line.
        command: what was typed, for the record.
        dataset: that of the settings where it is in memory already; None loads it.
    Returns:
        The record.
    Raises:
        BadInput: the settings cannot be run; nothing was written.
        RunFailed: it broke off; the run folder can be continued from its last checkpoint.
        Interrupted: Ctrl-C or SIGTERM; likewise, and nothing is lost.
    """
    path = default_path(config) if config.run.out is None else config.run.out
    config = resolve(replace(config, run=replace(config.run, out=path)))
    folder = RunFolder(path)
    with ExitStack() as stack:
        world = stack.enter_context(joined(config.run))
        reporter = reporter if world.writes else Silent()
        stack.enter_context(determinism(config.run.deterministic))
        record = world.first(lambda: _finished(folder, config, reporter))
        if record is not None:
            return record
        begun = world.first(
            lambda: folder.begun
        )  # else it is made below, once it is known that the settings can be run
        if begun:
            _hold(folder, world, stack)
        state = _build(config, reporter, dataset, world)
        if not begun:
            _hold(folder, world, stack)
        # Another process may have begun, and even finished, before it was ours.
        record = world.first(lambda: _finished(folder, config, reporter))
        if record is not None:
            return record
        return _run(state, folder, reporter, command)


def _hold(folder: RunFolder, world: World, stack: ExitStack) -> None:
    """Take the folder for this run, by its rank 0."""

    def hold() -> None:
        stack.enter_context(folder.held())

    world.first(hold)


def _finished(folder: RunFolder, config: TrainConfig, reporter: Reporter) -> dict[str, Any] | None:
    """The record of a run that is over.

    Raises:
        BadInput: the folder is of another run, or of none.
    """
    folder.check(config)
    record = folder.load_record()
    if record is not None:
        reporter.say(f"{folder.path} is finished; this is its record.")
    return record


def _build(
    config: TrainConfig, reporter: Reporter, dataset: AnyDataset | None, world: World
) -> RunState:
    try:
        with _told(reporter):
            return RunState.fresh(config, build_session(config, reporter.download, dataset, world))
    except ValueError as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise BadInput(f"cannot read the data: {error}.") from error
    finally:
        reporter.close()


def _run(state: RunState, folder: RunFolder, reporter: Reporter, command: str) -> dict[str, Any]:
    config, signals, world = state.config, Signals(), state.session.place.world
    saver = Saver(state, folder, signals)
    world.first(lambda: folder.create(config))
    try:
        saver.restore(reporter.say)
    except OSError as error:
        raise BadInput(f"cannot write the run folder {folder.path}: {error.strerror}.") from error
    reporter.say(headline(config, state.session, folder.path))
    if saver.saved != (0, 0):
        reporter.say(f"continuing {saver.where()}.")
    step_flops = state.flops.total * config.optim.batch_size
    threads = cpu_threads(config.run.threads, step_flops=step_flops)
    with threads, _guarded(folder, state, saver, signals, reporter), signals:
        try:
            _epochs(state, folder, reporter, saver, signals)
            return finish(state, folder, command=command, check=_between(signals, world))
        except Stop:
            saver.write()
            raise


def _epochs(
    state: RunState, folder: RunFolder, reporter: Reporter, saver: Saver, signals: Signals
) -> None:
    pace, world = Pace(), state.session.place.world
    check = _between(signals, world)
    shows = state.config.run.tensorboard and world.writes
    live_folder = folder.tensorboard if shows else None
    with _told(reporter), shown(live_folder, epoch=state.epoch) as show:
        if state.step == 0:
            _trace(state, folder)
        while state.epoch < state.end:
            with state.totals.timed("total"), state.totals.timed("processor"):
                line = run_epoch(state, reporter, after_step=saver.after_step, check=check)
                if world.writes:
                    folder.append_metrics(line)
                _trace(state, folder)
            show(line)
            left = pace.remaining(state.end - state.epoch)
            reporter.say(epoch_line(line, end=state.end, eta=left))
            saver.after_epoch()


def _trace(state: RunState, folder: RunFolder) -> None:
    """Write what is kept of an epoch; before the first, of the network as it begins."""
    if state.tracer is None:
        return
    if state.epoch == 0:
        state.tracer.look(state.work)
    elif state.epoch >= state.end:
        state.tracer.look_again()
    state.tracer.write(folder.trace, state.epoch, step=state.totals.steps)


def _between(signals: Signals, world: World) -> Callable[[], None]:
    """What looks for a signal between the batches of an evaluation.

    Several processes look after steps and epochs alone: here one may have a batch more.
    """
    return signals.check if world.size == 1 else lambda: None


@contextmanager
def _guarded(
    folder: RunFolder, state: RunState, saver: Saver, signals: Signals, reporter: Reporter
) -> Iterator[None]:
    """Turn what can go wrong on the way into one sentence that says how to go on."""
    try:
        yield
    except (KeyboardInterrupt, Stop):
        where = saver.where(of=f" of {state.end}")
        raise Interrupted(
            f"stopped {where}; the same command with --resume auto continues there.", signals.code
        ) from None
    except torch.OutOfMemoryError as error:
        raise RunFailed("the GPU's memory is full; lower batch_size.") from error
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror or error)
        where = error.filename or folder.path
        raise RunFailed(f"cannot write {where}: {what}. {saver.last_good()}") from error
    except (FloatingPointError, ValueError, RunFailed) as error:
        what = str(error).rstrip(".")
        kind = Diverged if isinstance(error, FloatingPointError | Diverged) else RunFailed
        raise kind(f"epoch {state.epoch + 1}: {what}. {saver.last_good()}") from error
    except RuntimeError as error:
        if str(error).startswith("DataLoader worker"):
            raise RunFailed(
                f"epoch {state.epoch + 1}: a process that decodes images was killed; lower "
                f"workers, prefetch or batch_size. {saver.last_good()}"
            ) from error
        if state.session.place.world.size == 1:
            raise
        # Masks that differ, or a process that is gone: torchrun ends the others and starts anew.
        what = str(error).strip().splitlines()[0].rstrip(".")
        raise RunFailed(f"epoch {state.epoch + 1}: {what}. {saver.last_good()}") from error
    finally:
        reporter.close()


@contextmanager
def _told(reporter: Reporter) -> Iterator[None]:
    """Pass the library's own warnings on to the reporter, each once."""
    said: set[str] = set()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (text := record.getMessage()) not in said:
                said.add(text)
                reporter.say(text)

    log, handler = logging.getLogger("sparsetrain"), Handler(logging.WARNING)
    log.addHandler(handler)
    propagate, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
