"""Dense training: the control every comparison needs, under the same engine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import masks as mask_algebra
from ..types import Masks, Memory, View
from .options import check_total_steps


@dataclass(frozen=True)
class Dense:
    """No zeros at any time; `sparsity` and `total_steps` are taken, checked and not used."""

    sparsity: float = 0.0
    total_steps: int = 1

    def __post_init__(self) -> None:
        mask_algebra.check_sparsity(self.sparsity)
        check_total_steps(self.total_steps)

    def init(self, view: View) -> tuple[Masks, Memory]:
        """Every weight is active."""
        return {n: torch.ones_like(w, dtype=torch.bool) for n, w in view.weights.items()}, {}

    def when(self, step: int) -> bool:
        """Never."""
        return False

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        """Nothing changes."""
        return masks, memory
