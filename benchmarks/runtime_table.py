"""The record of benchmarks/runtime.py: its rows and gates, and how they are merged and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "records" / "runtime.json"
SPARSITIES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998)
# Ratio best dense / ours, one thread, for these sparsities; None: an aim to report.
GATES: dict[tuple[str, int], tuple[float | None, ...]] = {
    ("resnet32", 64): (2.5, 4.5, 8.5, 13, 20, 28),
    ("vgg19", 64): (2, 4, 8, 13, 23, 42),
    ("resnet32", 1): (None, None, 4.2, 6.5, 9, 12),
    ("vgg19", 1): (None, None, 2.8, 4.7, 8, 14),
}
KEY = ("network", "batch", "threads", "sparsity")


def gate(network: str, batch: int, threads: int, sparsity: float) -> float | None:
    """The ratio asked for, if any."""
    gates = GATES.get((network, batch))
    if gates is None or threads != 1 or sparsity not in SPARSITIES:
        return None
    return gates[SPARSITIES.index(sparsity)]


def met(row: dict[str, Any]) -> bool:
    """Whether a row has no gate or reaches it."""
    return row["gate"] is None or row["speedup"] >= row["gate"]


def merged(path: Path, rows: list[dict[str, Any]], key: tuple[str, ...]) -> list[dict[str, Any]]:
    """The record's rows and these, which replace those of the same values of `key`."""

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[field] for field in key)

    old = json.loads(path.read_text())["results"] if path.exists() else []
    new = {place(row) for row in rows}
    return sorted([row for row in old if place(row) not in new] + rows, key=place)


def line(row: dict[str, Any]) -> str:
    """A row for a terminal."""
    best = row["best dense"]
    verdict = "" if row["gate"] is None else f"  gate {row['gate']:g}: "
    verdict += "" if row["gate"] is None else "met" if met(row) else "MISSED"
    return (
        f"{row['network']:9s} batch {row['batch']:3d}  threads {row['threads']}  "
        f"{100 * row['sparsity']:5g} %  {row['milliseconds']['median']:8.3f} ms  "
        f"{row['speedup']:6.2f}x {best} ({row['dense_milliseconds'][best]['median']:.2f} ms)"
        f"{verdict}"
    )


def table(path: Path = RECORD) -> list[dict[str, Any]]:
    """The record's rows.

    Raises:
        SystemExit: there is no record.
    """
    if not path.exists():
        raise SystemExit(f"there is no record in {path}; measure first, without --table.")
    return json.loads(path.read_text())["results"]
