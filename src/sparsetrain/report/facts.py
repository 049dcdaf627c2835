"""What a report says in words: how many runs of what, and the settings that all share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..experiments.results import common
from ..training.progress import counted, duration
from .runs import Found, Run

TABLE = (
    "Test accuracy is that of the last epoch, mean ± standard deviation (n − 1) over the seeds. "
    "FLOPs are by those of the dense network, for training as many epochs; a pruned weight costs "
    "nothing, a gradient that a method reads of it does. Click a heading to sort."
)
_SAID_ELSEWHERE = frozenset({"dataset", "model", "method", "sparsity", "seed", "device"})


def headline(found: Found) -> str:
    """How many runs, of what, for how long, on what."""
    records = [run.record for run in found.runs]
    total = duration(sum(record["seconds"]["total"] for record in records))
    said = [counted(len(records), "finished run"), _of_what(records)]
    said += [f"{total} of training in all", *_machine(records)]
    counts = {
        "unfinished": len(found.unfinished),
        "copy" if len(found.copies) == 1 else "copies": len(found.copies),
        "damaged": len(found.damaged),
    }
    said += [f"{count} {what} left out" for what, count in counts.items() if count]
    return ", ".join(part for part in said if part) + "."


def left_out(found: Found) -> list[str]:
    """A line for each folder that is left out though a run is finished there."""
    copies = [f"left out: {path}: a copy of {first}" for path, first in found.copies.items()]
    return copies + [f"left out: {path}: {why}" for path, why in found.damaged.items()]


def settings(runs: Sequence[Run]) -> str:
    """The settings that are the same in every run."""
    shared = common([run.record["settings"] for run in runs])
    shown = {k: v for k, v in shared.items() if v not in (None, []) and k not in _SAID_ELSEWHERE}
    if not shown:
        return ""
    return "Equal in all runs: " + ", ".join(f"{k} {_plain(v)}" for k, v in shown.items()) + "."


def _of_what(records: Sequence[Mapping[str, Any]]) -> str:
    shared = common(records)
    if "dataset" not in shared or "model" not in shared:
        return "of several networks or data sets"
    weights = (
        f" ({shared['prunable_weights']:,} prunable weights)"
        if "prunable_weights" in shared
        else ""
    )
    return f"of {shared['model']}{weights} on {shared['dataset']}"


def _machine(records: Sequence[Mapping[str, Any]]) -> list[str]:
    shared, versions = common(records), common([record["versions"] for record in records])
    said = [str(shared[k]) for k in ("device", "precision") if k in shared]
    said += [f"{k} {versions[k]}" for k in ("sparsetrain", "torch") if k in versions]
    return said


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
