"""Train dense, prune the smallest weights once, fine-tune: the oldest method and a strong one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from .. import criteria
from .. import masks as mask_algebra
from ..patterns import Pattern
from ..prune import keep_largest
from ..types import Masks, Memory, View
from .gradual import check_channels
from .options import check_choice, check_total_steps, option, step_of


@dataclass(frozen=True)
class Magnitude:
    """One-shot magnitude pruning after optimizer step `at`, then a fixed mask.

    Args:
        sparsity: fraction of zeros from step `at` on.
        total_steps: optimizer steps of the whole training.
        at: the step (int) or fraction of the training (float) after which to prune; None is half.
        scope: rank all weights together, or each layer by itself at the same sparsity.
        pattern: "channel" prunes whole output channels, see `patterns.keep_units`.
    Source: Han et al. 2015, arXiv 1506.02626.
    """

    sparsity: float
    total_steps: int
    at: float | None = option(
        None, "prune after this step, or this fraction of the training; default: half-way"
    )
    scope: Literal["global", "layer"] = option("global", "rank all weights together or by layer")
    pattern: Pattern = option("unstructured", "prune single weights or whole output channels")

    def __post_init__(self) -> None:
        mask_algebra.check_sparsity(self.sparsity)
        check_total_steps(self.total_steps)
        if self.scope not in ("global", "layer"):
            raise ValueError(f"scope must be 'global' or 'layer', got {self.scope!r}")
        check_choice("pattern", self.pattern, get_args(Pattern))
        step_of("at", self.prune_step, self.total_steps)

    @property
    def prune_step(self) -> int:
        """The optimizer step after which the weights are pruned."""
        if self.at is None:
            return self.total_steps // 2
        return step_of("at", self.at, self.total_steps)

    def init(self, view: View) -> tuple[Masks, Memory]:
        """Dense, or pruned already when `at` is 0."""
        check_channels(view, self.sparsity, self.scope, self.pattern)
        if self.prune_step == 0:
            return self._masks(view), {}
        return {n: torch.ones_like(w, dtype=torch.bool) for n, w in view.weights.items()}, {}

    def when(self, step: int) -> bool:
        """Once, at `prune_step`."""
        return step == self.prune_step

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        """Keep the largest weights; the optimizer state of the others is zeroed by the engine."""
        return self._masks(view), memory

    def _masks(self, view: View) -> Masks:
        return keep_largest(criteria.magnitude(view), self.sparsity, self.scope, self.pattern)
