"""What a picture shows, as plain data: drawn by `svg`, and given out as CSV by `data_csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Scale: TypeAlias = Literal["linear", "log", "zeros"]
"""`zeros` is for fractions of zeros: 0.9, 0.99 and 0.999 stand at equal distances."""

Color: TypeAlias = int | float | None
"""An int is a line's own colour, a float in [0, 1] a place between the first and the last of an
order, None the colour of the text."""


Form: TypeAlias = Literal["line", "points", "both"]


@dataclass(frozen=True)
class Series:
    """One line or cloud of points.

    Attributes:
        name: in the legend; a series without one is not in it.
        x: of its points.
        y: of its points.
        spread: half the length of each point's error bar; empty for none.
        color: as `Color`.
        form: what is drawn.
        dashed: instead of a whole line.
        hollow: indices of the points that are drawn as rings.
        level: whether its only y is drawn over the whole width, wherever on the axis its x is.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] = ()
    color: Color = None
    form: Form = "line"
    dashed: bool = False
    hollow: tuple[int, ...] = ()
    level: bool = False


@dataclass(frozen=True)
class Mark:
    """An upright line at a place that matters, with a word."""

    x: float
    text: str


@dataclass(frozen=True)
class Chart:
    """One panel.

    Attributes:
        title: what tells it from its neighbours.
        x_label: with the unit.
        y_label: with the unit.
        series: in the order of the legend.
        x_scale: of the axis.
        y_scale: of the axis.
        x_ticks: the only places to write numbers at; None chooses.
        x_range: ends of the axis; None takes those of the points.
        y_range: likewise, where they are further apart.
        marks: places that matter.
        dodge: whether series stand a little beside each other, so that error bars are seen.
        rows: names at y = 0, 1, ..., from the top, in place of a y axis and, where they fit, a
            legend; error bars then lie along x, and the panel is as high as they need.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    x_ticks: tuple[float, ...] | None = None
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    marks: tuple[Mark, ...] = ()
    dodge: bool = False
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """Panels that belong together, under one heading.

    Attributes:
        key: of the place on the page and of the file with its data.
        title: the heading.
        text: what is to be seen, and how it is counted; a paragraph.
        charts: at least one.
    """

    key: str
    title: str
    text: str
    charts: tuple[Chart, ...]


def shared_legend(figure: Figure) -> tuple[Series, ...] | None:
    """One legend for all panels where a name means the same in each; else None."""
    found: dict[str, Series] = {}
    for chart in figure.charts:
        for series in () if chart.rows else chart.series:
            same = found.setdefault(series.name, series)
            if (same.color, same.dashed) != (series.color, series.dashed):
                return None
    return tuple(found.values())


def data_csv(figure: Figure) -> str:
    """Every number that a figure shows, one a row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("panel", "line", "x", "y", "spread", "x is", "y is"))
    for chart in figure.charts:
        for series in chart.series:
            spread = series.spread or ("",) * len(series.x)
            for x, y, half in zip(series.x, series.y, spread, strict=True):
                labels = (chart.x_label, chart.y_label)
                writer.writerow((chart.title, series.name, number(x), number(y), half, *labels))
    return out.getvalue()


def number(value: float) -> str:
    """Seven digits: what a picture needs, and enough to draw it again."""
    return f"{value:.7g}"
