"""How long the runs that are left will take: from runs like them, else from measured steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from ..training.config import TrainConfig
from ..training.device import device_name, place
from ..training.errors import BadInput
from ..training.folder import RunFolder
from ..training.progress import duration
from ..training.settings import flatten
from .measure import Pace, measure, problem
from .survey import Place

Basis = Literal["records", "steps", "unknown"]
# A run like another has these in common; the method, too, where there is one.
_LIKE = ("dataset", "model", "width", "batch_size", "compat")


@dataclass(frozen=True)
class Estimate:
    """What one run will take.

    Attributes:
        seconds: of wall clock, on this machine, by itself; 0 where unknown.
        basis: records: finished runs like it; steps: a few steps, measured; unknown: neither.
    """

    seconds: float
    basis: Basis


def estimates(places: Sequence[Place], rows: Iterable[Mapping[str, Any]]) -> list[Estimate | None]:
    """One for each run that is left, None for those that are done.

    Args:
        places: of a sweep; a run that was broken off is counted from its last epoch.
        rows: of finished runs, as from `results.make_row`; those of another device do not count.
    """
    rows = [*rows, *(place.row for place in places if place.row is not None)]
    paces: dict[tuple[object, ...], Pace | None] = {}
    return [None if spot.done else _estimate(spot, rows, paces) for spot in places]


def cost_line(found: Sequence[Estimate | None]) -> str:
    """The sum, and where it comes from, in one line."""
    left = [e for e in found if e is not None]
    if not left:
        return "nothing is left to run."
    known = [e for e in left if e.basis != "unknown"]
    words = {
        "records": "by finished runs like them",
        "steps": "by a few measured steps",
        "unknown": "of unknown cost",
    }
    counts = {basis: sum(e.basis == basis for e in left) for basis in words}
    parts = ", ".join(f"{n} {words[basis]}" for basis, n in counts.items() if n)
    total = _long(sum(e.seconds for e in known))
    return f"estimated cost on this machine, one run after the other: {total} ({parts})."


def _long(seconds: float) -> str:
    return f"{seconds / 86400:.0f} days" if seconds > 4 * 86400 else duration(seconds)


def _estimate(
    spot: Place, rows: Sequence[Mapping[str, Any]], paces: dict[tuple[object, ...], Pace | None]
) -> Estimate:
    config, left = spot.run.config, _left(spot)
    epoch = _like(config, rows)
    if epoch is not None:
        return Estimate(epoch * config.optim.epochs * left, "records")
    key = problem(config)
    if key not in paces:
        paces[key] = None
        with suppress(BadInput):
            paces[key] = measure(config)
    pace = paces[key]
    if pace is None:
        return Estimate(0.0, "unknown")
    return Estimate(pace.seconds(config) * left, "steps")


def _like(config: TrainConfig, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds an epoch of finished runs of the same kind: of the same method if there are any."""
    try:
        where = place(config.run)
    except BadInput:  # that device is not here, so nobody knows
        return None
    wanted = flatten(config)
    device = f"{where.device.type}: {device_name(where.device)}"
    precision = "bf16" if where.bf16 else "fp32"
    alike = [
        row
        for row in rows
        if (row["device"], row["precision"]) == (device, precision)
        and all(row["settings"].get(name) == wanted[name] for name in _LIKE)
    ]
    same = [row for row in alike if row["method"] == config.sparse.method] or alike
    return mean(row["seconds"]["total"] / row["epochs"] for row in same) if same else None


def _left(spot: Place) -> float:
    """The part of a run that is still to be trained, by the last line of its metrics."""
    done = 0
    with suppress(OSError, ValueError, LookupError):
        lines = RunFolder(spot.folder).metrics.read_text(encoding="utf-8").splitlines()
        done = int(json.loads(lines[-1])["epoch"])
    return max(0.0, 1 - done / spot.run.config.optim.epochs)
