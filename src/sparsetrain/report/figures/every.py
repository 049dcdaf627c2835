"""All figures, in the order of the page."""

from __future__ import annotations

from collections.abc import Sequence
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


def figures(runs: Sequence[Run]) -> list[Figure]:
    """Every figure that these runs have data for, with panels for each data set and network."""
    tasks = lines_of(runs)
    drawn = [[(lines, draw(lines)) for lines in tasks] for draw in _ALL]
    found = [[(lines, figure) for lines, figure in parts if figure] for parts in drawn]
    return [_joined(parts) for parts in found if parts]


def _joined(parts: Sequence[tuple[Lines, Figure]]) -> Figure:
    """The same figure of several data sets and networks as one."""
    charts = [_titled(chart, lines.task) for lines, figure in parts for chart in figure.charts]
    more = [_titled(chart, lines.task) for lines, figure in parts for chart in figure.more]
    return replace(parts[0][1], charts=tuple(charts), more=tuple(more))


def _titled(chart: Chart, task: str) -> Chart:
    """With the data set and network before the title, where they are told."""
    return replace(chart, title=": ".join(part for part in (task, chart.title) if part))
