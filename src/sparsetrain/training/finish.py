"""The end of a run: the one reading of the test set, the weights' file, the picture, the record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safetensors.torch import save
from torch import nn

from .. import sharded
from ..data.deal import Feed
from .best import better
from .checkpoint import write_atomic
from .folder import RunFolder
from .loop import evaluate
from .plot import plot_history
from .record import make_record
from .state import RunState


def finish(
    state: RunState,
    folder: RunFolder,
    *,
    command: str,
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write everything that a finished run has; the record last, for it means "finished".

    Args:
        state: after the last epoch.
        command: what was typed.
        check: called between the batches of evaluations; after what it raises, the run can be
            finished from its last checkpoint.
    Returns:
        The record.
    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    session, metrics = state.session, state.history
    session.plan.finalize()
    if _pruned_last(state) and state.average is not None:
        state.average.restart()  # it is of the weights before
    with state.totals.timed("total"), state.totals.timed("processor"):
        last = {} if state.average is None else {"test_accuracy_unaveraged": _test(state, check)}
    with state.totals.timed("total"), state.totals.timed("processor"), state.shown():
        weights = weights_file(session.model)
        if session.place.world.writes:
            write_atomic(folder.weights, weights)
        with state.totals.timed("evaluate"):
            accuracies = _accuracies(state, check) | last
        if session.place.world.writes:
            plot_history(metrics, folder.history)
    record = make_record(
        state.config,
        session,
        epochs=state.epoch,
        totals=state.totals,
        flops=state.flops,
        accuracies=accuracies,
        command=command,
    )
    if session.place.world.writes:
        folder.write_record(record)
    return record


def weights_file(model: nn.Module) -> bytes:
    """The model's tensors under their own names, in the safetensors format, zeros included."""
    state = sharded.model_state(model)
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def _pruned_last(state: RunState) -> bool:
    """Whether the last epoch ended with a pruning, after its evaluation: ART without fine-tuning.

    What that epoch measured is then of another network.
    """
    return state.session.plan.sparsity != state.history[-1]["sparsity"]


def _accuracies(state: RunState, check: Callable[[], None]) -> dict[str, Any]:
    metrics, session, best = state.history, state.session, state.best
    last = metrics[-1]
    found: dict[str, Any] = {"train_accuracy": last["train_accuracy"]}
    dense = [line for line in metrics if line["phase"] == "dense"]
    if dense:
        found["dense_phase_train_accuracy"] = dense[-1]["train_accuracy"]
    if dense and "val_accuracy" in dense[-1]:
        found["dense_phase_val_accuracy"] = dense[-1]["val_accuracy"]
    if "val_accuracy" in last:
        found["val_accuracy"] = last["val_accuracy"]
    found["test_accuracy"] = _test(state, check)
    if best is not None and _pruned_last(state):
        if session.held_out is not None and not state.paper:
            found["val_accuracy"] = _measure(state, session.held_out, check)
        accuracy = found["test_accuracy" if state.paper else "val_accuracy"]
        sparsity = session.plan.sparsity
        best = better(None, epoch=state.epoch, sparsity=sparsity, accuracy=accuracy, model=None)
    if best is None:
        return found
    if state.paper:
        return found | {"test_accuracy_best": best.accuracy, "best_epoch": best.epoch}
    # Last, for it changes the model's weights.
    if best.epoch < state.epoch:
        sharded.load_model_state_(session.model, best.weights)
    selected = _test(state, check) if best.epoch < state.epoch else found["test_accuracy"]
    return found | {"test_accuracy_selected": selected, "selected_epoch": best.epoch}


def _test(state: RunState, check: Callable[[], None]) -> float:
    return _measure(state, state.session.test, check)


def _measure(state: RunState, images: Feed, check: Callable[[], None]) -> float:
    session = state.session
    return evaluate(session.model, images.batches(0), place=session.place, after=check).accuracy
