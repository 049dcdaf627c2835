"""ITOP: move weights to the very end, so that many places have been tried in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from .. import schedules
from ..types import Masks, Memory, View
from . import published
from .growing import FLOOR, Growing
from .options import check_compat


@final
@dataclass(frozen=True)
class ITOP(Growing):
    """In-time over-parameterisation: RigL-ITOP, or SET-ITOP with `growth="random"`.

    Its options are `Growing`'s, with these defaults: ERK counts, gradient growth, updates to the
    end, half of each layer's weights moved at first and 0.5 % at last. The paper's gain comes from
    a large `update_every` (1500 steps and more at batch 128), so that new weights can grow.

    Args:
        compat: "paper" counts and ties as the published code of GraNet, which calls this method
            DST, does, see `published`; with magnitude drop and gradient growth.

    Source: Liu et al. 2021, arXiv 2102.02887.
    """

    compat: Literal["none", "paper"] | None = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = (self.drop, self._growth_part, self.redistribution, self.pattern)
        check_compat(self.compat, parts, ("magnitude", "gradient", "none", "unstructured"))

    def init(self, view: View) -> tuple[Masks, Memory]:
        """Masks with exactly `kept(N, sparsity)` weights, spread by `distribution`."""
        return self._start(view, self.sparsity)

    def fresh(self, view: View, masks: Masks) -> Masks:
        """Weights of `init`'s masks that start at 0; see `fresh_weights`."""
        return self._fresh(view, masks, self.sparsity)

    def when(self, step: int) -> bool:
        """At each multiple of `update_every` in [start, stop], and at stop."""
        if self.compat == "paper":
            return self.start_step <= step <= self.stop_step and step % self.interval == 0
        return schedules.Every(self.interval, self.start_step, self.stop_step)(step)

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        """Drop and grow; see `Regrow`."""
        fraction = self.fraction(view.step)
        if self.compat == "paper":
            return published.move(view, masks, fraction), memory
        return self._regrow.swap(view, masks, memory, fraction)

    def fraction(self, step: int) -> float:
        """A cosine from `drop_fraction` at step 0 to 0.005 at `stop`."""
        low = min(FLOOR, self.drop_fraction)
        return schedules.cosine(self.drop_fraction, low, 0, self.stop_step)(step)
