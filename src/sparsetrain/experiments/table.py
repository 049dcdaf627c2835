"""The table of a sweep, method by sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .results import Cell


def text_table(lines: Mapping[str, Mapping[float, Cell]], *, seeds: int) -> str:
    """Mean ± standard deviation in percent, aligned for a terminal.

    Args:
        lines: from `results.cells`, of a fraction.
        seeds: how many a cell should have; where there are fewer, their number is shown.
    """
    rows = table(lines, seeds=seeds)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def markdown_table(lines: Mapping[str, Mapping[float, Cell]], *, seeds: int) -> str:
    """As `text_table`, for a document."""
    head, *rows = ("| " + " | ".join(row) + " |" for row in table(lines, seeds=seeds))
    return "\n".join([head, "|---" * head.count(" | ") + "|---|", *rows])


def table(lines: Mapping[str, Mapping[float, Cell]], *, seeds: int) -> list[list[str]]:
    """Head and rows as text; a column for each sparsity, a cell that nobody ran is empty."""
    columns = sorted({sparsity for line in lines.values() for sparsity in line})
    rows: list[Sequence[str]] = [("zeros", *(f"{100 * s:g} %" for s in columns))]
    for name, line in lines.items():
        rows.append((name, *(percent(line.get(s), seeds=seeds) for s in columns)))
    return [list(row) for row in rows]


def percent(cell: Cell | None, *, seeds: int) -> str:
    """97.87 ± 0.31; with (n=2) behind it where `seeds` are more."""
    if cell is None:
        return ""
    text = f"{100 * cell.mean:.2f}"
    if cell.sd is not None:
        text += f" ± {100 * cell.sd:.2f}"
    return text if cell.n == seeds else f"{text} (n={cell.n})"
