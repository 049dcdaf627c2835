"""How long the runs that are left will take: from runs like them, else from measured steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import mean
from types import MappingProxyType
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
_WORDS: Mapping[Basis, str] = MappingProxyType(
    {
        "records": "by finished runs like them",
        "steps": "by a few measured steps",
        "unknown": "of unknown cost",
    }
)
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

    def line(self, times: int) -> str:
        """What it takes so many times, and where that comes from, in one line."""
        if self.basis == "unknown":
            return "estimated cost on this machine: unknown."
        total = _long(self.seconds * times)
        return f"estimated cost on this machine: {total} ({_WORDS[self.basis]})."


def estimates(places: Sequence[Place], rows: Iterable[Mapping[str, Any]]) -> list[Estimate | None]:
    """One for each run that is left, None for those that are done.

    Args:
        places: of a sweep; a run that was broken off is counted from its last epoch.
        rows: of finished runs, as from `results.make_row`; those of another device do not count.
    """
    rows = [*rows, *(place.row for place in places if place.row is not None)]
    paces: dict[tuple[object, ...], Pace | None] = {}
    return [None if spot.done else _estimate(spot, rows, paces) for spot in places]


def epoch_cost(config: TrainConfig, rows: Iterable[Mapping[str, Any]]) -> Estimate:
    """What one epoch of a run takes; `rows` as for `estimates`."""
    return _epoch(config, list(rows), {})


def cost_line(found: Sequence[Estimate | None]) -> str:
    """The sum, and where it comes from, in one line."""
    left = [e for e in found if e is not None]
    if not left:
        return "nothing is left to run."
    known = [e for e in left if e.basis != "unknown"]
    counts = {basis: sum(e.basis == basis for e in left) for basis in _WORDS}
    parts = ", ".join(f"{n} {words}" for basis, words in _WORDS.items() if (n := counts[basis]))
    total = _long(sum(e.seconds for e in known))
    return f"estimated cost on this machine, one run after the other: {total} ({parts})."


def _long(seconds: float) -> str:
    return f"{seconds / 86400:.0f} days" if seconds > 4 * 86400 else duration(seconds)


def _estimate(
    spot: Place, rows: Sequence[Mapping[str, Any]], paces: dict[tuple[object, ...], Pace | None]
) -> Estimate:
    config = spot.run.config
    left = max(0, config.optim.epochs - epochs_done(RunFolder(spot.folder)))
    epoch = _epoch(config, rows, paces)
    return Estimate(epoch.seconds * left, epoch.basis)


def _epoch(
    config: TrainConfig,
    rows: Sequence[Mapping[str, Any]],
    paces: dict[tuple[object, ...], Pace | None],
) -> Estimate:
    """Of one epoch."""
    seconds = _like(config, rows)
    if seconds is not None:
        return Estimate(seconds, "records")
    key = problem(config)
    if key not in paces:
        paces[key] = None
        with suppress(BadInput):
            paces[key] = measure(config)
    pace = paces[key]
    if pace is None:
        return Estimate(0.0, "unknown")
    return Estimate(pace.seconds(config) / config.optim.epochs, "steps")


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


def epochs_done(folder: RunFolder) -> int:
    """Of a run, by the last line of its metrics; 0 where it has not begun."""
    with suppress(OSError, ValueError, LookupError):
        lines = folder.metrics.read_text(encoding="utf-8").splitlines()
        return int(json.loads(lines[-1])["epoch"])
    return 0
