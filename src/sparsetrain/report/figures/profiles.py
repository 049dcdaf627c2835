"""Magnitudes against relative rank: of weights, of the regulariser's gradient, of the loss's."""

from __future__ import annotations

import numpy as np

from ...analysis.trace import Trace
from ..chart import Chart, Figure, Mark, Series
from ..runs import Run
from .common import MOST_PANELS, Lines, Points, curves, to_the_end, zeros

_EPOCHS = 5
_TOP = 0.02  # of the kept weights: the largest would leave no room for the others
_PRUNED = -0.1  # where the pruned ones stand beside them


def sorted_magnitudes(lines: Lines) -> Figure | None:
    """Weights and the regulariser's gradient by rank, at several epochs of regularising."""
    charts = []
    for run in _regularized(lines):
        trace = run.trace
        assert trace is not None
        rows = _spread_out(np.flatnonzero(_known(trace.regularizer_profile)))
        left = max(0.0, 1 - 3.5 * (1 - run.sparsity))
        for which, values in (
            ("|w|", trace.weight_profile),
            ("|dR/dw|", trace.regularizer_profile),
        ):
            charts.append(
                Chart(
                    f"{run.line}, {zeros(run.sparsity)}: {which}",
                    "relative rank of the weight",
                    which,
                    _by_epoch(trace, rows, values, top=1 - _TOP * (1 - run.sparsity)),
                    marks=(Mark(run.sparsity, "border"),),
                    x_range=(left, 1.0),
                    y_range=None if which == "|w|" else (0.0, 1.0),
                )
            )
    text = (
        "Weights from the smallest (0) to the largest (1), at epochs from the start of the run to "
        "the end of regularising, and in the panel after it the gradient of the regulariser at "
        "strength 1 in the same order. Left of the border lies what pruning takes. L1 draws all "
        "weights alike, L2 the large ones most; HyperSparse draws what is to go, and lets the rest "
        "be. The lowest sparsity, one seed, as much of the rank as the source's figure shows; of a "
        "network of more than 16,384 weights, a random sample of so many."
    )
    shown, more = tuple(charts[:MOST_PANELS]), tuple(charts[MOST_PANELS:])
    return Figure("magnitudes", "Magnitudes by rank", text, shown, more) if charts else None


def gradients_by_rank(lines: Lines) -> Figure | None:
    """The loss's gradient of pruned weights, and of the others by rank, at the end of training."""
    charts = []
    for sparsity in lines.sparsities:
        series = curves(lines, lines.first_seeds(sparsity), _last_gradient, form="both")
        charts.append(
            Chart(
                zeros(sparsity),
                "relative rank among kept weights",
                "mean |gradient|",
                series,
                y_scale="log",
                x_ticks=(0, 0.25, 0.5, 0.75, 1),
                x_range=(2 * _PRUNED, 1.0),
                marks=(Mark(_PRUNED, "pruned"),),
            )
        )
    charts = [chart for chart in charts if chart.series]
    text = (
        "The loss's gradient of the last batch of training: on the left the mean of all pruned "
        "weights, which decides what RigL and GraNet grow, then of the kept ones from the smallest "
        "to the largest, a tenth of them each. One seed of each; without the regulariser's part. "
        "Of a network of more than 262,144 weights, a random sample of so many; of more than "
        "16,384 kept ones, so many of them. Runs of earlier versions kept a sample in which some "
        "of the smallest are not told from pruned ones: these have no point."
    )
    return Figure("gradients", "Gradients by rank", text, tuple(charts)) if charts else None


def _regularized(lines: Lines) -> list[Run]:
    runs = [run for run in lines.first_seeds() if run.trace is not None]
    runs = [run for run in runs if run.trace and _known(run.trace.regularizer_profile).any()]
    lowest: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.sparsity):
        lowest.setdefault(run.line, run)
    return list(lowest.values())


def _known(profile: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(profile).all(axis=1))


def _spread_out(rows: np.ndarray) -> np.ndarray:
    """A few of the rows, evenly, the first and the last among them."""
    places = np.linspace(0, len(rows) - 1, min(_EPOCHS, len(rows)))
    return rows[np.unique(places.round().astype(int))]


def _by_epoch(
    trace: Trace, rows: np.ndarray, values: np.ndarray, *, top: float
) -> tuple[Series, ...]:
    ranks = np.array(trace.layers.ranks)
    ranks = ranks if values.shape[1] == len(ranks) else (ranks[:-1] + ranks[1:]) / 2
    shown = ranks <= top
    return tuple(
        Series(
            f"epoch {trace.epochs[row]}",
            ranks[shown].tolist(),
            values[row][shown].tolist(),
            color=float(place / max(len(rows) - 1, 1)),
        )
        for place, row in enumerate(rows)
    )


def _last_gradient(run: Run) -> Points | None:
    """Means of the pruned weights, at -0.1, and of each tenth of the kept ones."""
    trace = to_the_end(run)
    if trace is None:
        return None
    kept = trace.kept_gradient[-1].tolist()
    places = [_PRUNED, *((place + 0.5) / len(kept) for place in range(len(kept)))]
    means = [float(trace.pruned_gradient[-1]), *kept]
    found = [(x, y) for x, y in zip(places, means, strict=True) if y > 0]  # NaN is not
    return [x for x, _ in found], [y for _, y in found]
