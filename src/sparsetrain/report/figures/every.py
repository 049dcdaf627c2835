"""All figures, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..chart import Chart, Figure
from ..runs import Run
from .accuracy import accuracy_by_epoch, accuracy_by_sparsity, convergence, ranking
from .art import art_course, art_stop, art_strength
from .classes import class_by_epoch
from .common import Lines, lines_of
from .connections import (
    churn_by_epoch,
    exploration,
    overlap_with_final,
    sparsity_by_step,
    survival_by_epoch,
)
from .cost import cost_and_accuracy, layer_cost, training_cost
from .layers import dead_by_layer, kept_by_layer, layers_by_step
from .profiles import gradients_by_rank, sorted_magnitudes

_ALL = (
    accuracy_by_sparsity,
    ranking,
    cost_and_accuracy,
    art_course,
    art_strength,
    art_stop,
    sorted_magnitudes,
    overlap_with_final,
    class_by_epoch,
    sparsity_by_step,
    kept_by_layer,
    layers_by_step,
    exploration,
    churn_by_epoch,
    survival_by_epoch,
    dead_by_layer,
    gradients_by_rank,
    training_cost,
    layer_cost,
    accuracy_by_epoch,
    convergence,
)


_BY_RECORD = (accuracy_by_sparsity, ranking, cost_and_accuracy, art_stop)
_ALONE = "Runs that are known by their record alone are left out."
_SAVED = "Runs that are known by a sweep's saved file alone are left out."


def figures(runs: Sequence[Run]) -> list[Figure]:
    """Every figure that these runs have data for, with panels for each data set and network."""
    tasks, found = lines_of(runs), []
    for draw in _ALL:
        parts = [(lines, figure) for lines in tasks if (figure := draw(lines)) is not None]
        if parts:
            found.append(_joined(parts, _left_out(draw, runs)))
    return found


def _left_out(draw: Callable[[Lines], Figure | None], runs: Sequence[Run]) -> str:
    """A sentence where a figure needs what is not known of all runs; else nothing."""
    if draw in _BY_RECORD:
        return ""
    if draw is kept_by_layer:  # a sweep's file has the zeros of the whole network alone
        return _SAVED if any("per_layer" not in run.record["sparsity"] for run in runs) else ""
    return _ALONE if any(run.recorded for run in runs) else ""


def _joined(parts: Sequence[tuple[Lines, Figure]], told: str) -> Figure:
    """The same figure of several data sets and networks as one; what is told is added."""
    charts = [_titled(chart, lines.task) for lines, figure in parts for chart in figure.charts]
    more = [_titled(chart, lines.task) for lines, figure in parts for chart in figure.more]
    text = " ".join(part for part in (parts[0][1].text, told) if part)
    return replace(parts[0][1], text=text, charts=tuple(charts), more=tuple(more))


def _titled(chart: Chart, task: str) -> Chart:
    """With the data set and network before the title, where they are told."""
    return replace(chart, title=": ".join(part for part in (task, chart.title) if part))
