"""What a report says in words: how many runs of what, and the settings that all share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..experiments.results import common
from ..training.config import NOT_IDENTITY, SECTIONS, TrainConfig
from ..training.progress import counted, duration
from .runs import Found, Run

TABLE = (
    "Test accuracy is that of the last epoch, mean ± standard deviation (n − 1) over the seeds. "
    "FLOPs are by those of the dense network, for training as many epochs; a pruned weight costs "
    "nothing, a gradient that a method reads of it does. Click a heading to sort."
)
_SAID_ELSEWHERE = frozenset({"dataset", "model", "method", "sparsity", "seed", "device"})
_MACHINE = ("precision", "device")  # in no line's name: the settings say `auto`
_OF_RECORD = ("epochs", *_MACHINE)  # what a run's settings came to
_MOST_VALUES = 3  # of one method that are named one by one


def headline(found: Found) -> str:
    """How many runs, of what, for how long, on what."""
    records = [run.record for run in found.runs]
    total = duration(sum(record["seconds"]["total"] for record in records))
    alone = sum(run.recorded for run in found.runs)
    said = [counted(len(records), "finished run")]
    said += [f"{alone} of them known by the record alone"] if alone else []
    said += [_of_what(records)]
    said += [f"{total} of training in all", *_machine(records)]
    counts = {
        "unfinished": len(found.unfinished),
        "copy" if len(found.copies) == 1 else "copies": len(found.copies),
        "damaged": len(found.damaged),
    }
    said += [f"{count} {what} left out" for what, count in counts.items() if count]
    return ", ".join(part for part in said if part) + "."


def left_out(found: Found) -> list[str]:
    """A line for each folder or file that is left out though a run is finished there."""
    copies = [f"left out: {path}: a copy of {first}" for path, first in found.copies.items()]
    return copies + [f"left out: {path}: {why}" for path, why in found.damaged.items()]


def settings(runs: Sequence[Run]) -> str:
    """The settings that are the same in every run."""
    shared = common([run.record["settings"] for run in runs])
    shown = {k: v for k, v in shared.items() if v not in (None, []) and k not in _SAID_ELSEWHERE}
    if not shown:
        return ""
    return "Equal in all runs: " + ", ".join(f"{k} {_plain(v)}" for k, v in shown.items()) + "."


def unequal(runs: Sequence[Run]) -> list[str]:
    """Sentences that name the settings in which methods differ, one for each data set and network.

    A method's own options are not among them; nor is what all methods have in the same values, as
    that is in the lines' names. The number of epochs is that of those trained.
    """
    tasks = {task: [run for run in runs if run.task == task] for task in {r.task: 0 for r in runs}}
    parts = {task: "; ".join(_differing(own)) for task, own in tasks.items()}
    return [
        f"Not equal between the methods{' of ' if task else ''}{task}: {part}."
        for task, part in parts.items()
        if part
    ]


def _differing(runs: Sequence[Run]) -> Iterator[str]:
    """`lr 0.1 (dense, gmp), 0.01 (granet)` for each setting that methods have in other values."""
    for name in _general():
        of_method: dict[str, set[str]] = {}
        values: dict[str, Any] = {}
        for run in runs:
            value = (run.record if name in _OF_RECORD else run.record["settings"]).get(name)
            values[_plain(value)] = value
            of_method.setdefault(run.record["method"], set()).add(_plain(value))
        alike = len({frozenset(own) for own in of_method.values()}) == 1
        if len(values) == 1 or (alike and name not in _MACHINE):
            continue
        told: dict[str, list[str]] = {}
        for method, own in of_method.items():
            told.setdefault(_listed([v for v in _ordered(values) if v in own]), []).append(method)
        yield f"{name} " + ", ".join(f"{v} ({', '.join(names)})" for v, names in told.items())


def _general() -> list[str]:
    """Settings that every method has, and that a network's name or a table does not tell."""
    config = TrainConfig()
    parts = [getattr(config, section) for section in SECTIONS if section != "options"]
    names = [field.name for part in parts for field in fields(part)]
    left_out = (NOT_IDENTITY | _SAID_ELSEWHERE | {"width"}) - {"device"}
    return [name for name in names if name not in left_out]


def _ordered(values: Mapping[str, Any]) -> list[str]:
    """Numbers rising, then what is none, as it came."""
    numbers = [text for text, v in values.items() if isinstance(v, int | float)]
    numbers.sort(key=lambda text: values[text])
    return numbers + [text for text in values if text not in numbers]


def _listed(values: Sequence[str]) -> str:
    several = len(values) > _MOST_VALUES
    return f"{values[0]} to {values[-1]}" if several else " or ".join(values)


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
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
