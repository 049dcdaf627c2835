"""One epoch of a run: train, evaluate, let the method judge, note it all."""

from __future__ import annotations

import time
from typing import Any

from torch import nn

from .best import better
from .flops import TRAIN_FACTOR
from .loop import evaluate, train_epoch
from .plans import Phase
from .progress import Reporter
from .schedule import rate
from .state import RunState


def run_epoch(state: RunState, reporter: Reporter) -> dict[str, Any]:
    """Train one epoch and advance `state` by it.

    Args:
        state: changed in place.
        reporter: gets a bar for the batches.
    Returns:
        The epoch's line of metrics.jsonl; accuracies are fractions, `sparsity` is that of the
        network which `val_accuracy` (or `test_accuracy`) was measured on.
    """
    started = time.perf_counter()
    session, phase, epoch = state.session, state.session.plan.phase, state.epoch
    line: dict[str, Any] = {"epoch": epoch + 1, "phase": phase.name}
    before = _cost(state)
    reporter.start_bar(f"epoch {epoch + 1}/{state.end} {phase.name}", len(session.train))
    with state.totals.timed("train"):
        result = train_epoch(
            session.model,
            session.optimizer,
            session.train.batches(epoch),
            place=session.place,
            lr=lambda batch: _rate(state, phase, epoch, batch),
            label_smoothing=state.config.optim.label_smoothing,
            advance=reporter.advance,
        )
    line |= {"loss": result.loss, "train_accuracy": result.accuracy}
    line |= _monitor(state)
    line |= {"sparsity": session.plan.sparsity, "lr": _rate(state, phase, epoch, 0)}
    state.totals.steps += len(session.train)
    # The masks may move within the epoch: the mean of its two ends.
    mean = (before + _cost(state)) / 2
    state.totals.train_flops += mean * TRAIN_FACTOR * session.train_images
    line |= _judge(state, epoch, result.accuracy)
    state.epoch += 1
    line["seconds"] = round(time.perf_counter() - started, 3)
    return line


def _rate(state: RunState, phase: Phase, epoch: int, batch: int) -> float:
    optim, batches = state.config.optim, len(state.session.train)
    if not phase.scheduled:
        return optim.lr
    return rate(optim, (epoch - phase.first) * batches + batch, phase.epochs * batches)


def _cost(state: RunState) -> float:
    return state.flops.at(state.session.plan.masks)


def _monitor(state: RunState) -> dict[str, float]:
    """Accuracy on the held-out images, or the test set under `compat: paper`."""
    session = state.session
    loader, key = (
        (session.test, "test_accuracy") if state.paper else (session.held_out, "val_accuracy")
    )
    if loader is None:
        return {}
    with state.totals.timed("evaluate"):
        accuracy = evaluate(session.model, loader.batches(0), place=session.place).accuracy
    state.best = better(
        state.best,
        epoch=state.epoch + 1,
        sparsity=session.plan.sparsity,
        accuracy=accuracy,
        model=None if state.paper else session.model,
    )
    return {key: accuracy}


def _judge(state: RunState, epoch: int, accuracy: float) -> dict[str, float]:
    """The method's end of the epoch; it may measure pruned copies."""
    session, measured = state.session, {}
    spent = state.totals.evaluate

    def on_training_images(model: nn.Module) -> float:
        with state.totals.timed("evaluate"):
            if session.held_out is not None:
                held_out = evaluate(model, session.held_out.batches(0), place=session.place)
                measured["pruned_val_accuracy"] = held_out.accuracy
            batches = session.train.batches(epoch)
            return evaluate(model, batches, place=session.place).accuracy

    with state.totals.timed("mask_updates"):
        line = session.plan.end_epoch(epoch, accuracy, on_training_images)
    state.totals.mask_updates -= state.totals.evaluate - spent
    if line:
        state.totals.train_flops += state.flops.total * session.train_images
    return line | measured
