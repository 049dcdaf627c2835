"""How accurate the networks are: against sparsity, over epochs, and how soon."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from statistics import mean
from typing import NamedTuple

from ...analysis.convergence import reached_at_each
from ..chart import Chart, Color, Figure, Mark, Series
from ..runs import Run
from .common import Lines, Points, averaged, curves, percent, zeros

_FEWEST_ROWS = 4


class Ranked(NamedTuple):
    """A method at one sparsity: mean test accuracy and its standard deviation, in percent."""

    name: str
    accuracy: float
    spread: float
    color: Color


def accuracy_by_sparsity(lines: Lines) -> Figure | None:
    """Test accuracy against the fraction of zeros, with the spread over seeds."""
    if not lines.sparsities:
        return None
    series = []
    for name in lines.named():
        x, y, spread = averaged(lines, name, lambda run: run.accuracy)
        points = [(s, a, h) for s, a, h in zip(x, y, spread, strict=True) if s]
        x, y, spread = map(list, zip(*points, strict=True))
        series.append(Series(name, x, y, spread, lines.colors[name], "both"))
    for name in lines.named(sparse=False):
        dense = [run.accuracy for run in lines.of(name) if not run.sparsity]
        if dense:
            at, level, color = lines.sparsities[:1], [mean(dense)], lines.colors[name]
            series.append(Series(name, at, level, color=color, dashed=True, level=True))
    chart = Chart(
        "",
        "zeros",
        "test accuracy (%)",
        tuple(series),
        x_scale="zeros",
        x_ticks=tuple(lines.sparsities),
        dodge=True,
    )
    text = (
        "Accuracy of the last epoch, mean over seeds; bars are one standard deviation (n − 1) up "
        "and down, none where there is one seed. Dense networks are broken lines."
    )
    return Figure("accuracy", "Accuracy against sparsity", text, (chart,))


def ranking(lines: Lines) -> Figure | None:
    """Lines in order of test accuracy, a panel for each sparsity that has several."""
    charts = [chart for s in lines.sparsities if (chart := _ranked(lines, s)) is not None]
    text = (
        "Accuracy of the last epoch, mean over seeds, the best on top; bars are one standard "
        "deviation (n − 1) to each side, none where there is one seed. The upright line is the "
        "dense network, where there is one."
    )
    return Figure("order", "Methods in order", text, tuple(charts)) if charts else None


def _ranked(lines: Lines, sparsity: float) -> Chart | None:
    found = []
    for name in lines.named():
        x, y, spread = averaged(lines, name, lambda run: run.accuracy)
        places = zip(x, y, spread, strict=True)
        found += [Ranked(name, a, h, lines.colors[name]) for s, a, h in places if s == sparsity]
    if len(found) < _FEWEST_ROWS:
        return None
    dense = [run for run in lines.runs if not run.sparsity]
    one = len({run.line for run in dense}) == 1  # of several, none is the one to compare with
    level = mean(run.accuracy for run in dense) if one else None
    return ranked(zeros(sparsity), found, level)


def ranked(title: str, found: Sequence[Ranked], dense: float | None) -> Chart:
    """A row a method, the most accurate on top, and the dense network's accuracy as a mark."""
    order = sorted(found, key=lambda one: -one.accuracy)
    series = [
        Series(one.name, [one.accuracy], [place], [one.spread], one.color, "points")
        for place, one in enumerate(order)
    ]
    return Chart(
        title,
        "test accuracy (%)",
        "place",
        tuple(series),
        marks=() if dense is None else (Mark(dense, "dense"),),
        rows=tuple(one.name for one in order),
    )


def accuracy_by_epoch(lines: Lines) -> Figure | None:
    """Accuracy of the network that is trained, epoch by epoch."""
    charts = []
    for sparsity in lines.sparsities:
        series = curves(lines, lines.first_seeds(sparsity), _history)
        if series:
            label = f"{_images(lines)} accuracy (%)"
            charts.append(Chart(zeros(sparsity), "epoch", label, series))
    text = (
        "Of the network as it was at the end of the epoch, dense or sparse; one seed of each. "
        "Where a method prunes at once, or goes back to earlier weights, the line breaks down."
    )
    return Figure("epochs", "Accuracy over epochs", text, tuple(charts)) if charts else None


def convergence(lines: Lines) -> Figure | None:
    """Epochs and seconds to an accuracy, for networks that have all their zeros."""
    charts = []
    label = f"{_images(lines)} accuracy (%)"
    for sparsity in lines.sparsities:
        runs = lines.first_seeds(sparsity)
        for unit, of in (("epochs", _epochs_to), ("seconds", _seconds_to)):
            series = curves(lines, runs, of, form="both")
            if not series:
                continue
            best = [series.x[-1] for series in series]
            ends = (max(0.0, min(best) - 5), max(best))
            title, upright = f"{zeros(sparsity)}: {unit}", f"{unit} until then"
            charts.append(Chart(title, label, upright, series, x_range=ends, y_range=(0, 1)))
    text = (
        "When a network with all the zeros asked for was first as accurate as the axis says, "
        "counted from the first epoch of the run; one seed of each. A run that is pruned after its "
        "last epoch, as by ART without fine-tuning, has no line. Seconds are those of the "
        "machine that it ran on, with evaluations, and comparable only where all ran alike."
    )
    return Figure("convergence", "Time to an accuracy", text, tuple(charts)) if charts else None


def _images(lines: Lines) -> str:
    names = {run.measured for run in lines.runs if not run.recorded}
    known = {"val_accuracy": "validation", "test_accuracy": "test", "train_accuracy": "training"}
    return known[names.pop()] if len(names) == 1 else "measured"


def _history(run: Run) -> Points | None:
    if run.recorded:
        return None
    return [m["epoch"] for m in run.metrics], percent(m[run.measured] for m in run.metrics)


def _epochs_to(run: Run) -> Points | None:
    return _reached(run, [m["epoch"] for m in run.metrics])


def _seconds_to(run: Run) -> Points | None:
    return _reached(run, list(accumulate(m["seconds"] for m in run.metrics)))


def _reached(run: Run, times: list[float]) -> Points | None:
    """(accuracies, times) of the epochs that ended with all zeros.

    None where none did: ART without fine-tuning prunes after its last epoch was measured.
    """
    final = run.record["sparsity"]["achieved"]
    pairs = zip(times, run.metrics, strict=True)
    sparse = [(t, 100 * m[run.measured]) for t, m in pairs if m["sparsity"] >= final - 1e-9]
    return reached_at_each(*zip(*sparse, strict=True)) if sparse else None
