"""Panels of a report as pictures of their own, with the page's colours and letters in them."""

from __future__ import annotations

import re
from html import escape
from importlib.resources import files

from sparsetrain.report.chart import Chart, Series
from sparsetrain.report.svg import WIDTH, draw, height, swatch

_EDGE, _LINE = 8, 18


def standalone(*charts: Chart) -> str:
    """Panels beside each other, each over its legend if it has more than one line, on white."""
    wide, tall = WIDTH + 2 * _EDGE, max(map(_height, charts)) + 2 * _EDGE
    panels = [
        f'<g transform="translate({wide * i} 0)">{_panel(c)}</g>' for i, c in enumerate(charts)
    ]
    box = f"{-_EDGE} {-_EDGE} {wide * len(charts)} {tall}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{wide * len(charts)}" '
        f'height="{tall}">\n<style>\n{_style()}</style>\n'
        f'<rect x="{-_EDGE}" y="{-_EDGE}" width="100%" height="100%" fill="white"/>\n'
        f"{''.join(panels)}\n</svg>\n"
    )


def _panel(chart: Chart) -> str:
    legend = [_entry(s, height(chart) + _LINE * i) for i, s in enumerate(_legend(chart))]
    # Where rows are named there is no name of a y axis, and the title has its place.
    title = f'<text class="label" x="2" y="12">{escape(chart.title)}</text>' if chart.rows else ""
    return _inner(draw(chart)) + title + "".join(legend)


def _height(chart: Chart) -> int:
    return height(chart) + _LINE * len(_legend(chart))


def _legend(chart: Chart) -> tuple[Series, ...]:
    return chart.series if len(chart.series) > 1 and not chart.rows else ()


def _inner(svg: str) -> str:
    return re.sub(r"^<svg[^>]*>|</svg>$", "", svg)


def _entry(series: Series, y: int) -> str:
    text = f'<text class="label" x="30" y="10">{escape(series.name)}</text>'
    return f'<g transform="translate(44 {y})">{_inner(swatch(series))}{text}</g>'


def _style() -> str:
    """The colours and letters of a report's page, in its light form."""
    css = files("sparsetrain.report").joinpath("page.css").read_text(encoding="utf-8")
    light = re.search(r":root \{.*?\n\}\n", css, flags=re.DOTALL)
    assert light is not None
    return light[0] + "".join(re.findall(r"^svg [.\w]+ \{.*?\}\n", css, flags=re.MULTILINE))
