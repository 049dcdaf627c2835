"""Sums over the batches of one epoch, kept on the device, whole at any batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .parallel import ALONE, World


class Result(NamedTuple):
    """Means over the images of one epoch; accuracy is a fraction."""

    loss: float
    accuracy: float


class Sums:
    """Loss and correct answers so far; nothing is read back from the device before `result`.

    Attributes:
        skipped: steps that were not taken, because loss or gradient was NaN or infinite.
        in_a_row: those of them without a good step since.
    """

    def __init__(self, device: torch.device, *, in_a_row: int = 0) -> None:
        self._loss = torch.zeros((), device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._count = 0
        self.skipped = 0
        self.in_a_row = in_a_row

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """One batch: its mean loss, float logits [B, classes] and labels [B]."""
        self._loss += loss * len(labels)
        self._correct += (logits.argmax(dim=1) == labels).sum()
        self._count += len(labels)
        self.in_a_row = 0

    def skip(self) -> None:
        """One batch that was not learned from; it counts in no mean."""
        self.skipped += 1
        self.in_a_row += 1

    def result(self, world: World = ALONE) -> Result:
        """The means over the images of all processes; this waits for the device. Collective."""
        loss, correct, seen = self._totals(world)
        count = max(seen, 1)
        return Result(float(loss) / count, int(correct) / count)

    def state_dict(self, world: World = ALONE) -> dict[str, Any]:
        """Tensors and numbers, copied; the sums are those of all processes. Collective."""
        loss, correct, count = self._totals(world)
        return {
            "loss": loss,
            "correct": correct,
            "count": count,
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
        }

    def load_state_dict(self, state: Mapping[str, Any], world: World = ALONE) -> None:
        """Continue where `state_dict` was taken, on this object's device; rank 0 has the sums."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        if world.writes:
            self._loss.copy_(state["loss"])
            self._correct.copy_(state["correct"])
            self._count = state["count"]

    def _totals(self, world: World) -> tuple[Tensor, Tensor, int]:
        if world.size == 1:
            return self._loss.clone(), self._correct.clone(), self._count
        loss = world.total(self._loss).to(self._loss.device)
        counts = world.total(torch.stack([self._correct.cpu(), torch.tensor(self._count)]))
        return loss, counts[0].to(self._correct.device), int(counts[1])
