"""Mask algebra on dicts of tensors: exact counts, ties by flat index, no sort.

A position's flat index is its logical, row-major one, whatever the memory format. Over several
layers the flat index runs through them in the order of the dict.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from typing import SupportsFloat

import numpy as np
import torch
from torch import Tensor

from .kernels import kth_smallest
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


def keep_global(scores: Tensors, count: int) -> Masks:
    """Keep the `count` largest scores over all layers together.

    Args:
        scores: name -> tensor of any shape; -inf forbids a position.
        count: weights kept in total, 0 <= count <= number of positions that are not forbidden.

    Returns:
        name -> bool mask of the same shape and device, exactly `count` True; ties go to the lower
        flat index.

    Raises:
        ValueError: count out of range, or a NaN score (the message names the layer).
    """
    _check_nan(scores)
    tensors = _one_dtype(scores)
    return dict(zip(scores, _top(tensors, count, where="over all layers"), strict=True))


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
    _check_nan(scores)
    return {
        name: _top([score], counts[name], where=f"in {name}")[0] for name, score in scores.items()
    }


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
    _check_nan(scores)
    tensors = _one_dtype(scores)
    border = kth_smallest(tensors, index)
    return {name: score > border for name, score in zip(scores, tensors, strict=True)}


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
    out: Masks = {}
    for name, mask in masks.items():
        active = mask.flatten()
        values = _read(name, scores[name], active)
        left = len(values) - counts[name]
        if not 0 <= left <= len(values):
            raise ValueError(
                f"counts[{name!r}] must be in [0, {len(values)}], the active weights, "
                f"got {counts[name]}."
            )
        border = _border([values], left) if left else None
        out[name] = _write(mask, active, _above([values], left, border)[0])
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
    for name, mask in masks.items():
        free = ~mask if allowed is None else ~mask & allowed[name]
        free = free.flatten()
        values = _read(name, scores[name], free)
        (chosen,) = _top([values], counts[name], where=f"free to grow in {name}")
        out[name] = mask | _write(mask, free, chosen)
    return out


def count_active(masks: Tensors) -> dict[str, int]:
    """Active positions of each layer; one read from the device for all of them."""
    return dict(zip(masks, _to_host([torch.count_nonzero(m) for m in masks.values()]), strict=True))


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


def pack(mask: Tensor) -> Tensor:
    """The mask as bits, eight positions a byte, the first in the highest bit (NumPy's packbits).

    Returns:
        1-d uint8 tensor on the CPU, ceil(number of positions / 8) long.
    """
    return torch.from_numpy(np.packbits(mask.detach().flatten().cpu().numpy()))


def unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """The bool mask that `pack` has packed, on the CPU.

    Args:
        packed: 1-d uint8 tensor.
        shape: the mask's shape.

    Raises:
        ValueError: the length does not fit the shape.
    """
    n = math.prod(shape)
    if packed.numel() != (n + 7) // 8:
        raise ValueError(
            f"packed must hold {(n + 7) // 8} bytes for shape {tuple(shape)}, got {packed.numel()}."
        )
    bits = np.unpackbits(packed.cpu().numpy(), count=n)
    return torch.from_numpy(bits.view(np.bool_)).reshape(tuple(shape))


def digest(mask: Tensor) -> int:
    """A 63-bit number that two masks share only if bits and shape are equal, the same everywhere.

    For checking that ranks agree: one int64 is sent instead of the mask.
    """
    state = hashlib.blake2b(repr(tuple(mask.shape)).encode(), digest_size=8)
    state.update(pack(mask).numpy().tobytes())
    return int.from_bytes(state.digest(), "big") >> 1


def _check_names(reference: Tensors, *others: Mapping[str, object]) -> None:
    for other in others:
        if odd := sorted(reference.keys() ^ other.keys()):
            raise ValueError(
                f"masks, scores and counts must name the same layers; not in all: {', '.join(odd)}."
            )


def _check_nan(scores: Tensors) -> None:
    bad = _to_host([torch.isnan(score).any() for score in scores.values()])
    if any(bad):
        names = ", ".join(name for name, flag in zip(scores, bad, strict=True) if flag)
        raise ValueError(f"scores are NaN in {names}; look for a diverged loss before pruning.")


def _one_dtype(scores: Tensors) -> list[Tensor]:
    if not scores:
        raise ValueError("scores is empty; there is no layer to choose weights from.")
    dtype = reduce(torch.promote_types, (score.dtype for score in scores.values()))
    return [score.detach().to(dtype) for score in scores.values()]


def _top(tensors: Sequence[Tensor], count: int, *, where: str) -> list[Tensor]:
    """Masks of the `count` largest entries of all tensors together; -inf is never chosen."""
    n = sum(tensor.numel() for tensor in tensors)
    border = _border(tensors, count) if 0 < count <= n else None
    if not 0 <= count <= n or (border is not None and bool(border == -math.inf)):
        allowed = sum(_to_host([torch.count_nonzero(t != -math.inf) for t in tensors]))
        raise ValueError(f"count must be in [0, {allowed}], the positions {where}, got {count}.")
    return _above(tensors, count, border)


def _border(tensors: Sequence[Tensor], count: int) -> Tensor:
    """The smallest of the `count` largest entries; `count` is at least 1."""
    return kth_smallest(tensors, sum(tensor.numel() for tensor in tensors) - count)


def _above(tensors: Sequence[Tensor], count: int, border: Tensor | None) -> list[Tensor]:
    """Everything above the border, and of its ties the first ones, up to `count` in total."""
    if border is None:
        return [torch.zeros_like(tensor, dtype=torch.bool) for tensor in tensors]
    masks = [tensor > border for tensor in tensors]
    ties = [tensor == border for tensor in tensors]
    counted = _to_host([torch.count_nonzero(part) for part in (*masks, *ties)])
    room = count - sum(counted[: len(masks)])
    for mask, tie, tied in zip(masks, ties, counted[len(masks) :], strict=True):
        mask |= tie if tied <= room else _first(tie, room)
        room -= min(tied, room)
    return masks


def _first(mask: Tensor, count: int) -> Tensor:
    """The first `count` active positions of the mask."""
    out = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    out[mask.flatten().nonzero().squeeze(1)[:count]] = True
    return out.view(mask.shape)


def _read(name: str, score: Tensor, where: Tensor) -> Tensor:
    values = score.detach().flatten()[where]
    _check_nan({name: values})
    return values


def _write(like: Tensor, where: Tensor, values: Tensor) -> Tensor:
    """A mask of `like`'s shape and memory format that holds `values` at the positions `where`."""
    flat = torch.zeros_like(where)
    flat[where] = values
    return torch.empty_like(like).copy_(flat.view(like.shape))


def _to_host(scalars: Iterable[Tensor]) -> list[int]:
    """The 0-d tensors as numbers, with one wait for the device instead of one each."""
    scalars = list(scalars)
    return torch.stack([s.to(scalars[0].device) for s in scalars]).tolist() if scalars else []
