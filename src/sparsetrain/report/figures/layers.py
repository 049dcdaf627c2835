"""Layer by layer: what is kept, how it moves, what is dead."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...analysis.units import dead_units
from ...training.folder import RunFolder
from ..chart import Chart, Figure, Series
from ..runs import Run
from .common import MOST_PANELS, Lines, Points, curves, percent, zeros

_log = logging.getLogger(__name__)

_FLOOR = 1e-6  # of a log scale, where a layer keeps nothing


def kept_by_layer(lines: Lines) -> Figure | None:
    """The share of weights that each layer keeps."""
    panels = [(s, curves(lines, lines.first_seeds(s), _kept)) for s in lines.sparsities]
    charts = [
        Chart(zeros(s), "layer, from the input", "kept weights (%)", series, y_scale="log")
        for s, series in panels
        if series
    ]
    text = (
        "At the end, on a log scale; one seed of each. A layer that keeps nothing is a gap, one "
        f"between two gaps a dot. The layers: {_layer_names(lines)}."
    )
    return Figure("layers", "What each layer keeps", text, tuple(charts)) if charts else None


def layers_by_step(lines: Lines) -> Figure | None:
    """How each layer's sparsity moves."""
    runs = [run for run in lines.first_seeds() if run.trace is not None and _moves(run)]
    highest = {run.line: run for run in sorted(runs, key=lambda run: run.sparsity)}
    charts = tuple(_moving(run) for run in highest.values())
    text = (
        "The zeros of each layer at the end of each epoch, from the input (first) to the "
        "classifier (last); the highest sparsity of each method, one seed, where masks move."
    )
    shown, more = charts[:MOST_PANELS], charts[MOST_PANELS:]
    title = "Sparsity of the layers over steps"
    return Figure("moving", title, text, shown, more) if charts else None


def dead_by_layer(lines: Lines) -> Figure | None:
    """Units that no weight reaches, and inputs that no weight reads."""
    charts = []
    for sparsity in lines.sparsities:
        runs = lines.first_seeds(sparsity)
        dead = {run.path: found for run in runs if (found := _dead(run))}
        for place, what in enumerate(("dead units", "unread inputs")):
            title = f"{zeros(sparsity)}: {what}"
            points = {path: both[place] for path, both in dead.items()}
            series = curves(lines, runs, lambda run, points=points: points.get(run.path))
            charts.append(
                Chart(title, "layer, from the input", f"{what} (%)", series, y_range=(0, 5))
            )
    charts = [chart for chart in charts if chart.series]
    text = (
        "Dead: an output channel or neuron whose weights are all zero, so that it says the same of "
        "every image. Unread: an input that all weights of the layer pass over. One seed of each. "
        "A residual connection may still carry what a dead unit does not."
    )
    return Figure("dead", "Dead units", text, tuple(charts)) if charts else None


def _kept(run: Run) -> Points | None:
    layers = _layers(run)
    if layers is None:
        return None
    shares = [100 * (1 - s) for s in layers.values()]
    return list(range(1, len(shares) + 1)), [s if s > _FLOOR else float("nan") for s in shares]


def _layers(run: Run) -> Mapping[str, float] | None:
    """Layer -> its zeros in the end; None where a sweep's file has kept those of the whole."""
    return run.record["sparsity"].get("per_layer")


def _layer_names(lines: Lines) -> str:
    of_runs = [list(layers) for run in lines.runs if (layers := _layers(run)) is not None]
    names = of_runs[-1] if of_runs else []
    if lines.task or any(own != names for own in of_runs):
        return "those of each run's network, in its order"
    shown = [f"{i} {name.removesuffix('.weight')}" for i, name in enumerate(names, 1)]
    return ", ".join(shown if len(shown) <= 24 else [*shown[:12], "…", *shown[-4:]])


def _moves(run: Run) -> bool:
    return run.trace is not None and bool((np.ptp(run.trace.active, axis=0) > 0).any())


def _moving(run: Run) -> Chart:
    trace = run.trace
    assert trace is not None
    names, rows = trace.layers.names, trace.layer_sparsity
    last = max(len(names) - 1, 1)
    # The legend has the first, the last and some between; the others are told by their colour.
    listed = set(np.linspace(0, last, 5).round().astype(int).tolist())
    series = tuple(
        Series(
            name.removesuffix(".weight"),
            trace.steps.tolist(),
            percent(rows[:, index]),
            color=float(index / last),
            listed=index in listed,
        )
        for index, name in enumerate(names)
    )
    title = f"{run.line}, {zeros(run.sparsity)}"
    return Chart(title, "optimizer step", "zeros (%)", series, y_range=(0, 100))


def _dead(run: Run) -> tuple[Points, Points] | None:
    """(dead units, unread inputs) in percent by layer, from the run's weights."""
    weights = _weights(run)
    if weights is None:
        return None
    names = list(run.record["sparsity"]["per_layer"])
    found = dead_units({name: weights[name] != 0 for name in names if name in weights}).values()
    layers = list(range(1, len(found) + 1))
    return (
        (layers, [100 * layer.outputs / layer.units for layer in found]),
        (layers, [100 * layer.unread / layer.inputs for layer in found]),
    )


def _weights(run: Run) -> dict[str, Tensor] | None:
    """None where there are none; where they cannot be read, that is told, too."""
    file = RunFolder(run.path).weights
    if not file.exists():
        return None
    try:
        return load_file(file)
    except (OSError, SafetensorError):  # cut short; or Git LFS has not fetched it
        _log.warning("cannot read %s; the run's dead units are left out.", file)
        return None
