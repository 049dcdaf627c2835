"""Masks that move: sparsity, overlap with the end, exploration, churn and survival."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...analysis.trace import Trace, shared
from ..chart import Chart, Figure, Form
from ..runs import Run
from .common import Lines, Points, curves, percent, to_the_end, zeros


def sparsity_by_step(lines: Lines) -> Figure | None:
    """The fraction of zeros over optimizer steps."""
    return _figure(
        lines,
        lambda trace: (trace.steps.tolist(), percent(trace.sparsity)),
        key="sparsity",
        title="Sparsity over steps",
        x="optimizer step",
        y="zeros (%)",
        text="Over all prunable weights, at the end of each epoch; one seed of each.",
    )


def overlap_with_final(lines: Lines) -> Figure | None:
    """How much of the final mask each epoch's largest weights already are."""
    return _figure(
        lines,
        _overlap,
        key="overlap",
        title="Overlap with the final mask",
        x="epoch",
        y="overlap (%)",
        text=(
            "At each epoch the largest active weights are taken, as many as are left in the end; "
            "shown is how many of them the final mask has. While a method explores, the line is "
            "low; once it exploits what it has found, it is near 100. Two random choices overlap "
            "by the share of weights that is kept. For a network of more than 262,144 weights, of "
            "a random sample of so many."
        ),
    )


def exploration(lines: Lines) -> Figure | None:
    """The share of weights that were ever active."""
    return _figure(
        lines,
        lambda trace: (trace.steps.tolist(), percent(trace.exploration)),
        key="exploration",
        title="In-time exploration",
        x="optimizer step",
        y="R_s (%)",
        text=(
            "The share of all weights that have been active at some time, over every mask update "
            "(R_s of the ITOP paper). Methods that begin dense have seen all weights."
        ),
    )


def churn_by_epoch(lines: Lines) -> Figure | None:
    """Connections dropped in each epoch."""
    return _figure(
        lines,
        _churn,
        key="churn",
        title="Churn",
        x="epoch",
        y="dropped (%)",
        text=(
            "Connections dropped within an epoch, over all its mask updates, by those active at "
            "its start; epochs in which none was dropped have no point."
        ),
        form="both",
    )


def survival_by_epoch(lines: Lines) -> Figure | None:
    """How many of each epoch's connections are still there in the end."""
    return _figure(
        lines,
        _survival,
        key="survival",
        title="Survival",
        x="epoch",
        y="still there in the end (%)",
        text=(
            "Of the connections active at the end of an epoch, the share that the final mask has. "
            "A method that only prunes rises with its sparsity; one that regrows shows how early "
            "its final connections were found."
        ),
    )


def _figure(
    lines: Lines,
    of: Callable[[Trace], Points | None],
    *,
    key: str,
    title: str,
    x: str,
    y: str,
    text: str,
    form: Form = "line",
) -> Figure | None:
    """A panel for each sparsity, a curve for each line."""

    def traced(run: Run) -> Points | None:
        trace = to_the_end(run)
        return None if trace is None or len(trace.epochs) < 2 else of(trace)

    panels = [(s, curves(lines, lines.first_seeds(s), traced, form)) for s in lines.sparsities]
    charts = [Chart(zeros(s), x, y, series, y_range=(0, 100)) for s, series in panels]
    charts = [chart for chart in charts if chart.series]
    return Figure(key, title, text, tuple(charts)) if charts else None


def _overlap(trace: Trace) -> Points | None:
    return _shares(trace, trace.tops, of_final=True)


def _survival(trace: Trace) -> Points | None:
    return _shares(trace, trace.masks, of_final=False)


def _shares(trace: Trace, sets: tuple[np.ndarray | None, ...], *, of_final: bool) -> Points | None:
    """What each epoch's set and the final mask share, by the final mask or by the set."""
    final = trace.masks[-1]
    if final is None:
        return None
    pairs = [(e, bits) for e, bits in zip(trace.epochs, sets, strict=True) if bits is not None]
    found = [shared(bits, final) if of_final else shared(final, bits) for _, bits in pairs]
    return [int(epoch) for epoch, _ in pairs], percent(found)


def _churn(trace: Trace) -> Points | None:
    dropped = trace.dropped.sum(axis=1)
    if not dropped.any():
        return None
    before = trace.active.sum(axis=1)[:-1]
    moved = np.flatnonzero(dropped[1:])
    shares = dropped[1:][moved] / np.maximum(before[moved], 1)
    return trace.epochs[1:][moved].tolist(), percent(shares)
