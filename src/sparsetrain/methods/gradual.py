"""Gradual pruning's one move: take active weights away until an exact count is left."""

from __future__ import annotations

from .. import criteria, patterns
from .. import masks as mask_algebra
from ..patterns import Pattern, Scope
from ..types import Masks, View
from .apportion import apportion


def prune_to(
    view: View,
    masks: Masks,
    sparsity: float,
    scope: Scope,
    *,
    classifier_sparsity: float | None = None,
    pattern: Pattern = "unstructured",
) -> Masks:
    """Drop the smallest active weights until `kept(N, sparsity)` are left in total.

    Args:
        view: weights.
        masks: current masks; what is inactive stays so, whatever its score.
        sparsity: fraction of zeros to reach.
        scope: rank all active weights together, or prune each layer to the same sparsity. A layer
            that is sparser already keeps what it has, and the others make up for it.
        classifier_sparsity: with scope "layer", the most that the last layer is pruned to.
        pattern: "channel" drops whole units, until `patterns.keep_units`' counts are left.
    Returns:
        New masks, nested in the old; the old ones where they hold no more than that already.
    """
    if pattern == "channel":
        return patterns.keep_units(criteria.magnitude(view), sparsity, scope, masks=masks)
    active = mask_algebra.count_active(masks)
    target = mask_algebra.kept(mask_algebra.total(masks), sparsity)
    if sum(active.values()) <= target:
        return dict(masks)
    scores = criteria.magnitude(view)
    if scope == "global":
        return mask_algebra.keep_global(scores, target, within=masks)
    sizes = {name: mask.numel() for name, mask in masks.items()}
    held: dict[str, int] = {}
    if classifier_sparsity is not None and sparsity > classifier_sparsity:
        last = list(masks)[-1]
        floor = mask_algebra.kept(sizes[last], classifier_sparsity)
        held = {last: min(floor, active[last], target)}
    room = {n: count for n, count in active.items() if n not in held}
    shares = {n: sizes[n] for n in room}
    left = apportion(shares, room, target - sum(held.values())) | held
    return mask_algebra.drop(masks, scores, {n: active[n] - left[n] for n in masks})


def check_channels(view: View, sparsity: float, scope: Scope, pattern: Pattern) -> None:
    """Raise ValueError before training starts if whole units cannot reach the sparsity."""
    if pattern == "channel" and scope == "global":
        shapes = {name: tuple(weight.shape) for name, weight in view.weights.items()}
        patterns.check_reachable(shapes, sparsity)
