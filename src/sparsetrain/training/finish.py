"""The end of a run: the one reading of the test set, the weights' file, the picture, the record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safetensors.torch import save
from torch import nn

from .. import sharded
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
    with state.totals.timed("total"), state.totals.timed("processor"):
        last = {} if state.average is None else {"test_accuracy_unaveraged": _test(state, check)}
    with state.totals.timed("total"), state.totals.timed("processor"), state.shown():
        weights = weights_file(session.model)
        if session.place.world.writes:
            write_atomic(folder.weights, weights)
        with state.totals.timed("evaluate"):
            accuracies = _accuracies(state, metrics, check) | last
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


def _accuracies(
    state: RunState, metrics: list[dict[str, Any]], check: Callable[[], None]
) -> dict[str, Any]:
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
    best = state.best
    if best is None:
        return found
    if state.paper:
        return found | {"test_accuracy_best": best.accuracy, "best_epoch": best.epoch}
    # Last, for it changes the model's weights.
    if best.epoch < state.epoch:
        sharded.load_model_state_(state.session.model, best.weights)
    selected = _test(state, check) if best.epoch < state.epoch else found["test_accuracy"]
    return found | {"test_accuracy_selected": selected, "selected_epoch": best.epoch}


def _test(state: RunState, check: Callable[[], None]) -> float:
    session = state.session
    batches = session.test.batches(0)
    return evaluate(session.model, batches, place=session.place, after=check).accuracy
