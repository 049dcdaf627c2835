"""The regularisers' arithmetic on plain tensors: cache-sized chunks on CPU, no sync elsewhere.

HyperSparse on float32 CPU tensors runs in C++ where that is built; the code here is its twin.

Every function takes detached tensors of one device and trusts its caller to have checked them.
A `Scalar` is a Python float on CPU and a 0-d tensor on the device elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from . import native
from .memory import empty_like
from .order import kth_off_cpu, kth_smallest_magnitude

Scalar: TypeAlias = float | Tensor
Grads: TypeAlias = Sequence[Tensor | None]
Reduce: TypeAlias = Callable[[Sequence[Scalar]], Sequence[Scalar]]
"""Sums over one rank's rows -> the sums over the rows of all ranks."""

ALIGNMENT = 0.6585
"""artanh(1/sqrt(3)) = 0.6584789, where sech^2 bends, rounded as the published code rounds it."""


_LARGEST = torch.finfo(torch.float32).max


class Slope(NamedTuple):
    """The curve `height * sech^2(steepness * |w|)`, in the symbols of the source.

    Attributes:
        steepness: s = 0.6585 / border; 0 for a border of 0 on CPU.
        height: G0 = s * S / A, the gradient next to zero; 0 for a border of 0.
        total: S, the sum of |w|; not finite exactly where a weight is not.
    """

    steepness: Scalar
    height: Scalar
    total: Scalar


