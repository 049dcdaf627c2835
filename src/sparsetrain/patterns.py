"""Which weights are chosen together: each by itself, or whole channels.

A unit is one index of a parameter's first dimension: an output channel of a convolution, a neuron
of a linear layer, a row of a gate or of a fused projection. A transposed convolution keeps its
*input* channels first, so there a unit is what one input channel sends. Masks of units are 1-d bool
tensors, one entry a unit, and the algebra of `masks` (drop, grow, keep_layerwise) works on them.

What is zero: all weights of a dropped unit, nothing else. Its bias, its batch-norm scale, shift and
running statistics stay, and so do the next layer's weights that read it: the channel goes on giving
a constant. The tensors keep their shapes.

The last layer stays whole unless it is the only one, because its units are the classes. A layer is
never emptied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from . import masks as mask_algebra
from . import sharded
from .types import Masks, Shapes, Tensors

Pattern: TypeAlias = Literal["unstructured", "channel"]
Scope: TypeAlias = Literal["global", "layer"]


def unit_scores(scores: Tensors) -> dict[str, Tensor]:
    """The sum of each unit's scores.

    Args:
        scores: name -> tensor; -inf forbids the unit.
    Returns:
        name -> 1-d tensor, one entry a unit; at least float32, and integers stay integers.
    """
    return {name: sharded.row_wise(_sums, score) for name, score in scores.items()}


def units_of(masks: Tensors) -> Masks:
    """Which units have an active weight: name -> 1-d bool."""
    return {
        name: sharded.row_wise(lambda rows: _rows(rows).any(1), mask)
        for name, mask in masks.items()
    }


def expand(units: Tensors, like: Tensors) -> Masks:
    """Masks of weights that are active where their unit is.

    Args:
        units: name -> 1-d bool, one entry a unit.
        like: name -> tensor that gives shape, device and memory format.
    """
    out: Masks = {}
    for name, tensor in like.items():
        rows = (
            units[name].to(tensor.device)[:, None].expand(_units(tensor.shape), _size(tensor.shape))
        )
        mask = rows.reshape(tensor.shape)
        if sharded.is_sharded(tensor):
            out[name] = sharded.place(mask, tensor)
        else:
            out[name] = torch.empty_like(tensor, dtype=torch.bool).copy_(mask)
    return out


def scores_of(scores: Tensors, pattern: Pattern) -> Tensors:
    """The scores of what the pattern chooses: weights as they are, or sums over units."""
    return unit_scores(scores) if pattern == "channel" else scores


def places_of(masks: Tensors, pattern: Pattern) -> Tensors:
    """The masks of what the pattern chooses: of weights as they are, or of units."""
    return units_of(masks) if pattern == "channel" else masks


def masks_of(places: Masks, like: Tensors, pattern: Pattern) -> Masks:
    """Masks of weights, from what `places_of` gives; `like` as for `expand`."""
    return expand(places, like) if pattern == "channel" else places


def unit_counts(shapes: Shapes, counts: Mapping[str, int]) -> dict[str, int]:
    """Whole units for a layer-wise distribution: each count rounded up, at least one a layer.

    Args:
        shapes: name -> shape of each prunable weight.
        counts: name -> weights of each layer, as a distribution gives them.
    Returns:
        name -> units; all of the last layer's.
    """
    whole = _whole(shapes)
    units = {name: _units(shape) for name, shape in shapes.items()}
    return {
        name: units[name] if name == whole else max(1, -(-counts[name] // max(1, _size(shape))))
        for name, shape in shapes.items()
    }


def keep_units(
    scores: Tensors, sparsity: float, scope: Scope = "global", *, masks: Tensors | None = None
) -> Masks:
    """Keep the units with the largest scores; ties go to the earlier layer and the lower index.

    Scope "layer" keeps `kept(C, sparsity)` of the C units of each layer. Scope "global" ranks the
    units of all layers by their *mean* score, as sums would favour wide layers, and keeps the
    fewest from the top that hold at least `kept(N, sparsity)` of all N weights, the last layer's
    counted in; the best unit of each layer stays.

    Args:
        scores: name -> score of each weight.
        sparsity: fraction of zeros over all weights, 0 <= sparsity < 1.
        scope: rank all layers together, or each by itself.
        masks: name -> bool of whole units; what is inactive stays so. None: everything is active.
    Returns:
        name -> bool mask of whole units.
    Raises:
        ValueError: with scope "global", `check_reachable`'s; a NaN score; an unknown scope.
    Source: Li et al. 2017, arXiv 1608.08710, for the sum of |w|. Deviates: the global ranking and
        the counts are this library's own.
    """
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    active = {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()}
    units, points = units_of(active if masks is None else masks), unit_scores(scores)
    if scope == "global":
        check_reachable(shapes, sparsity)
        return expand(_top_units(points, units, shapes, sparsity), scores)
    if scope != "layer":
        raise ValueError(f"scope must be 'global' or 'layer', got {scope!r}")
    whole, alive = _whole(shapes), mask_algebra.count_active(units)
    surplus = {
        name: 0 if name == whole else max(0, alive[name] - mask_algebra.kept(len(unit), sparsity))
        for name, unit in units.items()
    }
    return expand(mask_algebra.drop(units, points, surplus), scores)


def check_reachable(shapes: Shapes, sparsity: float) -> None:
    """Whether whole units can reach a sparsity over all layers together.

    Raises:
        ValueError: the last layer and one unit of each other hold more than is to stay.
    """
    n, least, whole = _total(shapes), _least(shapes), _whole(shapes)
    target = mask_algebra.kept(n, sparsity)
    if least > target:
        raise ValueError(
            f"sparsity={sparsity:g} leaves {target} of {n} weights, but pattern='channel' keeps "
            f"{least}: one unit of each layer, and {whole or 'the layer'} whole; lower the "
            f"sparsity to {most_sparse(shapes):g}, or take scope='layer' or "
            "pattern='unstructured'"
        )


def most_sparse(shapes: Shapes) -> float:
    """The fraction of zeros that whole units reach over all layers together, to three digits."""
    return math.floor(1000 * (1 - _least(shapes) / _total(shapes))) / 1000


def _least(shapes: Shapes) -> int:
    """Weights of one unit of each layer, and all of the last."""
    whole = _whole(shapes)
    return sum(
        math.prod(shape) if name == whole else _size(shape) for name, shape in shapes.items()
    )


def _total(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes.values()))


def check_whole(masks: Tensors) -> None:
    """Raise ValueError, naming the first such layer, if a mask cuts through a unit."""
    for name, mask in masks.items():
        rows = _rows(mask)
        if not torch.equal(rows.any(1), rows.all(1)):
            raise ValueError(
                f"masks[{name!r}] keeps parts of channels, but pattern='channel' moves whole ones; "
                "make the masks with st.prune(…, pattern='channel') or leave the pattern out"
            )


def _top_units(points: Tensors, units: Masks, shapes: Shapes, sparsity: float) -> Masks:
    """Masks of units for scope "global"; a few thousand numbers, so all on the CPU."""
    if bad := [name for name, point in points.items() if torch.isnan(point).any()]:
        raise ValueError(f"scores are NaN in {', '.join(bad)}; look for a diverged loss first.")
    lengths = torch.tensor([len(point) for point in points.values()])
    sizes = torch.tensor([_size(shape) for shape in shapes.values()])
    layer = torch.arange(len(lengths)).repeat_interleave(lengths)
    weights = sizes[layer]
    means = torch.cat([point.cpu().double() for point in points.values()]) / weights.clamp(min=1)
    alive = torch.cat([unit.cpu() for unit in units.values()])
    # Stable, so that ties go to the earlier layer and the lower index.
    order = means.argsort(descending=True, stable=True)
    order = order[alive[order]]
    chosen = torch.zeros_like(alive)
    for place in range(len(lengths)):
        chosen[order[layer[order] == place][:1]] = True
    if _whole(shapes) is not None:
        chosen |= alive & (layer == len(lengths) - 1)
    n = sum(math.prod(shape) for shape in shapes.values())
    missing = mask_algebra.kept(n, sparsity) - int(weights[chosen].sum())
    rest = order[~chosen[order]]
    before = weights[rest].cumsum(0) - weights[rest]
    chosen[rest[before < missing]] = True
    return dict(zip(points, chosen.split(lengths.tolist()), strict=True))


def _whole(shapes: Mapping[str, object]) -> str | None:
    """The layer that is left whole: the last, unless it is the only one."""
    return list(shapes)[-1] if len(shapes) > 1 else None


def _units(shape: Sequence[int]) -> int:
    return shape[0] if len(shape) else 1


def _size(shape: Sequence[int]) -> int:
    """Weights of one unit."""
    return math.prod(shape[1:])


def _rows(tensor: Tensor) -> Tensor:
    """The tensor as units x weights of one unit."""
    shape = tuple(tensor.shape)
    return tensor.reshape(_units(shape), _size(shape))


def _sums(score: Tensor) -> Tensor:
    rows = _rows(score.detach())
    # float32 at least: a sum of a thousand values in bfloat16 stops growing.
    wide = torch.promote_types(score.dtype, torch.float32) if score.is_floating_point() else None
    return rows.sum(1, dtype=wide)
