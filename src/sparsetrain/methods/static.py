"""A fixed mask, by a layer-wise distribution or given: the floor every method must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from .. import masks as mask_algebra
from ..patterns import Pattern
from ..types import Distribution, Masks, Memory, View
from .options import check_total_steps, option
from .start import DistributionName, StartMask, check_start, fresh_weights, start_masks


@dataclass(frozen=True)
class Static:
    """`distribution` weights a layer at random positions, never changed; or the masks given.

    Args:
        sparsity: fraction of zeros over all selected weights; not used when `masks` is given.
        total_steps: taken, as by every method, and not used.
        distribution: how the kept weights spread over the layers; a name, or a function such as
            `st.distributions.given({…})`.
        start_mask: random positions, the largest weights of each layer or of all, or as
            `start_masks` says.
        pattern: "channel" keeps whole output channels, see `patterns`.
        masks: name -> bool tensor, True where a weight stays; from `st.prune`, ART or a file.
    Source: Liu et al. 2022, arXiv 2202.02643.
    """

    sparsity: float = 0.0
    total_steps: int = 1
    distribution: DistributionName | Distribution = option("erk", "kept weights of each layer")
    start_mask: StartMask = option("random", "positions: random, or the largest weights")
    pattern: Pattern = option("unstructured", "keep single weights or whole output channels")
    # Tensors neither compare nor hash as values do.
    masks: Mapping[str, Tensor] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        mask_algebra.check_sparsity(self.sparsity)
        check_total_steps(self.total_steps)
        check_start(self)

    def init(self, view: View) -> tuple[Masks, Memory]:
        """The given masks, or those of `start_mask` with exactly the distribution's counts."""
        if self.masks is not None:
            return dict(self.masks), {}
        masks = start_masks(
            view,
            self.sparsity,
            distribution=self.distribution,
            start_mask=self.start_mask,
            pattern=self.pattern,
        )
        return masks, {}

    def fresh(self, view: View, masks: Masks) -> Masks:
        """Weights of `init`'s masks that start at 0; see `fresh_weights`."""
        if self.masks is not None or self.sparsity == 0:
            return {}
        return fresh_weights(view, masks, start_mask=self.start_mask, pattern=self.pattern)

    def when(self, step: int) -> bool:
        """Never."""
        return False

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        """Nothing changes."""
        return masks, memory
