"""GraNet, GMP and ITOP by the published code's counts and ties, to reproduce its numbers exactly.

Nothing here is exact: global pruning keeps one weight fewer than asked, the final sparsity is
never reached, tied weights go together, and growth may pick active places and lose weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from .. import criteria
from .. import masks as mask_algebra
from ..types import Masks, View


@dataclass(frozen=True)
class Window:
    """Gradual pruning as the published code counts it: in updates, the last of which is not made.

    Attributes:
        interval: optimizer steps between two updates.
        start: step of the first update that prunes.
        stop: step at which the final sparsity would be reached.
    """

    interval: int
    start: int
    stop: int

    def sparsity_at(self, step: int, initial: float, final: float) -> float:
        """Zeros asked for at a step."""
        update, first, last = (s // self.interval for s in (step, self.start, self.stop))
        return cubic_sparsity(initial, final, update, first, last)

    def prune(self, view: View, masks: Masks, sparsity: float) -> Masks:
        """`prune_global` inside the window, the masks as they are outside."""
        update, first, last = (s // self.interval for s in (view.step, self.start, self.stop))
        return prune_global(view, masks, sparsity) if first <= update < last else masks


def cubic_sparsity(initial: float, final: float, update: int, first: int, last: int) -> float:
    """Zeros asked for at an update, in the floating-point order that gives the published counts.

    Args:
        initial: fraction of zeros at the start.
        final: fraction of zeros that the schedule leads to.
        update: number of the update, from 0.
        first: number of the first update.
        last: number of the update at which `final` would be reached; it is not made.
    """
    update = min(update, last - 1)
    if update <= first:
        return initial
    dense_first, dense_last = (float(1 - Fraction(repr(float(s)))) for s in (initial, final))
    left = (1 - (update - first) / (last - first)) ** 3
    return (1 - dense_first) + (dense_first - dense_last) * (1 - left)


def prune_global(view: View, masks: Masks, sparsity: float) -> Masks:
    """Keep what is strictly above the K-th largest |w| with K = int(N (1 - sparsity))."""
    scores = {n: w.abs() * masks[n] for n, w in view.weights.items()}
    total = mask_algebra.total(masks)
    border = mask_algebra.score_at(scores, total - max(int(total * (1 - sparsity)), 1))
    return {name: score > border for name, score in scores.items()}


def move(view: View, masks: Masks, fraction: float) -> Masks:
    """Drop each layer's weights up to the border of `fraction`, ties included; grow as many.

    Growth takes the largest |gradient|, set to zero on active places, so that too few non-zero
    gradients pick active places and the layer loses weights.
    """
    active = mask_algebra.count_active(masks)
    left: Masks = {}
    for name, mask in masks.items():
        score = view.weights[name].abs() * mask
        rank = mask.numel() - active[name] + math.ceil(fraction * active[name]) - 1
        left[name] = score > mask_algebra.score_at({name: score}, rank) if rank >= 0 else mask
    counts = mask_algebra.count_active(left)
    scores = {n: grad * ~left[n] for n, grad in criteria.gradient(view).items()}
    grown = mask_algebra.keep_layerwise(scores, {n: active[n] - counts[n] for n in masks})
    return {name: left[name] | grown[name] for name in masks}
