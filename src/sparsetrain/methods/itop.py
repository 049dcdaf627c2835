"""ITOP: move weights to the very end, so that many places have been tried in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from .. import schedules
from .growing import FLOOR, ConstantCount


@final
@dataclass(frozen=True)
class ITOP(ConstantCount):
    """In-time over-parameterisation: RigL-ITOP, or SET-ITOP with `growth="random"`.

    Its options are `Growing`'s, with these defaults: ERK counts, gradient growth, updates to the
    end, half of each layer's weights moved at first and 0.5 % at last. The paper's gain comes from
    a large `update_every` (1500 steps and more at batch 128), so that new weights can grow.

    Source: Liu et al. 2021, arXiv 2102.02887.
    """

    def fraction(self, step: int) -> float:
        """A cosine from `drop_fraction` at step 0 to 0.005 at `stop`."""
        low = min(FLOOR, self.drop_fraction)
        return schedules.cosine(self.drop_fraction, low, 0, self.stop_step)(step)
