"""Panels of a report as pictures of their own, with the page's colours and letters in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from .chart import Chart, Figure, Series, shared_legend
from .names import shortened
from .svg import CHARACTER, WIDTH, draw, height, swatch

_EDGE, _LINE = 8, 18
_WIDE = WIDTH + 2 * _EDGE
_SWATCH = 30  # of a legend's entry, before its name


def standalone(*charts: Chart) -> str:
    """Panels beside each other, each over its legend if it has more than one line, on white."""
    panels = [
        f'<g transform="translate({_WIDE * i} 0)">{_panel(c)}</g>' for i, c in enumerate(charts)
    ]
    return _picture(panels, width=_WIDE * len(charts), height=max(map(_height, charts)))


def sheet(figure: Figure, *, columns: int) -> str:
    """A figure under its heading: titled panels in a grid, and one legend for all, on white.

    Args:
        figure: whose panels draw a line of one name alike.
        columns: panels beside each other.
    """
    width, parts, y = _WIDE * columns, [_heading(figure.title, 13, size=15)], 2 * _LINE
    for row in _rows(figure.charts, columns):
        for column, chart in enumerate(row):
            inner = _heading(chart.title, 10, size=12)
            inner += f'<g transform="translate(0 {_LINE})">{_inner(draw(chart))}</g>'
            parts.append(f'<g transform="translate({_WIDE * column} {y})">{inner}</g>')
        y += max(map(height, row)) + 2 * _LINE
    legend = [series for series in shared_legend(figure) or () if series.listed]
    widths = [_SWATCH + CHARACTER * len(series.name) + _LINE for series in legend]
    x = 0.0
    for series, wide in zip(legend, widths, strict=True):
        if x and x + wide > width - 2 * _EDGE:
            x, y = 0.0, y + _LINE
        parts.append(_entry(series, x, y))
        x += wide
    return _picture(parts, width=width, height=y + _LINE)


def _rows(charts: Sequence[Chart], columns: int) -> Iterator[Sequence[Chart]]:
    return (charts[i : i + columns] for i in range(0, len(charts), columns))


def _picture(parts: Sequence[str], *, width: int, height: int) -> str:
    tall = height + 2 * _EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-_EDGE} {-_EDGE} {width} {tall}" '
        f'width="{width}" height="{tall}">\n<style>\n{_style()}</style>\n'
        f'<rect x="{-_EDGE}" y="{-_EDGE}" width="100%" height="100%" fill="white"/>\n'
        f"{''.join(parts)}\n</svg>\n"
    )


def _heading(text: str, y: int, *, size: int) -> str:
    style = f"font-size:{size}px;font-weight:600"
    return f'<text class="label" x="2" y="{y}" style="{style}">{escape(text)}</text>'


def _panel(chart: Chart) -> str:
    legend = [_entry(s, 44, height(chart) + _LINE * i) for i, s in enumerate(_legend(chart))]
    # Where rows are named there is no name of a y axis, and the title has its place.
    title = f'<text class="label" x="2" y="12">{escape(chart.title)}</text>' if chart.rows else ""
    return _inner(draw(chart)) + title + "".join(legend)


def _height(chart: Chart) -> int:
    return height(chart) + _LINE * len(_legend(chart))


def _legend(chart: Chart) -> tuple[Series, ...]:
    if chart.rows:
        return chart.series if shortened(chart.rows) != list(chart.rows) else ()
    listed = tuple(series for series in chart.series if series.listed)
    return listed if len(chart.series) > 1 else ()


def _inner(svg: str) -> str:
    return re.sub(r"^<svg[^>]*>|</svg>$", "", svg)


def _entry(series: Series, x: float, y: float) -> str:
    text = f'<text class="label" x="{_SWATCH}" y="10">{escape(series.name)}</text>'
    return f'<g transform="translate({x:g} {y:g})">{_inner(swatch(series))}{text}</g>'


def _style() -> str:
    """The colours and letters of a report's page, in its light form."""
    css = files("sparsetrain.report").joinpath("page.css").read_text(encoding="utf-8")
    light = re.search(r":root \{.*?\n\}\n", css, flags=re.DOTALL)
    assert light is not None
    return light[0] + "".join(re.findall(r"^svg [.\w]+ \{.*?\}\n", css, flags=re.MULTILINE))
