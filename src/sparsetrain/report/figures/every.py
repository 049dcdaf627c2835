"""All figures, in the order of the page."""

from __future__ import annotations

from collections.abc import Sequence

from ..chart import Figure
from ..runs import Run
from .accuracy import accuracy_by_epoch, accuracy_by_sparsity, convergence, ranking
from .art import art_course, art_stop, art_strength
from .classes import class_by_epoch
from .common import lines_of
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
    """Every figure that these runs have data for."""
    lines = lines_of(runs)
    return [figure for draw in _ALL if (figure := draw(lines)) is not None]
