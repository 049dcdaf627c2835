"""A run in words: the line before it and the table after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import ArtOptions, TrainConfig
from .progress import counted, duration
from .session import Session

_MANY_DEAD = 0.1
"""Share of dead units from which on they are told of."""


def headline(config: TrainConfig, session: Session, path: Path) -> str:
    """What will run, in one line."""
    how = config.sparse.method
    if isinstance(config.options, ArtOptions):
        how += f" ({config.options.regularizer})"
    held = len(session.dataset.train_labels) - session.train_images
    images = f"{session.train_images:,} training"
    images += f" + {held:,} validation images" if held else " images"
    weights = sum(mask.numel() for mask in session.plan.masks.values())
    goal = f" to {100 * config.sparse.sparsity:g} % zeros" if config.sparse.sparsity else ""
    epochs = counted(session.plan.end_after(0), "epoch")
    return (
        f"train {config.model.model} ({weights:,} prunable weights) on {session.dataset.name} "
        f"({images}) with {how}{goal}, "
        f"{epochs}, seed {config.run.seed}, {session.place} -> {path}"
    )


def summary(record: dict[str, Any], path: Path) -> str:
    """What came out, as an aligned table; the last line says where it lies."""
    flops = record["flops"]
    rows = [
        ("test accuracy", f"{_percent(record['test_accuracy'])}{_selected(record)}"),
        *_dense(record),
        ("zeros", _zeros(record)),
        *_dead_units(record),
        *_art(record),
        (
            "FLOPs, sparse / dense",
            f"inference {flops['inference_sparse'] / flops['inference_dense']:.3f}, "
            f"training {flops['train_sparse'] / flops['train_dense']:.3f}",
        ),
        ("time", f"{duration(record['seconds']['total'])}, {counted(record['epochs'], 'epoch')}"),
        ("result", str(path)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _zeros(record: dict[str, Any]) -> str:
    sparsity, total = record["sparsity"], record["prunable_weights"]
    if not sparsity["target"]:
        return f"none in {total:,} weights: the dense control"
    return (
        f"{_percent(sparsity['achieved'])} (asked for {100 * sparsity['target']:g} %): "
        f"{record['kept_weights']:,} of {total:,} weights are left"
    )


def _dead_units(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Told where they are many; what may help, where it is known (see `Growing.revive`)."""
    counts = record.get("units", {"dead": 0, "all": 0})  # none in records of earlier versions
    dead, units = counts["dead"], counts["all"]
    if not dead or dead < _MANY_DEAD * units:
        return []
    options = record["options"]
    follows = options.get("growth") in ("gradient", "momentum")
    hint = "; try --no-revive" if options.get("revive") and follows else ""
    return [("dead units", f"{dead:,} of {units:,} channels and neurons have no weight left{hint}")]


def _selected(record: dict[str, Any]) -> str:
    if "test_accuracy_best" in record:
        best = _percent(record["test_accuracy_best"])
        return f" at the end, {best} at best (epoch {record['best_epoch']}, chosen by the test set)"
    if "test_accuracy_selected" not in record:
        return " at the end"
    chosen = _percent(record["test_accuracy_selected"])
    return f" at the end, {chosen} chosen by validation (epoch {record['selected_epoch']})"


def _dense(record: dict[str, Any]) -> list[tuple[str, str]]:
    if "dense_phase_val_accuracy" not in record:
        return []
    dense, sparse = record["dense_phase_val_accuracy"], record["val_accuracy"]
    return [
        (
            "validation accuracy",
            f"{_percent(sparse)} sparse, {_percent(dense)} dense (before pruning)",
        )
    ]


def _art(record: dict[str, Any]) -> list[tuple[str, str]]:
    if "outcome" not in record:
        return []
    said = {
        "converged": "the pruned copy became as accurate as the dense network",
        "cap": "max_regularize_epochs was reached; the best pruned copy so far was taken",
        "collapsed": "the dense network collapsed; the best pruned copy so far was taken",
    }
    epochs = record["regularize_epochs"]
    return [("regularising", f"{counted(epochs, 'epoch')}: {said[record['outcome']]}")]


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
