"""Rows of finished runs, and their means: plain data in, plain data out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from ..training.check import resolve
from ..training.errors import BadInput
from ..training.settings import build, fingerprint

# Long, or about one machine's folders.
_LEFT_OUT = frozenset({"command", "inputs"})


@dataclass(frozen=True)
class Cell:
    """Several seeds of one setting.

    Attributes:
        n: how many.
        mean: of them.
        sd: their standard deviation, with n - 1; None where n is 1.
    """

    n: int
    mean: float
    sd: float | None


def make_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's record without what is long: what is kept of many runs.

    Args:
        record: as in `record.json`.
    Returns:
        The same fields without `command` and `inputs`; `sparsity` without its layers; `options`
        as from `own_options`; and `key`, the hash of the non-default settings.
    Raises:
        BadInput: the record's settings are none that this version knows.
    """
    row = {name: value for name, value in record.items() if name not in _LEFT_OUT}
    row["sparsity"] = {name: v for name, v in row["sparsity"].items() if name != "per_layer"}
    return {"key": key_of(row["settings"]), **row, "options": own_options(row)}


def own_options(row: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the method would not have taken by itself, in a run of these settings.

    Args:
        row: a record, or a row of it.
    Raises:
        BadInput: its settings are none that this version knows.
    """
    config = build(row["settings"])
    default = dataclasses.replace(config, options=type(config.options)())
    with contextlib.suppress(BadInput):  # ART in very few epochs takes no defaults
        default = resolve(default)
    known = dataclasses.asdict(default.options)
    return {k: v for k, v in row["options"].items() if known.get(k) != v}


def key_of(settings: Mapping[str, Any]) -> str:
    """The hash of a record's settings, as `expand.Run.key`.

    Raises:
        BadInput: they are none that this version knows.
    """
    return fingerprint(build(settings))


def cells(
    rows: Iterable[Mapping[str, Any]], axes: Sequence[str] = (), *, of: str = "test_accuracy"
) -> dict[str, dict[float, Cell]]:
    """Mean and spread over the seeds.

    Args:
        rows: from `make_row`.
        axes: settings, besides method and sparsity, that make a line of their own.
        of: the field to average; a dot leads into a mapping, as in "seconds.total".
    Returns:
        name of the line -> sparsity asked for -> cell; in the order of the rows.
    """
    found: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        line = found.setdefault(line_name(row["settings"], axes), {})
        line.setdefault(row["sparsity"]["target"], []).append(_field(row, of))
    return {
        name: {sparsity: _cell(values) for sparsity, values in line.items()}
        for name, line in found.items()
    }


def line_name(settings: Mapping[str, Any], axes: Sequence[str] = ()) -> str:
    """The method, and the values of `axes` that it has: "art regularizer=l1"."""
    named = [f"{name}={settings[name]}" for name in axes if name in settings]
    return " ".join([settings["method"], *named])


def common(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all of them have, with the same value; nothing where there are none."""
    first, *others = mappings or [{}]
    return {k: v for k, v in first.items() if all(k in m and m[k] == v for m in others)}


def _field(row: Mapping[str, Any], path: str) -> float:
    value: Any = row
    for name in path.split("."):
        value = value[name]
    return float(value)


def _cell(values: Sequence[float]) -> Cell:
    return Cell(len(values), mean(values), stdev(values) if len(values) > 1 else None)
