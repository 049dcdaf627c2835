"""Runs as one self-contained HTML page: tables, pictures, and the data behind each."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from . import facts
from .chart import Figure
from .html import document, figure_section, table_block
from .runs import Found
from .table import every_run, summary


def page(found: Found, figures: Sequence[Figure], *, title: str) -> str:
    """The page's text; it needs nothing from the network.

    Args:
        found: the runs.
        figures: in the order of the page.
        title: its heading.
    """
    runs = found.runs
    unequal = "".join(f'<p class="intro">{escape(said)}</p>' for said in facts.unequal(runs))
    results = (
        f'<section id="results"><h2>Results</h2><p class="intro">{escape(facts.TABLE)}</p>{unequal}'
        f"{table_block(summary(runs), 'results')}"
        f"<details><summary>Every run ({len(runs)})</summary>"
        f"{table_block(every_run(runs), 'runs')}</details></section>"
    )
    return document(
        title,
        facts=facts.headline(found),
        links=[("results", "Results"), *((figure.key, figure.title) for figure in figures)],
        main="\n".join([results, *map(figure_section, figures)]),
        foot=f"<p>{escape(facts.settings(runs))}</p>",
    )
