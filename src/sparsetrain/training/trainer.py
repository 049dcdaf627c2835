"""One epoch of a run: train, evaluate, let the method judge, note it all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from .best import better
from .flops import TRAIN_FACTOR
from .loop import Result, evaluate, ignore, train_epoch
from .nonfinite import Guard
from .plans import Phase
from .progress import Reporter
from .schedule import rate, warmed
from .state import RunState
from .tracing import Tally


def run_epoch(
    state: RunState,
    reporter: Reporter,
    *,
    after_step: Callable[[Guard], None] = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train one epoch, or what is left of it, and advance `state` by it.

    Args:
        state: changed in place; whole whenever `after_step` and `check` are called.
        reporter: gets a bar for the batches.
        after_step: called after each step, for a checkpoint; what it raises ends the epoch there.
        check: called between the batches of evaluations, where nothing of `state` changes yet;
            what it raises ends the epoch there, and the evaluations are made again on resume.
    Returns:
        The epoch's line of metrics.jsonl; accuracies are fractions, `sparsity` is that of the
        network which `val_accuracy` (or `test_accuracy`) was measured on.
    """
    session, phase, epoch = state.session, state.session.plan.phase, state.epoch
    if not state.begun:
        state.begun = {"total": state.totals.so_far("total")}
        state.work.begin()
    line: dict[str, Any] = {"epoch": epoch + 1, "phase": phase.name}
    spent = session.plan.update_seconds
    result = _train(state, phase, reporter, after_step)
    state.totals.mask_updates += session.plan.update_seconds - spent
    line |= {"loss": result.loss, "train_accuracy": result.accuracy}
    with state.shown():
        line |= _monitor(state, check)
    line |= {"sparsity": session.plan.sparsity, "lr": _rate(state, phase, epoch, 0)}
    if state.tracer is not None:
        state.tracer.look(state.work)
    judged = _judge(state, epoch, result.accuracy, check)
    _count_operations(state, judged=bool(judged))
    line |= judged
    if state.sums.skipped:
        line["skipped_steps"] = state.sums.skipped
    line["seconds"] = round(state.totals.so_far("total") - state.begun["total"], 3)
    state.end_epoch(line)
    if (
        state.average is not None
        and state.epoch < state.end
        and session.plan.phase.name != phase.name
    ):
        state.average.restart()  # a phase may begin with weights of long ago
    return line


def _train(
    state: RunState, phase: Phase, reporter: Reporter, after_step: Callable[[Guard], None]
) -> Result:
    session, epoch, start = state.session, state.epoch, state.batch
    batches = len(session.train)
    guard = Guard(
        session.model,
        watched=session.plan.masks.keys(),
        mode=state.config.run.on_nonfinite,
        first=epoch * batches,
        world=session.place.world,
    )

    def took() -> None:
        if state.average is not None:
            state.average.update(dict(session.plan.masks))

    def after() -> None:
        state.batch += 1
        state.work.after_step()
        if state.tracer is not None:
            state.tracer.after_step()
        reporter.advance()
        after_step(guard)

    reporter.start_bar(f"epoch {epoch + 1}/{state.end} {phase.name}", batches - start)
    with state.totals.timed("train"):
        return train_epoch(
            session.network,
            session.optimizer,
            session.train.batches(epoch, start),
            place=session.place,
            lr=lambda batch: _rate(state, phase, epoch, batch),
            label_smoothing=state.config.optim.label_smoothing,
            start=start,
            sums=state.sums,
            guard=guard,
            counted=session.train.counted,
            compute=session.compute,
            part_size=max(1, session.train.full // state.config.optim.accumulate),
            took=took,
            after=after,
        )


def _rate(state: RunState, phase: Phase, epoch: int, batch: int) -> float:
    optim, batches = state.config.optim, len(state.session.train)
    factor = warmed(optim, epoch * batches + batch, batches)
    if not phase.scheduled:
        return factor * optim.lr
    return factor * rate(optim, (epoch - phase.first) * batches + batch, phase.epochs * batches)


def _count_operations(state: RunState, *, judged: bool) -> None:
    work, images = state.work, state.session.train_images
    passes = TRAIN_FACTOR * state.flops.at_densities(work.densities(work.active))
    if judged:  # a pruned copy was, on the training images
        passes += state.flops.total
    state.totals.train_flops += passes * images
    state.totals.growth_flops += state.flops.of_layers(work.densities(work.read)) * images


def _monitor(state: RunState, check: Callable[[], None]) -> dict[str, float]:
    """Accuracy on the held-out images, or the test set under `compat: paper`."""
    session = state.session
    loader, key = (
        (session.test, "test_accuracy") if state.paper else (session.held_out, "val_accuracy")
    )
    if loader is None:
        return {}
    with state.totals.timed("evaluate"):
        accuracy = evaluate(
            session.model,
            loader.batches(0),
            place=session.place,
            tally=_tally(state, "classes"),
            after=check,
        ).accuracy
    # Making this evaluation again on resume gives the same best: on a tie the later one wins.
    state.best = better(
        state.best,
        epoch=state.epoch + 1,
        sparsity=session.plan.sparsity,
        accuracy=accuracy,
        model=None if state.paper else session.model,
    )
    return {key: accuracy}


def _tally(state: RunState, name: Literal["classes", "pruned_classes"]) -> Tally:
    return ignore if state.tracer is None else state.tracer.counting(name)


def _judge(
    state: RunState, epoch: int, accuracy: float, check: Callable[[], None]
) -> dict[str, float]:
    """The method's end of the epoch; it may measure pruned copies."""
    session, measured = state.session, {}
    spent = state.totals.evaluate

    def on_training_images(model: nn.Module) -> float:
        with state.totals.timed("evaluate"):
            call = None
            if session.judge is not None:
                session.place.world.share_buffers_(model)  # they are folded into the weights
                call = session.judge.call_of(model)
            if session.held_out is not None:
                batches = session.held_out.batches(0)
                held_out = evaluate(model, batches, place=session.place, call=call, after=check)
                measured["pruned_val_accuracy"] = held_out.accuracy
            return evaluate(
                model,
                session.train.batches(epoch),
                place=session.place,
                call=call,
                counted=session.train.counted,
                tally=_tally(state, "pruned_classes"),
                after=check,
            ).accuracy

    try:
        with state.totals.timed("mask_updates"):
            line = session.plan.end_epoch(epoch, accuracy, on_training_images)
    finally:
        state.totals.mask_updates -= state.totals.evaluate - spent
    return line | measured