def compute_dtype(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """The dtype to compute in: float32 for the half precisions, else the widest given."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def chunks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors as 1-D views of cache-sized pieces, in memory order; as they are off the CPU."""
    if tensors[0].device.type != "cpu":
        return list(tensors)
    length = _chunk_length(tensors)
    return [piece for tensor in tensors for piece in _memory_order(tensor).split(length)]


def zeros_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Zeros of each tensor's shape, dtype, device and memory format."""
    zeros = [torch.empty_like(tensor) for tensor in tensors]
    for piece in chunks(zeros):  # views: an empty_like has no gaps
        piece.zero_()
    return zeros


def border(weights: Sequence[Tensor], rank: int) -> Tensor:
    """The magnitude of 0-based ascending rank `rank` among all weights together, exact.

    Args:
        weights: float tensors of any shapes; of several dtypes, the widest is ranked in.
        rank: below the number of entries.

    Returns:
        A 0-d tensor on the weights' device.
    """
    if (rows := native.spans(weights, *native.RANKED)) is not None:
        return native.kth(rows, rank, magnitude=True)
    if weights[0].device.type != "cpu":
        return kth_off_cpu(_flat(weights).abs_(), rank)
    dtypes = {weight.dtype for weight in weights}
    # In mixed precision one wider copy, so that one ranking spans all of them.
    wide = compute_dtype(list(dtypes)) if len(dtypes) > 1 else weights[0].dtype
    return kth_smallest_magnitude([piece.to(wide) for piece in chunks(weights)], rank)


def hypersparse(weights: Sequence[Tensor], rank: int) -> Slope:
    """The curve over all weights together, whose border is the magnitude of rank `rank`.

    Args:
        weights: float tensors of any shapes.
        rank: 0-based and ascending, below the number of entries.
    """
    rows = native.spans(weights, torch.float32)
    if rows is None:
        return hypersparse_slope(weights, border(weights, rank))
    found = float(native.kth(rows, rank, magnitude=True))
    return _slope_on_cpu(partial(native.hypersparse_sums, rows), found, _limit(weights))


def hypersparse_slope(weights: Sequence[Tensor], border: Tensor, reduce: Reduce = tuple) -> Slope:
    """Steepness and height of the HyperSparse gradient over all weights together.

    Args:
        weights: float tensors of any shapes, at least one entry in all.
        border: 0-d, the magnitude at the pruning border, at least 0.
        reduce: for weights that are one rank's rows, which may be none.

    Returns:
        The curve; both sums are accumulated in float64 over float32 chunks.
    """
    limit = _limit(weights)
    if border.device.type != "cpu":
        return _slope_on_device(weights, border, limit, reduce)
    rows = native.spans(weights, torch.float32)
    sums = partial(_sums_on_cpu, weights)
    if rows is not None:
        sums = partial(native.hypersparse_sums, rows)
    return _slope_on_cpu(sums, float(border), limit, reduce)


def add_hypersparse_(
    weights: Sequence[Tensor], grads: Grads, scale: Scalar, *, slope: Slope
) -> None:
    """Add `scale * sign(w) * height * sech^2(steepness * |w|)` to each gradient, in place."""
    if weights[0].device.type != "cpu":
        _add_on_device_(weights, grads, slope, scale)
        return
    steepness, height = float(slope.steepness), float(slope.height)
    factor = height * float(scale)
    if factor == 0.0:
        return
    pairs = native.pairs(weights, grads)
    if pairs is not None:
        native.add_hypersparse_(pairs, steepness, _clamp(factor, _LARGEST))
        return
    if native.takes([*weights, *(g for g in grads if g is not None)], torch.float32):
        _add_packed_(weights, grads, steepness, _clamp(factor, _LARGEST))
        return

    def add_(weight: Tensor, grad: Tensor, scratch: Tensor, other: Tensor) -> None:
        torch.abs(weight, out=scratch)
        # q = sigmoid(-2x) and 4q(1 - q) = sech^2(x): exact to rounding in the tail too, where
        # 1 - tanh^2 loses every digit, and torch's sigmoid is 8x faster than its tanh.
        scratch.mul_(-2.0 * steepness).sigmoid_().addcmul_(scratch, scratch, value=-1)
        torch.sign(weight, out=other)  # not copysign: exact zeros must get no gradient
        grad.addcmul_(scratch, other, value=_clamp(4.0 * factor, torch.finfo(scratch.dtype).max))

    _each_chunk_(weights, grads, add_)


def hypersparse_gradient(weights: Sequence[Tensor], *, slope: Slope) -> list[Tensor]:
    """`sign(w) * height * sech^2(steepness * |w|)` of each weight, in new tensors."""
    takes = weights[0].device.type == "cpu" and native.takes(weights, torch.float32)
    if takes and float(slope.height) != 0.0:
        grads = [empty_like(weight) for weight in weights]
        # Written, not added to zeros: two passes over the new memory fewer.
        if (pairs := native.pairs(weights, grads)) is not None:
            factor = _clamp(float(slope.height), _LARGEST)
            native.set_hypersparse_(pairs, float(slope.steepness), factor)
            return grads
    grads = zeros_like(weights)
    add_hypersparse_(weights, grads, 1.0, slope=slope)
    return grads


def sum_magnitudes(weights: Sequence[Tensor]) -> Scalar:
    """Sum of |w| over all weights."""
    return _sum(weights, lambda source, out: torch.abs(source, out=out))


def sum_squares(weights: Sequence[Tensor]) -> Scalar:
    """Sum of w^2 over all weights."""
    return _sum(weights, lambda source, out: torch.mul(source, source, out=out))


def add_sign_(weights: Sequence[Tensor], grads: Grads, scale: Scalar) -> None:
    """Add `scale * sign(w)` to each gradient, in place."""
    if weights[0].device.type != "cpu":
        _add_parts_(grads, [torch.sign(w).to(_wide(w)).mul_(scale) for w in weights])
        return
    alpha = float(scale)

    def add_(weight: Tensor, grad: Tensor, scratch: Tensor, _: Tensor) -> None:
        grad.add_(torch.sign(weight, out=scratch), alpha=alpha)

    _each_chunk_(weights, grads, add_)


def add_double_(weights: Sequence[Tensor], grads: Grads, scale: Scalar) -> None:
    """Add `scale * 2 * w` to each gradient, in place."""
    factor = 2.0 * scale
    if weights[0].device.type != "cpu":
        _add_parts_(grads, [w.to(_wide(w)) * factor for w in weights])
        return
    alpha = float(factor)
    _each_chunk_(weights, grads, lambda weight, grad, *_: grad.add_(weight, alpha=alpha))


def _limit(weights: Sequence[Tensor]) -> float:
    """The largest factor that 2 * s * 0 survives without an inf * 0, for a denormal border."""
    dtypes = {weight.dtype for weight in weights}
    return min(torch.finfo(compute_dtype([dtype])).max for dtype in dtypes) / 4


def _slope_on_cpu(
    sums: Callable[[float], tuple[float, float]],
    border: float,
    limit: float,
    reduce: Reduce = tuple,
) -> Slope:
    """The curve by `sums`, which gives sum of |w| and sum of tanh(s * |w|) for s."""
    steepness = min(ALIGNMENT / border, limit) if border > 0.0 else 0.0
    total, activation = map(float, reduce(sums(steepness)))
    height = min(steepness * total / activation, limit) if activation > 0.0 else 0.0
    return Slope(steepness, height, total)


def _sums_on_cpu(weights: Sequence[Tensor], steepness: float) -> tuple[float, float]:
    """Sum of |w| and sum of tanh(steepness * |w|)."""
    total, activation = 0.0, 0.0
    for dtype, chunks in _chunks_by_dtype(weights):
        scratch = torch.empty(_chunk_length(weights), dtype=dtype)
        row = scratch.numpy()
        for chunk in chunks:
            part = scratch[: chunk.numel()]
            torch.abs(chunk, out=part)
            total += _total(part)
            part.mul_(steepness)
            # NumPy's tanh is 13x faster than torch's here (AVX-512) and as exact.
            values = row[: chunk.numel()]
            np.tanh(values, out=values)
            activation += float(part.sum())
    return total, activation


def _add_packed_(weights: Sequence[Tensor], grads: Grads, steepness: float, factor: float) -> None:
    """By the kernels, where a weight and its gradient do not lie in memory alike."""
    packs = [(_packed(w, g), g) for w, g in zip(weights, grads, strict=True) if g is not None]
    sources = [pack.weight.contiguous() for pack, _ in packs]
    pairs = native.pairs(sources, [pack.grad for pack, _ in packs])
    assert pairs is not None, "1-D without gaps, and `takes` accepted their dtypes"
    native.add_hypersparse_(pairs, steepness, factor)
    for pack, grad in packs:
        if pack.spill is not None:
            grad.add_(pack.spill)


def _slope_on_device(
    weights: Sequence[Tensor], border: Tensor, limit: float, reduce: Reduce = tuple
) -> Slope:
    accumulate = torch.float32 if border.device.type == "mps" else torch.float64
    x = _flat(weights).abs_()
    total = x.sum(dtype=accumulate)
    border = border.to(accumulate)
    steepness = (ALIGNMENT / border).clamp(max=limit)
    activation = x.mul_(steepness).tanh_().sum(dtype=accumulate)
    total, activation = (torch.as_tensor(part) for part in reduce((total, activation)))
    height = (steepness * total / activation).clamp(max=limit)
    # total - total is 0 for finite weights and NaN otherwise: non-finite weights stay visible.
    return Slope(steepness, torch.where(border == 0, total - total, height), total)


def _add_on_device_(weights: Sequence[Tensor], grads: Grads, slope: Slope, scale: Scalar) -> None:
    values = _flat(weights)
    sign = values.sign()
    values.abs_().mul_(-2.0 * slope.steepness).sigmoid_().addcmul_(values, values, value=-1)
    factor = 4.0 * slope.height * scale
    if isinstance(factor, Tensor):
        factor = factor.clamp(max=torch.finfo(values.dtype).max)
    values.mul_(sign).mul_(factor)
    parts = values.split([w.numel() for w in weights])
    _add_parts_(grads, [_unflat(part, w) for part, w in zip(parts, weights, strict=True)])


def _add_parts_(grads: Grads, parts: Sequence[Tensor]) -> None:
    moved = [(grad, part) for grad, part in zip(grads, parts, strict=True) if grad is not None]
    if moved:
        targets, added = zip(*moved, strict=True)
        # One kernel for all of them where gradient and weight lie in memory alike.
        torch._foreach_add_(targets, added)  # pyright: ignore[reportPrivateImportUsage]


def _flat(weights: Sequence[Tensor]) -> Tensor:
    # In memory order, so that channels-last weights too are views and one kernel copies them all.
    flat = torch.cat([_memory_order(w) for w in weights])
    return flat.to(_wide(flat))


def _unflat(part: Tensor, weight: Tensor) -> Tensor:
    """A piece of `_flat` in its weight's shape, as a view."""
    order = _axes(weight)
    shaped = part.view([weight.shape[axis] for axis in order])
    return shaped.permute([order.index(axis) for axis in range(weight.dim())])


def _sum(weights: Sequence[Tensor], fill: Callable[[Tensor, Tensor], Tensor]) -> Scalar:
    if weights[0].device.type != "cpu":
        flat = _flat(weights)
        accumulate = torch.float32 if flat.device.type == "mps" else torch.float64
        return fill(flat, flat).sum(dtype=accumulate)
    total = 0.0
    for dtype, chunks in _chunks_by_dtype(weights):
        scratch = torch.empty(_chunk_length(weights), dtype=dtype)
        for chunk in chunks:
            total += _total(fill(chunk, scratch[: chunk.numel()]))
    return total


def _total(part: Tensor) -> float:
    total = float(part.sum())
    # Finite float32 values can overflow in their sum; float64 tells that from a NaN or infinity.
    return total if math.isfinite(total) else float(part.sum(dtype=torch.float64))


def _each_chunk_(
    weights: Sequence[Tensor],
    grads: Grads,
    add_: Callable[[Tensor, Tensor, Tensor, Tensor], object],
) -> None:
    length = _chunk_length(weights)
    scratch = {dtype: torch.empty(2, length, dtype=dtype) for dtype in {_wide(w) for w in weights}}
    for weight, grad in zip(weights, grads, strict=True):
        if grad is None:
            continue
        first, second = scratch[_wide(weight)]
        packed = _packed(weight, grad)
        for source, target in zip(*(t.split(length) for t in packed[:2]), strict=True):
            n = source.numel()
            add_(source.to(first.dtype), target, first[:n], second[:n])
        if packed.spill is not None:
            grad.add_(packed.spill)


class _Packed(NamedTuple):
    weight: Tensor
    grad: Tensor
    spill: Tensor | None


def _packed(weight: Tensor, grad: Tensor) -> _Packed:
    """Both as 1-D tensors in the order in which the gradient lies in memory (channels last too)."""
    if weight.is_contiguous() and grad.is_contiguous():
        return _Packed(weight.view(-1), grad.view(-1), None)
    order = sorted(range(grad.dim()), key=lambda axis: -grad.stride(axis))
    dense = grad.permute(order)
    if dense.is_contiguous():
        return _Packed(weight.permute(order).reshape(-1), dense.view(-1), None)
    # A gradient with gaps has no 1-D view: collect beside it, unrounded, and add at the end.
    spill = torch.zeros(grad.shape, dtype=_wide(grad))
    return _Packed(weight.reshape(-1), spill.view(-1), spill)


def _chunks_by_dtype(weights: Sequence[Tensor]) -> Iterator[tuple[torch.dtype, Iterator[Tensor]]]:
    for dtype in dict.fromkeys(_wide(w) for w in weights):  # in order: sums are bit-identical
        group = chunks([w for w in weights if _wide(w) is dtype])
        yield dtype, (chunk.to(dtype) for chunk in group)


def _memory_order(weight: Tensor) -> Tensor:
    return weight.permute(_axes(weight)).reshape(-1)


def _axes(weight: Tensor) -> list[int]:
    """The axes from the outermost in memory to the innermost."""
    if weight.is_contiguous():
        return list(range(weight.dim()))
    return sorted(range(weight.dim()), key=lambda axis: -weight.stride(axis))


# Entries handled at once: the scratch rows stay in cache from pass to pass. One fixed partition, so
# that results do not depend on the number of threads; below the 32,768 at which torch wakes its
# other threads, because on a busy machine hundreds of short parallel regions cost 20 to 2,000 ms.
_CHUNK = (1 << 15) - 64


def _chunk_length(weights: Sequence[Tensor]) -> int:
    return max(1, min(_CHUNK, max(w.numel() for w in weights)))


def _wide(tensor: Tensor) -> torch.dtype:
    return compute_dtype([tensor.dtype])


def _clamp(value: float, limit: float) -> float:
    return value if math.isnan(value) else max(-limit, min(limit, value))
