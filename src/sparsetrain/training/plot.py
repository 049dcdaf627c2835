"""The picture of a run: accuracy of the dense and the pruned network, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

_DENSE, _PRUNED, _INK, _FAINT = "#2563a8", "#d9541e", "#1f2933", "#6b7785"
_SHADES = {"dense": "#eef4fa", "regularize": "#fdf3e4", "finetune": "#fdeee8", "train": "#f5f7f9"}
_TITLES = {
    "dense": "dense training",
    "regularize": "regularising",
    "finetune": "fine-tuning",
    "train": "training",
}


def plot_history(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw accuracy over epochs, the phases shaded and named.

    Held-out accuracy where there is one, else the test set's, else the training set's. While ART
    regularises there are two networks, the one being trained and its pruned copy; before, only the
    dense one; after, only the pruned one.

    Args:
        metrics: the lines of metrics.jsonl.
        path: of the picture; its suffix (.png, .svg, .pdf) decides the format.
    """
    figure = Figure(figsize=(9, 4.6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    key, label = _measure(metrics)
    _shade(axes, metrics)
    dense, pruned = _curves(metrics, key)
    _curve(axes, dense, _DENSE, "dense network")
    _curve(axes, pruned, _PRUNED, _pruned_label(metrics))
    _mark_ends(axes, dense, pruned, dense_epochs=sum(m["phase"] == "dense" for m in metrics))
    _dress(axes, metrics, f"{label} accuracy (%)", [y for _, y in dense + pruned])
    figure.savefig(path)


def _measure(metrics: Sequence[dict[str, Any]]) -> tuple[str, str]:
    for key, label in (("val_accuracy", "validation"), ("test_accuracy", "test")):
        if key in metrics[0]:
            return key, label
    return "train_accuracy", "training"


def _curves(
    metrics: Sequence[dict[str, Any]], key: str
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """(epoch, percent) of the dense network and of the pruned one."""
    of_copy = "pruned_val_accuracy" if key == "val_accuracy" else "pruned_train_accuracy"
    dense = [(m["epoch"], 100 * m[key]) for m in metrics if m["sparsity"] == 0]
    pruned = [(m["epoch"], 100 * m[of_copy]) for m in metrics if of_copy in m]
    pruned += [(m["epoch"], 100 * m[key]) for m in metrics if m["sparsity"] > 0]
    return dense, pruned


def _pruned_label(metrics: Sequence[dict[str, Any]]) -> str:
    sparsity = max(m["sparsity"] for m in metrics)
    return f"pruned network, {100 * sparsity:.3g} % zeros"


def _curve(axes: Axes, points: list[tuple[int, float]], color: str, name: str) -> None:
    if not points:
        return
    epochs, values = zip(*points, strict=True)
    marker = "o" if len(points) < 60 else None
    axes.plot(epochs, values, color=color, linewidth=2, marker=marker, markersize=3.2, label=name)


def _mark_ends(
    axes: Axes,
    dense: list[tuple[int, float]],
    pruned: list[tuple[int, float]],
    *,
    dense_epochs: int,
) -> None:
    """Write what to compare: the dense network before regularising, the pruned at the end."""
    if dense:
        reached = dense[dense_epochs - 1]
        _mark(axes, reached, _DENSE, offset=(-2, -15), align="right")
        if pruned:
            axes.axhline(reached[1], color=_DENSE, linewidth=1, linestyle=":", zorder=1)
    if pruned:
        _mark(axes, pruned[-1], _PRUNED, offset=(-2, -15), align="right")


def _mark(
    axes: Axes, point: tuple[int, float], color: str, *, offset: tuple[int, int], align: str
) -> None:
    axes.annotate(
        f"{point[1]:.1f}",
        point,
        xytext=offset,
        textcoords="offset points",
        ha=align,
        path_effects=[withStroke(linewidth=3, foreground="white")],
        color=color,
        fontsize=10,
        fontweight="bold",
    )


def _shade(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    for phase, lines in groupby(metrics, key=lambda m: m["phase"]):
        epochs = [m["epoch"] for m in lines]
        left, right = epochs[0] - 0.5, epochs[-1] + 0.5
        axes.axvspan(left, right, color=_SHADES.get(phase, "#ffffff"), linewidth=0, zorder=0)
        if left > 0.5:
            axes.axvline(left, color=_FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        axes.text(
            (left + right) / 2,
            1.015,
            _TITLES.get(phase, str(phase)),
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            color=_INK,
            fontsize=10.5,
        )


def _dress(axes: Axes, metrics: Sequence[dict[str, Any]], ylabel: str, values: list[float]) -> None:
    axes.set_xlim(0.5, metrics[-1]["epoch"] + 0.5)
    low, high = min(values), max(values)
    room = max(1.0, 0.06 * (high - low))
    axes.set_ylim(max(0.0, low - room), min(101.5, high + room))
    axes.set_xlabel("epoch", color=_INK)
    axes.set_ylabel(ylabel, color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="white", linewidth=1.2)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_FAINT, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.legend(loc="lower right", frameon=True, facecolor="white", edgecolor="none", fontsize=10)
