"""The parts that pages are made of: the document around them, figures and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from urllib.parse import quote

from ..training.progress import counted
from .chart import Chart, Figure, Series, data_csv, shared_legend
from .names import shortened
from .svg import draw, swatch
from .table import Table, as_csv


def document(
    title: str, *, facts: str, links: Iterable[tuple[str, str]], main: str, foot: str
) -> str:
    """A whole page; it needs nothing from the network.

    Args:
        title: plain text, as are the next two.
        facts: a line under the title.
        links: id of a section, and what it is called.
        main: HTML of the sections.
        foot: HTML.
    """
    contents = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name in links)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_resource('page.css')}</style>\n</head>\n"
        f'<body>\n<header><h1>{escape(title)}</h1><button id="theme" type="button">light / dark'
        f'</button><p class="facts">{escape(facts)}</p></header>\n<nav>{contents}</nav>\n'
        f"<main>\n{main}\n</main>\n<footer>{foot}</footer>\n"
        f"<script>\n{_resource('page.js')}</script>\n</body>\n</html>\n"
    )


def _resource(name: str) -> str:
    return files("sparsetrain.report").joinpath(name).read_text(encoding="utf-8")


def figure_section(figure: Figure) -> str:
    """A figure: its heading and words, a panel a chart, and the data to load."""
    shared = shared_legend(figure)
    panels = "".join(_panel(chart, own_legend=shared is None) for chart in figure.charts)
    return (
        f'<section id="{figure.key}"><div class="intro"><h2>{escape(figure.title)}</h2>'
        f"<p>{escape(figure.text)}</p>{_legend(shared or ())}</div>"
        f'<div class="panels">{panels}</div>{_left_out(figure.more)}'
        f'<p class="data">{_download(figure.key, data_csv(figure))}</p></section>'
    )


def _left_out(more: Sequence[Chart]) -> str:
    """What the panels leave out, in print too, where there is no data to load."""
    if not more:
        return ""
    return f'<p class="more">… and {counted(len(more), "more panel")}: see the data.</p>'


def _panel(chart: Chart, *, own_legend: bool) -> str:
    title = f"<h3>{escape(chart.title)}</h3>" if chart.title else ""
    # Rows have their names before them, as far as there is room.
    wanted = shortened(chart.rows) != list(chart.rows) if chart.rows else own_legend
    legend = _legend(chart.series) if wanted else ""
    return f'<figure class="panel">{title}{draw(chart)}{legend}</figure>'


def _legend(series: Sequence[Series]) -> str:
    named = [s for s in series if s.name and s.listed]
    items = "".join(f"<li>{swatch(s)}<span>{escape(s.name)}</span></li>" for s in named)
    return f'<ul class="legend">{items}</ul>' if items else ""


def _download(key: str, text: str) -> str:
    address = "data:text/csv;charset=utf-8," + quote(text, safe=",.:;+ ()/|%"[:-1])
    return f'<a download="{key}.csv" href="{escape(address)}">data of this figure (CSV)</a>'


def table_block(table: Table, key: str) -> str:
    """A table that sorts by a click, and its data to load; `key` names both."""
    texts = [
        any(isinstance(row[i].value, str) for row in table.rows) for i in range(len(table.head))
    ]
    kinds = [' class="name"' if text else "" for text in texts]
    head = "".join(
        f'<th{kind} scope="col"><button type="button">{escape(name)}</button></th>'
        for name, kind in zip(table.head, kinds, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td{kind} data-v="{"" if cell.value is None else escape(str(cell.value))}">'
            f"{escape(cell.text)}</td>"
            for cell, kind in zip(row, kinds, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    address = "data:text/csv;charset=utf-8," + quote(as_csv(table), safe=",.:;+()/")
    return (
        f'<div class="scroll"><table id="table-{key}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f'<p class="data"><a download="{key}.csv" href="{escape(address)}">this table (CSV)</a></p>'
    )
