"""The tables of a report: methods by sparsity, and every run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from .figures.cost import total_training
from .runs import Run


@dataclass(frozen=True)
class Cell:
    """One entry.

    Attributes:
        text: as it is read.
        value: what it is sorted by; a string where it is a name, None where there is nothing.
    """

    text: str
    value: float | str | None


@dataclass(frozen=True)
class Table:
    """Head and rows; numbers stand to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def summary(runs: Sequence[Run]) -> Table:
    """One row a method and sparsity: means over the seeds, ± their standard deviation (n - 1)."""
    groups: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.line, run.sparsity), []).append(run)
    head = (
        *("method", "zeros", "seeds", "test accuracy (%)", "kept weights", "inference FLOPs"),
        *("training FLOPs", "epochs", "seconds"),
    )
    return Table(head, tuple(_summary_row(*key, group) for key, group in groups.items()))


def every_run(runs: Sequence[Run]) -> Table:
    """One row a run."""
    head = (
        *("method", "zeros", "seed", "test accuracy (%)", "selected (%)", "kept weights"),
        *("inference FLOPs", "training FLOPs", "epochs", "seconds", "folder"),
    )
    return Table(head, tuple(map(_run_row, runs)))


def as_csv(table: Table) -> str:
    """Comma-separated, a line a row; numbers without rounding, fractions of zeros as fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.head)
    for row in table.rows:
        writer.writerow([_plain(cell.value) for cell in row])
    return out.getvalue()


def as_markdown(table: Table) -> str:
    """A table of a Markdown document."""
    lines = ["| " + " | ".join(table.head) + " |", "|---" * len(table.head) + "|"]
    lines += ["| " + " | ".join(cell.text for cell in row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def _summary_row(line: str, sparsity: float, runs: Sequence[Run]) -> tuple[Cell, ...]:
    accuracies = [run.accuracy for run in runs]
    spread = f" ± {stdev(accuracies):.2f}" if len(runs) > 1 else ""
    return (
        Cell(line, line),
        _zeros(sparsity),
        _count(len({run.seed for run in runs})),
        Cell(f"{mean(accuracies):.2f}{spread}", mean(accuracies)),
        _count(mean(run.record["kept_weights"] for run in runs)),
        _share(mean(run.inference for run in runs)),
        _share(mean(map(_training, runs))),
        _count(mean(run.record["epochs"] for run in runs)),
        _seconds(mean(run.record["seconds"]["total"] for run in runs)),
    )


def _run_row(run: Run) -> tuple[Cell, ...]:
    selected = run.record.get("test_accuracy_selected", run.record.get("test_accuracy_best"))
    return (
        Cell(run.line, run.line),
        _zeros(run.sparsity),
        _count(run.seed),
        Cell(f"{run.accuracy:.2f}", run.accuracy),
        Cell("", None) if selected is None else Cell(f"{100 * selected:.2f}", 100 * selected),
        _count(run.record["kept_weights"]),
        _share(run.inference),
        _share(_training(run)),
        _count(run.record["epochs"]),
        _seconds(run.record["seconds"]["total"]),
        Cell(run.path.name, run.path.name),
    )


def _training(run: Run) -> float:
    """With gradients of pruned weights, where the run's trace tells of them."""
    found = total_training(run)
    return run.training if found is None else found


def _zeros(sparsity: float) -> Cell:
    return Cell(f"{100 * sparsity:.6g} %", sparsity)


def _count(value: float) -> Cell:
    return Cell(f"{value:,.0f}", value)


def _share(value: float) -> Cell:
    return Cell(f"{value:.3f}", value)


def _seconds(value: float) -> Cell:
    return Cell(f"{value:,.1f}" if value < 1000 else f"{value:,.0f}", value)


def _plain(value: float | str | None) -> str:
    return "" if value is None else str(value)
