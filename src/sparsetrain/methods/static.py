"""A fixed mask, random by a layer-wise distribution or given: the floor every method must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .. import criteria, distributions
from .. import masks as mask_algebra
from ..types import Masks, Memory, View
from .options import option

_DISTRIBUTIONS = {
    "uniform": distributions.uniform,
    "er": distributions.er,
    "erk": distributions.erk,
}


@dataclass(frozen=True)
class Static:
    """Random positions, `distribution` weights a layer, never changed; or the masks given.

    Args:
        sparsity: fraction of zeros over all selected weights; not used when `masks` is given.
        total_steps: taken, as by every method, and not used.
        distribution: how the kept weights spread over the layers.
        masks: name -> bool tensor, True where a weight stays; from `st.prune`, ART or a file.
    Source: Liu et al. 2022, arXiv 2202.02643.
    """

    sparsity: float = 0.0
    total_steps: int = 1
    distribution: Literal["uniform", "er", "erk"] = option("erk", "kept weights of each layer")
    masks: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        mask_algebra.check_sparsity(self.sparsity)
        if self.distribution not in _DISTRIBUTIONS:
            known = ", ".join(_DISTRIBUTIONS)
            raise ValueError(f"distribution must be one of {known}, got {self.distribution!r}")

    def init(self, view: View) -> tuple[Masks, Memory]:
        """The given masks, or random ones with exactly the distribution's counts."""
        if self.masks is not None:
            return dict(self.masks), {}
        shapes = {name: tuple(weight.shape) for name, weight in view.weights.items()}
        counts = _DISTRIBUTIONS[self.distribution](shapes, self.sparsity)
        return mask_algebra.keep_layerwise(criteria.random(view), counts), {}

    def when(self, step: int) -> bool:
        """Never."""
        return False

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        """Nothing changes."""
        return masks, memory
