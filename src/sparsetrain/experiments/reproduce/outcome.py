"""What the finished runs say about each cell, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

from .plan import Cell
from .tables import Scale

State = Literal["run", "partly", "not run", "failed", "cannot run"]


@dataclass(frozen=True)
class Ours:
    """Test accuracies in percent, over seeds.

    Attributes:
        statistic: the field of the record: the best test epoch where the source reports that.
    """

    mean: float
    sd: float | None
    n: int
    statistic: str


@dataclass(frozen=True)
class Outcome:
    """A cell and what came of it.

    Attributes:
        difference: in points of accuracy. At full scale ours - published; at the others what
            sparsity costs here - what it costs there, each against its own dense network; None
            where one of the two is not known.
    """

    cell: Cell
    state: State
    ours: Ours | None
    difference: float | None


def outcomes(
    cells: Sequence[Cell], rows: Mapping[str, Mapping[str, Any]], failed: set[str], scale: Scale
) -> list[Outcome]:
    """One for each cell.

    Args:
        rows: key of a run -> row, of the finished ones.
        failed: keys of the runs that failed.
    """
    ours = [_ours([rows[run.key] for run in cell.runs if run.key in rows]) for cell in cells]
    dense = {c.problem: own for c, own in zip(cells, ours, strict=True) if c.dense}
    return [
        Outcome(
            cell,
            _state(cell, rows, failed),
            own,
            _difference(cell, own, dense.get(cell.problem), scale),
        )
        for cell, own in zip(cells, ours, strict=True)
    ]


def _ours(rows: Sequence[Mapping[str, Any]]) -> Ours | None:
    if not rows:
        return None
    best = all("test_accuracy_best" in row for row in rows)
    field = "test_accuracy_best" if best else "test_accuracy"
    values = [100 * row[field] for row in rows]
    return Ours(mean(values), stdev(values) if len(values) > 1 else None, len(values), field)


def _state(cell: Cell, rows: Mapping[str, Any], failed: set[str]) -> State:
    if not cell.runs:
        return "cannot run"
    done = sum(run.key in rows for run in cell.runs)
    if done == len(cell.runs):
        return "run"
    if any(run.key in failed for run in cell.runs):
        return "failed"
    return "partly" if done else "not run"


def _difference(cell: Cell, ours: Ours | None, dense: Ours | None, scale: Scale) -> float | None:
    if ours is None or not cell.published:
        return None
    there = cell.published[0].top1
    if scale == "full":
        return ours.mean - there
    if cell.dense or dense is None or cell.control is None:
        return None
    return (ours.mean - dense.mean) - (there - cell.control.top1)
