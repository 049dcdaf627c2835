"""A fixed mask, random by a layer-wise distribution or given: the floor every method must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from .. import masks as mask_algebra
from ..types import Masks, Memory, View
from .options import check_choice, check_total_steps, option
from .start import DISTRIBUTIONS, start_masks


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
    distribution: Literal["uniform", "er", "erk", "smart_ratio"] = option(
        "erk", "kept weights of each layer"
    )
    # Tensors neither compare nor hash as values do.
    masks: Mapping[str, Tensor] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        mask_algebra.check_sparsity(self.sparsity)
        check_total_steps(self.total_steps)
        check_choice("distribution", self.distribution, tuple(DISTRIBUTIONS))

    def init(self, view: View) -> tuple[Masks, Memory]:
        """The given masks, or random ones with exactly the distribution's counts."""
        if self.masks is not None:
            return dict(self.masks), {}
        masks = start_masks(
            view, self.sparsity, distribution=self.distribution, start_mask="random"
        )
        return masks, {}

    def when(self, step: int) -> bool:
        """Never."""
        return False

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        """Nothing changes."""
        return masks, memory
