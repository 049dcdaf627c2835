"""A panel as inline SVG: lines, points, axes; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape

from . import axis
from .axis import Axis
from .chart import Chart, Color, Mark, Series
from .names import shortened

WIDTH, HEIGHT = 360, 264
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 30, 42
CHARACTER = 6.3  # a digit's width at the font size of the axes, generously
_ROW = 17  # height of a row
_COLORS = 10
_MOST_NOTES = 400  # points with a tooltip; a longer line has none
_RAMP = ("#7b4fb0", "#3f76bf", "#2a9d8f", "#7fa82e", "#d98b2b", "#c8503c")


@dataclass(frozen=True)
class _Frame:
    """Where the axes stand."""

    left: float
    base: float

    def holds(self, point: tuple[float, float]) -> bool:
        """Whether a point lies between the axes' ends, or on them."""
        x, y = point
        return self.left - 1 <= x <= WIDTH - _RIGHT + 1 and _TOP - 1 <= y <= self.base + 1


def height(chart: Chart) -> int:
    """Of the panel, where `WIDTH` is its width."""
    return _TOP + _ROW * len(chart.rows) + _BOTTOM if chart.rows else HEIGHT


def draw(chart: Chart) -> str:
    """The panel as an `<svg>` element without a fixed size."""
    frame = _frame(chart)
    across = _across(chart, frame)
    upright = _upright(chart, frame)
    points = sum(len(series.x) for series in chart.series)
    moved = [s for s in chart.series if chart.dodge and not s.level]
    parts = [
        *(_names(chart, upright, frame) if chart.rows else _y_axis(chart, upright, frame)),
        *_x_axis(chart, across, frame),
        *(part for mark in chart.marks for part in _mark(mark, across, frame)),
        *(
            part
            for series in chart.series
            for part in _series(
                series,
                _beside(across, moved.index(series), len(moved)) if series in moved else across,
                upright,
                frame,
                flat=bool(chart.rows),
                noted=points <= _MOST_NOTES,
            )
        ),
    ]
    label = escape(f"{chart.title}: {chart.y_label} against {chart.x_label}")
    return (
        f'<svg viewBox="0 0 {WIDTH} {height(chart)}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )


def swatch(series: Series) -> str:
    """What stands before a series' name in the legend."""
    x = 11
    parts = []
    if series.form != "points":
        parts.append(f'<path d="M0 6H22" {_stroke(series.color, series.dashed)}/>')
    if series.form != "line":
        parts.append(_shape(series.color, x, 6, _fill(series.color)) + "/>")
    return f'<svg class="swatch" viewBox="0 0 22 12" aria-hidden="true">{"".join(parts)}</svg>'


def _beside(across: Axis, place: int, of: int) -> Axis:
    """The axis for one of several series, moved by up to eight units."""
    shift = 16 * (place / (of - 1) - 0.5) if of > 1 else 0.0
    return replace(across, start=across.start + shift, stop=across.stop + shift)


def _frame(chart: Chart) -> _Frame:
    if not chart.rows:
        return _Frame(_LEFT, HEIGHT - _BOTTOM)
    longest = max(map(len, shortened(chart.rows)))
    return _Frame(12 + CHARACTER * longest, height(chart) - _BOTTOM)


def _across(chart: Chart, frame: _Frame) -> Axis:
    values = [x for series in chart.series for x in series.x]
    if chart.rows:
        bars = [(s, half) for s in chart.series for half in s.spread]
        values += [s.x[0] + sign * half for s, half in bars for sign in (-1, 1)]
    if chart.x_range is not None:
        values = [x for x in values if chart.x_range[0] <= x <= chart.x_range[1]]
    values += [mark.x for mark in chart.marks]
    return axis.fitted(
        values, chart.x_scale, start=frame.left, stop=WIDTH - _RIGHT, wanted=chart.x_range
    )


def _upright(chart: Chart, frame: _Frame) -> Axis:
    if chart.rows:
        return Axis("linear", -0.5, len(chart.rows) - 0.5, _TOP, frame.base)
    low, high = chart.x_range or (-math.inf, math.inf)
    values = []
    for series in chart.series:
        spread = series.spread or (0.0,) * len(series.x)
        for x, y, half in zip(series.x, series.y, spread, strict=True):
            if low <= x <= high:
                values += [y, y - half, y + half] if half else [y]
    return axis.fitted(
        values, chart.y_scale, start=frame.base, stop=_TOP, wanted=chart.y_range, room=0.06
    )


def _names(chart: Chart, upright: Axis, frame: _Frame) -> Iterator[str]:
    for place, name in enumerate(shortened(chart.rows)):
        y = upright.place(place)
        yield f'<path class="grid" d="M{frame.left} {y:.1f}H{WIDTH - _RIGHT}"/>'
        text = escape(name)
        yield f'<text class="tick end" x="{frame.left - 6:.1f}" y="{y + 3.6:.1f}">{text}</text>'


def _y_axis(chart: Chart, upright: Axis, frame: _Frame) -> Iterator[str]:
    yield f'<text class="label" x="2" y="12">{escape(chart.y_label)}</text>'
    for value in axis.ticks(upright):
        y = upright.place(value)
        if not _TOP - 0.5 <= y <= frame.base + 0.5:
            continue
        yield f'<path class="grid" d="M{frame.left} {y:.1f}H{WIDTH - _RIGHT}"/>'
        text = axis.written(value, chart.y_scale)
        yield f'<text class="tick end" x="{frame.left - 5}" y="{y + 3.6:.1f}">{text}</text>'


def _x_axis(chart: Chart, across: Axis, frame: _Frame) -> Iterator[str]:
    base = frame.base
    yield f'<path class="axis" d="M{frame.left} {base}H{WIDTH - _RIGHT}"/>'
    whole = all(float(x).is_integer() for series in chart.series for x in series.x)
    values = chart.x_ticks if chart.x_ticks is not None else axis.ticks(across, whole=whole)
    texts = [axis.written(value, chart.x_scale) for value in values]
    places = [across.place(value) for value in values]
    widths = [CHARACTER * len(text) for text in texts]
    for index in axis.thinned(places, widths, ends=(0, WIDTH)):
        x = f"{places[index]:.1f}"
        yield f'<path class="axis" d="M{x} {base}v4"/>'
        yield f'<text class="tick middle" x="{x}" y="{base + 16}">{texts[index]}</text>'
    middle = (frame.left + WIDTH - _RIGHT) / 2
    text = escape(chart.x_label)
    yield f'<text class="label middle" x="{middle:.0f}" y="{base + 36}">{text}</text>'


def _mark(mark: Mark, across: Axis, frame: _Frame) -> Iterator[str]:
    x = across.place(mark.x)
    yield f'<path class="mark" d="M{x:.1f} {_TOP}V{frame.base}"/>'
    side = "end" if x > (frame.left + WIDTH) / 2 else "start"
    nudge = -4 if side == "end" else 4
    text = escape(mark.text)
    yield f'<text class="note {side}" x="{x + nudge:.1f}" y="{_TOP - 5}">{text}</text>'


def _series(
    series: Series, across: Axis, upright: Axis, frame: _Frame, *, flat: bool, noted: bool
) -> Iterator[str]:
    points = [
        (across.place(x), upright.place(y)) if math.isfinite(x) and math.isfinite(y) else None
        for x, y in zip(series.x, series.y, strict=True)
    ]
    points = [p if p is not None and frame.holds(p) else None for p in points]
    if series.level:
        points = [(x, upright.place(series.y[0])) for x in (frame.left, WIDTH - _RIGHT)]
    if series.form != "points":
        yield f'<path fill="none" d="{_path(points)}" {_stroke(series.color, series.dashed)}/>'
    for index, point in enumerate(points):
        if point is None:
            continue
        if series.spread and series.spread[index]:
            yield (
                _flat_bar(series, index, point[1], across)
                if flat
                else _bar(series, index, point[0], upright, frame)
            )
        # A line needs two points in a row; one by itself would not be seen.
        if series.form != "line" or _alone(points, index):
            note = _note(series, index, flat=flat) if noted else ""
            yield _point(series, index, point, note)


def _alone(points: Sequence[tuple[float, float] | None], index: int) -> bool:
    return all(
        p is None for p in (*points[max(index - 1, 0) : index], *points[index + 1 : index + 2])
    )


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """Straight lines; what is missing breaks them."""
    out, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        out.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "L"
    return "".join(out)


def _flat_bar(series: Series, index: int, y: float, across: Axis) -> str:
    x, half = series.x[index], series.spread[index]
    ends = across.place(x - half), across.place(x + half)
    stroke = _stroke(series.color, dashed=False, width=2)
    return f'<path d="M{ends[0]:.1f} {y:.1f}H{ends[1]:.1f}" {stroke}/>'


def _bar(series: Series, index: int, x: float, upright: Axis, frame: _Frame) -> str:
    y, half = series.y[index], series.spread[index]
    ends = (max(_TOP, upright.place(y + half)), min(frame.base, upright.place(y - half)))
    stroke = _stroke(series.color, dashed=False, width=1.2)
    return f'<path d="M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}" {stroke}/>'


def _note(series: Series, index: int, *, flat: bool) -> str:
    values = (series.x[index],) if flat else (series.x[index], series.y[index])
    return f"{series.name}: {', '.join(f'{value:.6g}' for value in values)}".lstrip(": ")


def _point(series: Series, index: int, point: tuple[float, float], note: str) -> str:
    ring = index in series.hollow
    style = _stroke(series.color, dashed=False, width=1.8) if ring else _fill(series.color)
    hollow = ' class="ring"' if ring else ""
    shape = _shape(series.color, *point, style + hollow)
    if not note:
        return shape + "/>"
    return f"{shape}><title>{escape(note)}</title></{shape[1:].split()[0]}>"


def _shape(color: Color, x: float, y: float, rest: str) -> str:
    """A disc, or a diamond where the colours begin again; its tag is still open."""
    if _again(color):
        return f'<path d="M{x:.1f} {y - 4.4:.1f}l4.4 4.4l-4.4 4.4l-4.4 -4.4z" {rest}'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" {rest}'


def _again(color: Color) -> bool:
    return isinstance(color, int) and (color // _COLORS) % 2 == 1


def _stroke(color: Color, dashed: bool, width: float = 1.8) -> str:
    dots = ' stroke-dasharray="1.5 3.5"' if _again(color) else ""
    dash = ' stroke-dasharray="5 4"' if dashed else dots
    return f'style="stroke:{_css(color)}" stroke-width="{width}"{dash} stroke-linecap="round"'


def _fill(color: Color) -> str:
    return f'style="fill:{_css(color)}"'


def _css(color: Color) -> str:
    if color is None:
        return "var(--ink)"
    if isinstance(color, int):
        return f"var(--c{color % _COLORS})"
    return _between(color)


def _between(share: float) -> str:
    """A colour of the ramp, mixed of its two neighbours; seen well on black and on white."""
    place = min(max(share, 0.0), 1.0) * (len(_RAMP) - 1)
    index = min(int(place), len(_RAMP) - 2)
    part = place - index
    first, second = (_rgb(_RAMP[i]) for i in (index, index + 1))
    mixed = (round(a + part * (b - a)) for a, b in zip(first, second, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
