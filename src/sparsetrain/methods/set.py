"""SET: drop the smallest weights, grow as many at random; the first of its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from ..types import Distribution
from .growing import ConstantCount
from .options import option
from .start import DistributionName


@final
@dataclass(frozen=True)
class Set(ConstantCount):
    """Sparse evolutionary training: a constant fraction moves at each update, to random places.

    Its options are `Growing`'s, with these defaults: Erdos-Renyi counts, 30 % dropped, random
    growth, no decay, and no update in the last quarter, as new weights need steps to learn.
    `drop="set"` is the paper's rule by sign; "magnitude" is what comparisons run under this name.

    Source: Mocanu et al. 2018, arXiv 1707.04780. Deviates: updates by steps, not by epochs.
    """

    stop: float = option(0.75, "last update: a step, or a fraction of the training")
    drop_fraction: float = option(0.3, "fraction of each layer's weights that is moved")
    drop: Literal["magnitude", "set", "threshold", "taylor"] = option(
        "magnitude", "which active weights are dropped; set: by sign"
    )
    growth: Literal["gradient", "random", "momentum", "random-unfired"] = option(
        "random", "which inactive weights are grown"
    )
    distribution: DistributionName | Distribution = option(
        "er", "kept weights of each layer at the start"
    )

    def fraction(self, step: int) -> float:
        """Always `drop_fraction`."""
        return self.drop_fraction
