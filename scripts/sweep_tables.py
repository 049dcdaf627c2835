"""The generated parts of docs/results.md and its pictures, from the saved file of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsetrain.experiments import results, saved
from sparsetrain.experiments.results import Cell, cells, common
from sparsetrain.experiments.table import markdown_table
from sparsetrain.report.figures.accuracy import Ranked, ranked
from sparsetrain.report.standalone import standalone
from sparsetrain.training.progress import duration

Rows = Sequence[Mapping[str, Any]]

SAID_ELSEWHERE = {"dataset", "model", "device", "precision"}
"""Settings that the page gives by what they came to."""


def block(path: Path) -> str:
    """Everything about one sweep; nothing where it has not been run yet.

    Args:
        path: of the file that `sparsetrain sweep --save` wrote.
    """
    if not path.exists():
        return ""
    file = saved.loads(path.read_text())
    rows = file.rows
    accuracies = cells(rows, file.axes)
    seeds = max(cell.n for line in accuracies.values() for cell in line.values())
    over = f"mean ± standard deviation (n − 1) over {seeds} seeds" if seeds > 1 else "one seed"
    parts = [
        f"Test accuracy of the last epoch in percent, {over}, by the fraction of zeros:",
        markdown_table(accuracies, seeds=seeds),
        "What it cost: floating-point operations as a fraction of the dense network's, to infer "
        f"and to train, and the {_time(rows)[1]} of a run.",
        cost_table(rows, file.axes),
        f"`{file.command}`: {machine(rows)}.",
        equal(rows),
        own_options(rows),
    ]
    return "\n\n".join(part for part in parts if part)


def picture(path: Path) -> str:
    """The methods in order of accuracy, a panel a sparsity; nothing where it has not been run yet.

    Args:
        path: as for `block`.
    """
    if not path.exists():
        return ""
    file = saved.loads(path.read_text())
    lines = cells(file.rows, file.axes)
    dense = next((100 * line[0].mean for line in lines.values() if 0 in line), None)
    panels = []
    for sparsity in sorted({s for line in lines.values() for s in line if s}):
        found = [
            Ranked(_short(name), 100 * cell.mean, 100 * (cell.sd or 0.0), int(_headline(name)))
            for name, line in lines.items()
            if (cell := line.get(sparsity)) is not None
        ]
        panels.append(ranked(f"{100 * sparsity:g} % zeros", found, dense))
    return standalone(*panels)


def _short(name: str) -> str:
    return name.replace("regularizer=", "")


def _headline(name: str) -> bool:
    return name in ("art", "art regularizer=hypersparse", "granet")


def cost_table(rows: Rows, axes: Sequence[str]) -> str:
    """FLOPs at each sparsity and seconds over all of them, a line a method."""
    shares = [{**row, "share": _shares(row)} for row in rows]
    infer, train = (cells(shares, axes, of=f"share.{kind}") for kind in ("inference", "train"))
    field, unit = _time(rows)
    seconds = cells([{**row, "sparsity": {"target": 0}} for row in rows], axes, of=field)
    columns = sorted({s for line in infer.values() for s in line if s})
    names = [f"{kind} {100 * s:g} %" for kind in ("infer", "train") for s in columns]
    out = ["| method | " + " | ".join([*names, unit]) + " |", "|---" * (len(names) + 2) + "|"]
    for name in infer:
        shown = [_share(line[name].get(s)) for line in (infer, train) for s in columns]
        took = seconds[name][0].mean
        shown.append(f"{took:.1f}" if took < 100 else f"{took:,.0f}")
        out.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(out)


def _time(rows: Rows) -> tuple[str, str]:
    """The field that says how long a run took, and its unit; processor time where all have it."""
    known = all("processor" in row["seconds"] for row in rows)
    on_cpu = all(row["device"].startswith("cpu") for row in rows)
    if known and on_cpu:
        return "seconds.processor", "CPU seconds"
    return "seconds.total", "seconds"


def machine(rows: Rows) -> str:
    """How many runs, for how long, on what."""
    shared = common(rows)
    field, unit = _time(rows)
    total = duration(sum(row["seconds"][field.removeprefix("seconds.")] for row in rows))
    where = [str(shared[k]).removeprefix("cpu: ") for k in ("device", "precision") if k in shared]
    if "threads" in shared:
        where.append("1 thread" if shared["threads"] == 1 else f"{shared['threads']} threads")
    versions = common([row["versions"] for row in rows])
    where += [f"{k} {versions[k]}" for k in ("sparsetrain", "torch") if k in versions]
    what = "CPU time" if unit.startswith("CPU") else "training"
    return f"{len(rows)} runs, {total} of {what} in all, on {', '.join(where)}"


def equal(rows: Rows) -> str:
    """The settings that are the same in every run."""
    shared, settings = common(rows), common([row["settings"] for row in rows])
    said = []
    if "images" in shared and "dataset" in shared:
        counts = (f"{count:,} {kind}" for kind, count in shared["images"].items())
        said.append(f"{shared['dataset']} ({', '.join(counts)} images)")
    if "model" in shared and "prunable_weights" in shared:
        said.append(f"{shared['model']} ({shared['prunable_weights']:,} prunable weights)")
    shown = {k: v for k, v in settings.items() if v not in (None, []) and k not in SAID_ELSEWHERE}
    said += [f"`{name}` {_plain(value)}" for name, value in shown.items()]
    return f"Equal in all runs: {', '.join(said)}."


def own_options(rows: Rows) -> str:
    """What the methods were given besides their defaults."""
    said = []
    for method in dict.fromkeys(row["method"] for row in rows):
        options = common([results.own_options(row) for row in rows if row["method"] == method])
        if options:
            given = ", ".join(f"`{name}` {_plain(value)}" for name, value in options.items())
            said.append(f"{method}: {given}")
    return f"Options that are not a method's defaults: {'; '.join(said)}." if said else ""


def _shares(row: Mapping[str, Any]) -> dict[str, float]:
    flops = row["flops"]
    train = flops["train_sparse"] + flops["train_growth"]
    return {
        "inference": flops["inference_sparse"] / flops["inference_dense"],
        "train": train / flops["train_dense"],
    }


def _share(cell: Cell | None) -> str:
    return "" if cell is None else f"{cell.mean:.3f}"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
