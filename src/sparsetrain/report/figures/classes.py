"""Accuracy of each class while a network is compressed."""

from __future__ import annotations

import numpy as np

from ...analysis.classes import class_accuracy
from ...analysis.trace import Trace
from ..chart import Chart, Figure, Series
from ..runs import Run
from .common import MOST_PANELS, Lines, percent, zeros

_MOST_CLASSES = 12
_QUANTILES = (("worst", 0.0), ("lower quarter", 0.25), ("median", 0.5), ("upper quarter", 0.75))


def class_by_epoch(lines: Lines) -> Figure | None:
    """Per-class accuracy of ART's pruned copy, and of networks that are pruned step by step."""
    runs = [run for run in lines.first_seeds() if run.trace is not None and _compressed(run.trace)]
    highest = {run.line: run for run in sorted(runs, key=lambda run: run.sparsity)}
    charts = tuple(_chart(run) for run in highest.values())
    text = (
        "Which classes survive compression: of ART, its pruned copy on the training images while "
        "the network is regularised; of methods whose sparsity rises, the network itself on the "
        "images that are held out. The highest sparsity, one seed. With more than "
        f"{_MOST_CLASSES} classes, the worst, the quarters and the best of them at each epoch."
    )
    shown, more = charts[:MOST_PANELS], charts[MOST_PANELS:]
    return Figure("classes", "Accuracy of each class", text, shown, more) if charts else None


def _compressed(trace: Trace) -> bool:
    """Whether the sparsity moved, and answers were counted meanwhile."""
    moved = len(np.unique(trace.active.sum(axis=1))) > 2 and trace.classes[1:].any()
    return bool(trace.pruned_classes.any() or moved)


def _chart(run: Run) -> Chart:
    trace = run.trace
    assert trace is not None
    pruned = bool(trace.pruned_classes.any())
    counts = trace.pruned_classes if pruned else trace.classes
    rows = np.flatnonzero(counts.any(axis=(1, 2)))
    values = class_accuracy(counts[rows])
    epochs = trace.epochs[rows].tolist()
    whose = "pruned copy" if pruned else "network"
    named = _named(trace, values)
    series = tuple(
        Series(name, epochs, percent(row), color=index / max(len(named) - 1, 1))
        for index, (name, row) in enumerate(named)
    )
    title = f"{run.line}, {zeros(run.sparsity)}: {whose}"
    return Chart(title, "epoch", "accuracy (%)", series, y_range=(0, 100))


def _named(trace: Trace, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    names = trace.layers.classes
    if len(names) <= _MOST_CLASSES:
        shown = (f"class {name}" if name.isdecimal() else name for name in names)
        return [(name, values[:, i]) for i, name in enumerate(shown)]
    quantiles = (*_QUANTILES, ("best", 1.0))
    return [(name, np.nanquantile(values, q, axis=1)) for name, q in quantiles]
