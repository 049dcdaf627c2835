"""What a picture shows, as plain data: drawn by `svg`, and given out as CSV by `data_csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
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
        name: in the legend, beside a point of its own and in the data.
        x: of its points.
        y: of its points.
        spread: half the length of each point's error bar; empty for none.
        color: as `Color`.
        form: what is drawn.
        dashed: instead of a whole line.
        hollow: indices of the points that are drawn as rings.
        listed: whether the legend has it.
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
    listed: bool = True
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
        more: panels there is no room for, which are in the data alone.
    """

    key: str
    title: str
    text: str
    charts: tuple[Chart, ...]
    more: tuple[Chart, ...] = ()


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
    """Every number that a figure shows or has no room for, one a row.

    `drawn as` tells of what is no plain point: `ring`, `level` (over the whole width: it has no x)
    or `mark` (upright: it has no y).
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("panel", "line", "x", "y", "spread", "x is", "y is", "drawn as"))
    for chart in (*figure.charts, *figure.more):
        labels = (chart.x_label, chart.y_label)
        for line, x, y, spread, form in (*_points(chart.series), *_marks(chart.marks)):
            writer.writerow((chart.title, line, x, y, spread, *labels, form))
    return out.getvalue()


def _points(series: Sequence[Series]) -> Iterator[tuple[str, str, str, float | str, str]]:
    for one in series:
        spread = one.spread or ("",) * len(one.x)
        for place, (x, y, half) in enumerate(zip(one.x, one.y, spread, strict=True)):
            form = "level" if one.level else "ring" if place in one.hollow else "point"
            yield one.name, "" if one.level else number(x), number(y), half, form


def _marks(marks: Sequence[Mark]) -> Iterator[tuple[str, str, str, float | str, str]]:
    for mark in marks:
        yield mark.text, number(mark.x), "", "", "mark"


def number(value: float) -> str:
    """Seven digits: what a picture needs, and enough to draw it again."""
    return f"{value:.7g}"
