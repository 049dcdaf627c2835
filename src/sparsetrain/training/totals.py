"""Sums over the epochs of a run, kept across interruptions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class Totals:
    """Times are seconds of wall clock but for `processor`; FLOPs count a multiply-add as two.

    Attributes:
        steps: optimizer steps.
        train_flops: of training, pruned weights free; ART's judging of pruned copies included.
        growth_flops: for gradients of pruned weights, where the method reads them to grow.
        train: training epochs.
        evaluate: every evaluation, on whichever images.
        mask_updates: deciding on masks, within the epochs (where it is part of `train`, too) and
            between them.
        total: from the start of the first epoch to the record, interruptions left out.
        processor: of `total`, seconds of processor time, summed over the process's threads: what
            the work costs however busy the machine is. On a GPU it says little.
        skipped_steps: steps not taken, because loss or gradient was NaN or infinite.
    """

    steps: int = 0
    train_flops: float = 0.0
    growth_flops: float = 0.0
    train: float = 0.0
    evaluate: float = 0.0
    mask_updates: float = 0.0
    total: float = 0.0
    processor: float = 0.0
    skipped_steps: int = 0
    _open: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time spent inside to one of the attributes."""
        self._open[part] = _clock(part)
        try:
            yield
        finally:
            setattr(self, part, self.so_far(part))
            del self._open[part]

    def so_far(self, part: str) -> float:
        """Seconds spent on a part, a stretch that still goes on included."""
        started = self._open.get(part)
        now = 0.0 if started is None else _clock(part) - started
        return getattr(self, part) + now

    def seconds(self) -> dict[str, float]:
        """The record's `seconds`."""
        return {
            "train": self.train,
            "eval": self.evaluate,
            "mask_updates": self.mask_updates,
            "total": self.total,
            "processor": self.processor,
        }

    def state_dict(self) -> dict[str, Any]:
        """Numbers by name; times up to now."""
        names = (f.name for f in fields(self) if f.init)
        return {name: self.so_far(name) for name in names}


def _clock(part: str) -> float:
    return time.process_time() if part == "processor" else time.perf_counter()
