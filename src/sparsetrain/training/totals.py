"""Sums over the epochs of a run, kept across interruptions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Totals:
    """Times are seconds of wall clock; FLOPs count a multiply-add as two.

    Attributes:
        steps: optimizer steps.
        train_flops: of training, pruned weights free; ART's judging of pruned copies included.
        train: training epochs.
        evaluate: every evaluation, on whichever images.
        mask_updates: deciding on masks between epochs; updates inside a step count as training.
        total: from the start of the first epoch to the record, interruptions left out.
    """

    steps: int = 0
    train_flops: float = 0.0
    train: float = 0.0
    evaluate: float = 0.0
    mask_updates: float = 0.0
    total: float = 0.0

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time spent inside to one of the attributes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - started)

    def seconds(self) -> dict[str, float]:
        """The record's `seconds`."""
        return {
            "train": self.train,
            "eval": self.evaluate,
            "mask_updates": self.mask_updates,
            "total": self.total,
        }

    def state_dict(self) -> dict[str, Any]:
        """Numbers by name."""
        return asdict(self)
