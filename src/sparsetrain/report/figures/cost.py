"""What it costs: operations against accuracy, epoch by epoch, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

import numpy as np

from ...analysis.ledger import Ledger, training_ledger
from ...analysis.pareto import front
from ..chart import Chart, Figure, Series
from ..runs import Run
from .common import Lines, Points, curves, to_the_end, zeros

_FORMULA = (
    "A layer with w weights used at p places costs 2·w·p operations for an image, and 2·a·p with a "
    "active ones; a training step costs that three times: forward, gradient of the inputs, "
    "gradient of the weights, integrated over the sparsity as it moves. "
)


def cost_and_accuracy(lines: Lines) -> Figure | None:
    """Accuracy against operations, to infer and to train, and what no other point beats."""
    charts = []
    for title, of in (
        ("to infer", lambda run: run.inference),
        ("to train", lambda run: total_training(run) or run.training),
    ):
        charts.append(_scatter(lines, title, of))
    text = (
        "Each point is a method at one sparsity, mean over seeds; operations by those of the dense "
        "network, for training as many epochs. " + _FORMULA + "Where a method reads gradients of "
        "pruned weights, those are counted. The line joins the points that no other beats in both."
    )
    return Figure("cost", "Accuracy against operations", text, tuple(charts)) if charts else None


def training_cost(lines: Lines) -> Figure | None:
    """Operations of each epoch of training, by those of a dense one."""
    charts = [
        Chart(
            zeros(sparsity),
            "epoch",
            "operations (dense = 1)",
            curves(lines, lines.first_seeds(sparsity), _by_epoch),
            y_range=(0.0, 1.0),
        )
        for sparsity in lines.sparsities
    ]
    charts = [chart for chart in charts if chart.series]
    text = "One seed of each. " + _FORMULA + "Gradients of pruned weights are in it."
    return Figure("epochcost", "Operations over epochs", text, tuple(charts)) if charts else None


def layer_cost(lines: Lines) -> Figure | None:
    """Operations of each layer's forward pass."""
    charts = []
    for sparsity in lines.sparsities:
        runs = [run for run in lines.first_seeds(sparsity) if run.trace is not None]
        if not runs or runs[0].trace is None:
            continue
        flops = runs[0].trace.layers.flops
        if any(run.trace is None or run.trace.layers.flops != flops for run in runs):
            continue  # of several networks, whose layers have nothing in common
        dense = [count / 1e6 for count in flops]
        own = curves(lines, runs, _forward)
        if not own:
            continue
        series = (Series("dense", list(range(1, len(dense) + 1)), dense, dashed=True), *own)
        label = "million operations"
        charts.append(Chart(zeros(sparsity), "layer, from the input", label, series, y_scale="log"))
    text = (
        "Of one image's forward pass, at the end; one seed of each. " + _FORMULA + "The broken "
        "line is the dense network's. A layer without weights is a gap."
    )
    return Figure("layercost", "Operations of each layer", text, tuple(charts)) if charts else None


def ledger(run: Run) -> Ledger | None:
    """The operations of a run's training; None where its trace does not have every epoch."""
    trace = run.trace
    if trace is None or len(trace.epochs) != run.record["epochs"] + 1:
        return None
    layers, weights = trace.layers, np.array(trace.layers.weights)
    return training_ledger(
        trace.worked[1:] / weights,
        np.array(layers.flops, dtype=float),
        total=layers.flops_total,
        images=layers.images,
        read=trace.read[1:] / weights,
    )


def total_training(run: Run) -> float | None:
    """All operations of training, by dense; the record's, and gradients of pruned weights.

    None where an earlier version's record has not counted these, and no trace has.
    """
    flops = run.record["flops"]
    if "train_growth" in flops:
        return run.training + flops["train_growth"] / flops["train_dense"]
    found = ledger(run)
    return None if found is None else run.training + float(found.growth.sum()) / found.dense


def _scatter(lines: Lines, title: str, of: Callable[[Run], float]) -> Chart:
    series, points = [], []
    for name in lines.named(sparse=False):
        groups = lines.seeds(name).values()
        x = [mean(of(run) for run in runs) for runs in groups]
        y = [mean(run.accuracy for run in runs) for runs in groups]
        series.append(Series(name, x, y, color=lines.colors[name], form="points"))
        points += list(zip(x, y, strict=True))
    best = [points[index] for index in front(points)]
    x, y = zip(*best, strict=True)
    series.insert(0, Series("not beaten", x, y))
    label = "operations (dense = 1)"
    return Chart(title, label, "test accuracy (%)", tuple(series), x_scale="log")


def _by_epoch(run: Run) -> Points | None:
    found = ledger(run)
    if found is None:
        return None
    each = found.layers.sum(axis=1) + found.others + found.growth
    return list(range(1, len(each) + 1)), (each * len(each) / found.dense).tolist()


def _forward(run: Run) -> Points | None:
    trace = to_the_end(run)
    if trace is None:
        return None
    layers = trace.layers
    flops = np.array(layers.flops) * trace.active[-1] / np.array(layers.weights) / 1e6
    return list(range(1, len(flops) + 1)), [f if f > 0 else float("nan") for f in flops.tolist()]
