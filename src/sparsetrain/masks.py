"""Mask algebra on dicts of tensors: exact counts, ties by flat index, no sort.

A position's flat index is its logical, row-major one, whatever the memory format. Over several
layers the flat index runs through them in the order of the dict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import reduce
from typing import SupportsFloat

import numpy as np
import torch
from torch import Tensor

from . import sharded
from .kernels import count_true, kth_smallest
from .packing import digest as digest
from .packing import pack as pack
from .packing import unpack as unpack
from .types import Masks, Tensors


def check_sparsity(sparsity: SupportsFloat, *, name: str = "sparsity") -> float:
    """The sparsity as a float, if it is one.

    Args:
        sparsity: fraction of zeros, 0 <= sparsity < 1. A float32 or float16 scalar of NumPy or
            torch means the shortest decimal that its dtype tells apart: float32 0.9 is 0.9.
        name: what the message calls the value.

    Returns:
        The value as a Python float.

    Raises:
        ValueError: not a number in [0, 1).
    """
    value = _as_float(sparsity)
    if value is None:
        raise ValueError(f"{name} must be a number in [0, 1), got {sparsity!r}.")
    if 0 <= value < 1:
        return value
    hint = f" Did you mean {value / 100:.12g}?" if 1 < value < 100 else ""
    if value == 1:
        hint = " No weight would be left; 0.99 keeps one in a hundred."
    raise ValueError(f"{name} must be in [0, 1), got {value:g}.{hint}")


def _as_float(value: SupportsFloat) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.detach().cpu()
        value = value.float() if value.dtype is torch.bfloat16 else value
        value = value.numpy().reshape(())[()]
    if isinstance(value, np.floating):
        return float(str(value))
    if isinstance(value, str | bytes):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def kept(n: int, sparsity: SupportsFloat) -> int:
    """How many of `n` weights stay: n - floor(sparsity * n), in decimal as the number is written.

    Args:
        n: number of weights, at least 0.
        sparsity: fraction of zeros, 0 <= sparsity < 1.

    Returns:
        The kept count; `kept(100, 0.29)` is 71, where binary floating point would say 72.

    Raises:
        ValueError: sparsity not in [0, 1), or n negative.
    """
    if n < 0:
        raise ValueError(f"n must be a number of weights, 0 or more, got {n}.")
    return n - math.floor(Decimal(repr(check_sparsity(sparsity))) * n)


def keep_global(scores: Tensors, count: int, *, within: Tensors | None = None) -> Masks:
    """Keep the `count` largest scores over all layers together.

    Args:
        scores: name -> tensor of any shape; -inf forbids a position.
        count: weights kept in total, 0 <= count <= number of positions that are not forbidden.
        within: name -> bool mask for the same names; no other position is read or kept. None
            means all.

    Returns:
        name -> bool mask of the same shape and device, exactly `count` True; ties go to the lower
        flat index.

    Raises:
        ValueError: count out of range, or a NaN score (the message names the layer).
    """
    if within is not None:
        _check_names(scores, within)
    if sharded.any_sharded(scores.values()):
        group = sharded.Group(list(scores), count, "over all layers")
        return sharded.keep_largest(scores, [group], within=within)
    return _top(_checked(scores, within), count, within, what="over all layers")


def keep_layerwise(scores: Tensors, counts: Mapping[str, int]) -> Masks:
    """Keep the `counts[name]` largest scores of each layer.

    Args:
        scores: name -> tensor of any shape; -inf forbids a position.
        counts: name -> weights kept in this layer, for the same names.

    Returns:
        name -> bool mask of the same shape and device, exactly `counts[name]` True; ties go to the
        lower flat index.

    Raises:
        ValueError: a count out of range, other names, or a NaN score.
    """
    _check_names(scores, counts)
    if sharded.any_sharded(scores.values()):
        return sharded.keep_largest(scores, _layers(counts, scores, "in"))
    out: Masks = {}
    for name, score in scores.items():
        out |= _top(_checked({name: score}), counts[name], what=f"in {name}")
    return out


def keep_global_strict(scores: Tensors, index: int) -> Masks:
    """Keep what is strictly above the score of ascending rank `index` over all layers together.

    The published rule of HyperSparse, for comparisons with its results: n - index - 1 survive,
    fewer where the border is tied.

    Args:
        scores: name -> tensor of any shape, one dtype and device.
        index: 0-based rank of the border, 0 <= index < number of positions.

    Returns:
        name -> bool mask of the same shape and device.

    Raises:
        ValueError: index out of range, or a NaN score.

    Source: GreenAutoML4FAS/HyperSparse, utils/pruner.py.
    """
    border = score_at(scores, index)
    return {name: score > border for name, score in scores.items()}


def score_at(scores: Tensors, index: int) -> Tensor:
    """The score of 0-based ascending rank `index` over all layers together, 0-d.

    Raises:
        ValueError: index out of range, or a NaN score.
    """
    if sharded.any_sharded(scores.values()):
        return sharded.kth_smallest(list(scores.values()), index)
    return kth_smallest(_checked(scores).values(), index)


def drop(masks: Tensors, scores: Tensors, counts: Mapping[str, int]) -> Masks:
    """Switch off the `counts[name]` active positions with the smallest score in each layer.

    Args:
        masks: name -> bool mask; not changed.
        scores: name -> tensor of the mask's shape; only active positions are read.
        counts: name -> how many to switch off, for the same names.

    Returns:
        name -> new mask; of equal scores the lower flat index is kept.

    Raises:
        ValueError: more than are active, other names, or a NaN score.
    """
    _check_names(masks, scores, counts)
    active = count_active(masks)
    left = {name: active[name] - counts[name] for name in masks}
    for name, count in left.items():
        if not 0 <= count <= active[name]:
            raise ValueError(
                f"counts[{name!r}] must be in [0, {active[name]}], the active weights, "
                f"got {counts[name]}."
            )
    if sharded.any_sharded(masks.values()):
        return sharded.keep_largest(scores, _layers(left, masks, "active in"), within=masks)
    out: Masks = {}
    for name, mask in masks.items():
        within = {name: mask}
        layer = _checked({name: scores[name]}, within)
        border = _border(layer, counts[name], within) if left[name] else None
        out |= _above(layer, left[name], border, within)
    return out


def grow(
    masks: Tensors, scores: Tensors, counts: Mapping[str, int], *, allowed: Tensors | None = None
) -> Masks:
    """Switch on the `counts[name]` inactive positions with the largest score in each layer.

    Args:
        masks: name -> bool mask; not changed. No active position is ever chosen.
        scores: name -> tensor of the mask's shape; only inactive positions are read, -inf forbids.
        counts: name -> how many to switch on, for the same names.
        allowed: name -> bool, True where growth may happen; None allows it everywhere.

    Returns:
        name -> new mask; of equal scores the lower flat index is chosen.

    Raises:
        ValueError: more than may grow, other names, or a NaN score.
    """
    _check_names(masks, scores, counts, *([] if allowed is None else [allowed]))
    out: Masks = {}
    if sharded.any_sharded(masks.values()):
        open_to = {n: ~m if allowed is None else ~m & allowed[n] for n, m in masks.items()}
        groups = _layers(counts, masks, "free to grow in")
        grown = sharded.keep_largest(scores, groups, within=open_to)
        return {name: mask | grown[name] for name, mask in masks.items()}
    for name, mask in masks.items():
        free = ~mask if allowed is None else ~mask & allowed[name]
        layer = _checked({name: scores[name]}, {name: free})
        chosen = _top(layer, counts[name], {name: free}, what=f"free to grow in {name}")
        out[name] = mask | chosen[name]
    return out


def count_active(masks: Tensors) -> dict[str, int]:
    """Active positions of each layer; one read from the device, or message, for all of them."""
    if sharded.any_sharded(masks.values()):
        return dict(zip(masks, sharded.count_true(masks.values()), strict=True))
    return dict(zip(masks, count_true(masks.values()), strict=True))


def total(tensors: Tensors) -> int:
    """Number of entries of all tensors together."""
    return sum(tensor.numel() for tensor in tensors.values())


def sparsity(masks: Tensors) -> float:
    """Fraction of inactive positions over all layers together.

    Raises:
        ValueError: there is no position.
    """
    n = total(masks)
    if n == 0:
        raise ValueError("masks is empty; there is no sparsity of nothing.")
    return (n - sum(count_active(masks).values())) / n


def _check_names(reference: Tensors, *others: Mapping[str, object]) -> None:
    for other in others:
        if odd := sorted(reference.keys() ^ other.keys()):
            raise ValueError(
                f"masks, scores and counts must name the same layers; not in all: {', '.join(odd)}."
            )


def _layers(counts: Mapping[str, int], like: Tensors, what: str) -> list[sharded.Group]:
    return [sharded.Group([name], counts[name], f"{what} {name}") for name in like]


def _checked(scores: Tensors, within: Tensors | None = None) -> Tensors:
    """The scores in one dtype, if none that is read is NaN."""
    if not scores:
        raise ValueError("scores is empty; there is no layer to choose weights from.")
    # One NaN makes the sum NaN, and a sum fills no buffer: nine times faster than isnan and any.
    seen = [(s.dtype, torch.isnan(s.detach().sum())) for s in scores.values()]
    dtypes, flags = zip(*seen, strict=True)
    bad = [n for n, flag in zip(scores, _to_host(flags), strict=True) if flag]
    if bad := [n for n in bad if _has_nan(scores[n], None if within is None else within[n])]:
        raise ValueError(
            f"scores are NaN in {', '.join(bad)}; look for a diverged loss before pruning."
        )
    if len(set(dtypes)) == 1:
        return scores
    dtype = reduce(torch.promote_types, dtypes)
    return {name: score.detach().to(dtype) for name, score in scores.items()}


def _has_nan(score: Tensor, within: Tensor | None) -> bool:
    nan = torch.isnan(score.detach())  # the sum of two infinities is NaN too
    return bool((nan if within is None else nan & within).any())


def _top(scores: Tensors, count: int, within: Tensors | None = None, *, what: str) -> Masks:
    """Masks of the `count` largest scores within; -inf is never chosen."""
    n = total(scores) if within is None else sum(count_active(within).values())
    border = _border(scores, n - count, within) if 0 < count <= n else None
    if not 0 <= count <= n or (border is not None and bool(border == -math.inf)):
        allowed = {name: score != -math.inf for name, score in scores.items()}
        if within is not None:
            allowed = {name: mask & within[name] for name, mask in allowed.items()}
        n = sum(count_active(allowed).values())
        raise ValueError(f"count must be in [0, {n}], the positions {what}, got {count}.")
    return _above(scores, count, border, within)


def _border(scores: Tensors, rank: int, within: Tensors | None) -> Tensor:
    """The score of ascending rank `rank` within; it and what is above it are kept."""
    where = None if within is None else [within[name] for name in scores]
    return kth_smallest(scores.values(), rank, where=where)


def _above(scores: Tensors, count: int, border: Tensor | None, within: Tensors | None) -> Masks:
    """What lies within and not below the border, less its last ties, so that `count` are left."""
    if border is None:
        return {n: torch.zeros_like(s, dtype=torch.bool) for n, s in scores.items()}
    masks = {name: score >= border for name, score in scores.items()}
    if within is not None:
        for name, mask in masks.items():
            mask &= within[name]
    surplus = sum(count_active(masks).values()) - count
    for name in reversed(masks):
        if surplus == 0:
            break
        tied = (masks[name] & (scores[name] == border)).flatten()
        last = tied.nonzero().squeeze(1)[-surplus:]
        masks[name][torch.unravel_index(last, masks[name].shape)] = False
        surplus -= len(last)
    return masks


def _to_host(scalars: Iterable[Tensor]) -> list[int]:
    """The 0-d tensors as numbers, with one wait for the device instead of one each."""
    scalars = list(scalars)
    return torch.stack([s.to(scalars[0].device) for s in scalars]).tolist() if scalars else []
