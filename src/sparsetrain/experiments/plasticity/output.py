"""The study's rows as text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Literal

Rows = Sequence[dict[str, Any]]


def shown(rows: Rows, form: Literal["text", "csv", "json"]) -> str:
    """What the command prints."""
    if form == "csv":
        return as_csv(rows).rstrip()
    return json.dumps(rows) if form == "json" else _tables(rows)


def as_csv(rows: Rows) -> str:
    """All numbers, a line a pruning."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def line(row: dict[str, Any]) -> str:
    """One pruning, as it is told once it is measured."""
    parts = [
        f"epoch {row['epoch']}  prune {row['fraction']:g} {row['structure']}",
        f"regrow {row['regrow']:<8}",
        f"before {100 * row['before']:5.1f} %",
        f"pruned {100 * row['pruned']:5.1f} %",
        f"recovered {100 * row['recovered']:5.1f} %",
    ]
    if "end" in row:
        parts.append(f"end {100 * row['end']:5.1f} %")
    return "  ".join(parts)


def _tables(rows: Rows) -> str:
    tables = [_table(rows, "plasticity", "plasticity (recovered - before, points)")]
    if "gap" in rows[0]:
        tables.append(_table(rows, "gap", "gap (end - dense end, points)"))
    return "\n\n".join(tables)


def _table(rows: Rows, of: str, head: str) -> str:
    """Points: a line for each way of pruning, a column for each epoch."""
    epochs = sorted({row["epoch"] for row in rows})
    lines: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in rows:
        key = (row["structure"], row["fraction"], row["regrow"])
        lines.setdefault(key, {})[row["epoch"]] = 100 * row[of]
    body = [
        f"{f'{s} {f:g} regrow {r}':<39}  " + "".join(f"{found[e]:<+9.1f}" for e in epochs)
        for (s, f, r), found in lines.items()
    ]
    return "\n".join([f"{head:<39}  " + "".join(f"ep {e:<6}" for e in epochs), *body])
