"""The study of pruning plasticity: what pruning at an epoch costs, once training has gone on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...training.progress import counted
from ..chart import Chart, Figure, Series

_REGROWTH = {"none": "no regrowth", "gradient": "regrowth by gradient", "random": "random regrowth"}
_STRUCTURES = {
    "global": "all layers together",
    "layer": "each layer alike",
    "channel": "whole filters",
}
_HOW = (
    "All layers together: the smallest weights of the network; each layer alike: of each layer; "
    "whole filters: those of all layers. Regrowth exchanges {share:g} % of the weights left for "
    "pruned ones, by the dense gradient or at random. Panels of one way to prune share their "
    "axes. Accuracy on held-out images, one seed."
)


def plasticity_figures(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """The curves of a study: a panel for each way to prune and to regrow, a line a fraction.

    Args:
        rows: of `curves.csv`, numbers as numbers.
    Returns:
        Plasticity; and the final accuracy against the dense network's, where it was measured.
    """
    how = _HOW.format(share=100 * rows[0]["share"])
    more = counted(round(rows[0]["recover"]), "epoch")
    found = [
        Figure(
            "plasticity",
            "Pruning plasticity",
            f"Accuracy after pruning at an epoch and training for {more} at the frozen learning "
            f"rate of the step before, less the accuracy before pruning. {how}",
            _charts(rows, "plasticity", "change of accuracy (points)", "no change"),
        )
    ]
    if all("gap" in row for row in rows):
        found.append(
            Figure(
                "plasticity-end",
                "Final accuracy by the epoch of pruning",
                "Accuracy after pruning at an epoch and training on to the end of the schedule, "
                f"less that of the dense network in the end. {how}",
                _charts(rows, "gap", "accuracy less dense (points)", "dense network"),
            )
        )
    return found


def study_figures(studies: Mapping[Path, Sequence[Mapping[str, Any]]]) -> list[Figure]:
    """The figures of studies; of several, each with its folder's name.

    Args:
        studies: folder -> rows.
    """
    found = []
    for place, (folder, rows) in enumerate(studies.items(), 1):
        name = f" ({folder.resolve().name})" if len(studies) > 1 else ""
        for figure in plasticity_figures(rows):
            key = figure.key if place == 1 else f"{figure.key}-{place}"
            found.append(replace(figure, key=key, title=figure.title + name))
    return found


def columns(rows: Sequence[Mapping[str, Any]]) -> int:
    """Panels beside each other: a study's ways to regrow; of one that has one, those to prune."""
    regrows = len({row["regrow"] for row in rows})
    return regrows if regrows > 1 else len({row["structure"] for row in rows})


def _charts(
    rows: Sequence[Mapping[str, Any]], of: str, label: str, level: str
) -> tuple[Chart, ...]:
    fractions = sorted({row["fraction"] for row in rows})
    colors = {f: i / max(len(fractions) - 1, 1) for i, f in enumerate(fractions)}
    epochs = sorted({row["epoch"] for row in rows})
    zero = Series(level, epochs[:1], (0.0,), dashed=True, level=True)
    charts = []
    for structure in dict.fromkeys(row["structure"] for row in rows):
        own = [row for row in rows if row["structure"] == structure]
        values = [0.0, *(100 * row[of] for row in own)]
        room = 0.06 * (max(values) - min(values)) or 1.0
        for regrow in dict.fromkeys(row["regrow"] for row in own):
            here = [row for row in own if row["regrow"] == regrow]
            lines = [_line(here, f, of, colors[f]) for f in fractions]
            charts.append(
                Chart(
                    f"{_STRUCTURES.get(structure, structure)}, {_REGROWTH.get(regrow, regrow)}",
                    "epoch of pruning",
                    label,
                    (zero, *(s for s in lines if s.x)),
                    x_ticks=tuple(epochs),
                    y_range=(min(values) - room, max(values) + room),
                )
            )
    return tuple(charts)


def _line(rows: Sequence[Mapping[str, Any]], fraction: float, of: str, color: float) -> Series:
    points = sorted((row["epoch"], 100 * row[of]) for row in rows if row["fraction"] == fraction)
    name = f"{100 * fraction:.6g} % pruned"
    return Series(name, [e for e, _ in points], [y for _, y in points], color=color, form="both")
