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
from .options import check_choice, check_total_steps, option


@dataclass(frozen=True)
class Magnitude:
    """One-shot magnitude pruning after optimizer step `at`, then a fixed mask.

    Args:
        sparsity: fraction of zeros from step `at` on.
        total_steps: optimizer steps of the whole training.
        at: the step after which to prune, 0 <= at <= total_steps; None is half of `total_steps`.
        scope: rank all weights together, or each layer by itself at the same sparsity.
        pattern: "channel" prunes whole output channels, see `patterns.keep_units`.
    Source: Han et al. 2015, arXiv 1506.02626.
    """

    sparsity: float
    total_steps: int
    at: int | None = option(None, "optimizer step after which to prune; default: half-way")
    scope: Literal["global", "layer"] = option("global", "rank all weights together or by layer")
    pattern: Pattern = option("unstructured", "prune single weights or whole output channels")

    def __post_init__(self) -> None:
        mask_algebra.check_sparsity(self.sparsity)
        check_total_steps(self.total_steps)
        if self.scope not in ("global", "layer"):
            raise ValueError(f"scope must be 'global' or 'layer', got {self.scope!r}")
        check_choice("pattern", self.pattern, get_args(Pattern))
        if self.at is not None and not 0 <= self.at <= self.total_steps:
            raise ValueError(f"at must be in [0, total_steps={self.total_steps}], got {self.at}")

    @property
    def prune_step(self) -> int:
        """The optimizer step after which the weights are pruned."""
        return self.total_steps // 2 if self.at is None else self.at

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
