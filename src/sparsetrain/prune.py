"""One-shot pruning: scores in, exact masks out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from . import criteria, distributions, patterns
from . import masks as mask_algebra
from .patterns import Pattern, Scope
from .selection import Patterns, select
from .types import Criterion, Masks, View
from .weight_norm import check_directions, directions

_CRITERIA: dict[str, Criterion] = {
    "magnitude": criteria.magnitude,
    "random": criteria.random,
    "gradient": criteria.gradient,
    "taylor": criteria.taylor,
}


def keep_largest(
    scores: Mapping[str, Tensor],
    sparsity: float,
    scope: Scope = "global",
    pattern: Pattern = "unstructured",
) -> Masks:
    """Masks that keep exactly the `kept(N, sparsity)` largest of all N scores.

    Args:
        scores: name -> score, any shape.
        sparsity: fraction of zeros, 0 <= sparsity < 1.
        scope: rank all layers together, or give each layer the same sparsity (integers by
            largest remainder under the exact total).
        pattern: "channel" keeps whole units, by `patterns.keep_units`' counts.
    Raises:
        ValueError: sparsity, scope or pattern out of range, or a NaN score.
    """
    if pattern == "channel":
        return patterns.keep_units(scores, sparsity, scope)
    if pattern != "unstructured":
        raise ValueError(f"pattern must be 'unstructured' or 'channel', got {pattern!r}")
    if scope == "global":
        total = sum(score.numel() for score in scores.values())
        return mask_algebra.keep_global(scores, mask_algebra.kept(total, sparsity))
    if scope != "layer":
        raise ValueError(f"scope must be 'global' or 'layer', got {scope!r}")
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    return mask_algebra.keep_layerwise(scores, distributions.uniform(shapes, sparsity))


@torch.no_grad()
def prune(
    model: nn.Module,
    sparsity: float,
    criterion: Literal["magnitude", "random", "gradient", "taylor"] | Criterion = "magnitude",
    scope: Scope = "global",
    *,
    pattern: Pattern = "unstructured",
    include: Patterns = None,
    exclude: Patterns = None,
    seed: int = 0,
) -> Masks:
    """Zero all but the best-scored weights of a model, in place, in one shot.

    Fine-tune the result with `st.Sparsifier(model, optimizer, st.methods.static(masks=masks))`.

    Args:
        model: any module; only its selected weights change.
        sparsity: fraction of zeros over the selected weights, 0 <= sparsity < 1.
        criterion: a name, or a function from a View to scores; `gradient` and `taylor` read
            `p.grad`, so run a backward first.
        scope: rank all layers together or each by itself.
        pattern: "channel" keeps or zeroes whole output channels, see `patterns`; the counts are
            `patterns.keep_units`'.
        include: patterns of `st.select`.
        exclude: patterns of `st.select`.
        seed: of the random criterion.
    Returns:
        name -> bool mask, exactly `kept(N, sparsity)` True in total (single weights).
    Raises:
        ValueError: nothing is prunable, an argument is out of range, or a row under weight norm
            would lose all its weights; the model is unchanged.
    """
    parameters = select(model, include, exclude)
    score = _CRITERIA.get(criterion) if isinstance(criterion, str) else criterion
    if score is None:
        known = ", ".join(_CRITERIA)
        raise ValueError(f"criterion must be {known} or a function, got {criterion!r}")
    view = View(
        step=0,
        weights={name: p.detach() for name, p in parameters.items()},
        grads={name: p.grad for name, p in parameters.items() if p.grad is not None},
        momenta={},
        generator=torch.Generator().manual_seed(seed),
    )
    masks = keep_largest(score(view), sparsity, scope, pattern)
    check_directions(masks, directions(model, parameters))
    for name, parameter in parameters.items():
        parameter.masked_fill_(~masks[name], 0)  # not a product: infinity times 0 is NaN
    return masks
