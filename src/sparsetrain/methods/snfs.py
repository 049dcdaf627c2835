"""SNFS, sparse momentum: weights move to where the averaged dense gradient is largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from .. import schedules
from ..types import Distribution
from .growing import FLOOR, ConstantCount
from .options import option
from .start import DistributionName


@final
@dataclass(frozen=True)
class SNFS(ConstantCount):
    """Sparse networks from scratch: momentum decides where to grow and how much in each layer.

    Its options are `Growing`'s, with these defaults: uniform counts at the start, momentum growth
    and redistribution, half of each layer's weights moved at first and 0.5 % at last.

    The optimizer's momentum is zero outside the mask, so the method keeps its own average of the
    dense gradient: one float32 buffer of the network's dense size, and a dense gradient with one
    pass over that buffer at every step, 2 f_sparse + f_dense in FLOPs where RigL needs it at
    updates alone.

    Source: Dettmers & Zettlemoyer 2019, arXiv 1907.04840. Deviates: the total is exact at each
    step; shares are of the averaged gradient, also under Adam.
    """

    growth: Literal["gradient", "random", "momentum", "random-unfired"] = option(
        "momentum", "which inactive weights are grown"
    )
    redistribution: Literal["none", "magnitude", "momentum", "nonzeros"] = option(
        "momentum", "how dropped weights spread over the layers"
    )
    distribution: DistributionName | Distribution = option(
        "uniform", "kept weights of each layer at the start"
    )

    def fraction(self, step: int) -> float:
        """A cosine from `drop_fraction` at step 0 to 0.005 at `stop`."""
        return schedules.cosine(
            self.drop_fraction, min(FLOOR, self.drop_fraction), 0, self.stop_step
        )(step)
