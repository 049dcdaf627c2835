"""RigL: drop the smallest weights, grow where the dense gradient is largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

from .. import schedules
from .growing import ConstantCount
from .options import option


@final
@dataclass(frozen=True)
class RigL(ConstantCount):
    """Each update moves f_t = drop_fraction (1 + cos(pi t / stop)) / 2 of a layer's weights.

    Its options are `Growing`'s, with these defaults: ERK counts, 30 % at first, falling to nothing
    at three quarters of the training, where updates end.

    Args:
        skip_weight_step: an update takes the place of the weight step, as in the original code: no
            parameter moves and no optimizer state changes. The step counts all the same.

    Source: Evci et al. 2020, arXiv 1911.11134; google-research/rigl. Deviates: an update follows
    the weight step unless `skip_weight_step` is set; no noise is added to break ties; the first
    update is after `update_every` steps, not before the first.
    """

    stop: float = option(0.75, "last update: a step, or a fraction of the training")
    drop_fraction: float = option(0.3, "fraction of each layer's weights that is moved at first")
    skip_weight_step: bool = option(False, "an update takes the place of the weight step")

    rounding: ClassVar[Literal["up", "down"]] = "down"

    def fraction(self, step: int) -> float:
        """A cosine from `drop_fraction` at step 0 to 0 at `stop`."""
        return schedules.cosine(self.drop_fraction, 0.0, 0, self.stop_step)(step)
