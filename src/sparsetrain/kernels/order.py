"""Exact order statistics over many tensors together, without a sort."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from .memory import empty

_HALF = (torch.float16, torch.bfloat16)
_SAMPLE, _RUN = 256, 16  # entries looked at; so many equal ones among them are a lump
_SCOUTS = 4096  # entries that say about where a rank lies


def kth_smallest(
    tensors: Collection[Tensor], k: int, *, where: Collection[Tensor] | None = None
) -> Tensor:
    """The value of rank `k` among all entries of all tensors together.

    Args:
        tensors: tensors of any shapes, one dtype, one device; gone through twice, one at a time,
            so the collection may make them as it goes. NaN ranks above every number, so a caller
            who allows NaN in must check for it.
        k: rank in ascending order, 0 for the smallest, below the number of entries.
        where: a bool tensor of each tensor's shape; only entries where it is True are ranked.

    Returns:
        A 0-d tensor of the same dtype and device: one of the entries, bit for bit (bfloat16 and
        float16 too), except that -0.0 and 0.0 count as equal.

    Raises:
        ValueError: no tensors, mixed dtypes or devices, or `k` out of range.
    """
    return _select(tensors, k, _copy, where)


def kth_smallest_magnitude(tensors: Collection[Tensor], k: int) -> Tensor:
    """The value of rank `k` among the absolute values of all entries of all tensors together.

    Args:
        tensors: tensors of any shapes, one dtype, one device; NaN ranks above every number.
        k: rank in ascending order, 0 for the smallest, below the number of entries.

    Returns:
        A 0-d tensor of the same dtype and device, at least 0.

    Raises:
        ValueError: no tensors, mixed dtypes or devices, or `k` out of range.
    """
    return _select(tensors, k, _copy_magnitude)


def count_true(masks: Collection[Tensor]) -> list[int]:
    """How many entries of each bool tensor are True; one wait for the device for all of them."""
    if all(mask.device.type == "cpu" for mask in masks):
        # NumPy's count is six times faster than torch.count_nonzero.
        return [int(np.count_nonzero(_memory_order(mask).numpy())) for mask in masks]
    counts = [torch.count_nonzero(mask) for mask in masks]
    return torch.stack([count.to(counts[0].device) for count in counts]).tolist()


def kth_off_cpu(values: Tensor, k: int) -> Tensor:
    """The value of rank `k` of a 1-d tensor; nothing waits for the device."""
    # Not kthvalue, which keeps to one of a GPU's processors: 20x slower than a sort (issue 75599 of
    # PyTorch). topk takes all of them; a second one finds the border of what the first has found.
    above = len(values) - k
    if k < above:
        return values.topk(k + 1, largest=False, sorted=False).values.topk(1).values[0]
    return values.topk(above, sorted=False).values.topk(1, largest=False).values[0]


def _select(
    tensors: Collection[Tensor],
    k: int,
    fill: Callable[[Tensor, Tensor], None],
    where: Collection[Tensor] | None = None,
) -> Tensor:
    dtype, device, sizes = _kind(tensors)
    sizes = sizes if where is None else count_true(where)
    if not 0 <= k < sum(sizes):
        raise ValueError(f"k must be a rank in [0, {sum(sizes)}), the number of entries, got {k}.")
    # float32 holds every half-precision value exactly, and NumPy has no bfloat16.
    work = torch.float32 if dtype in _HALF and device.type == "cpu" else dtype
    # One buffer for everything: torch.cat of absolute values would allocate and write twice.
    buffer = empty(sum(sizes), work, device)
    parts = buffer.split(sizes)
    for tensor, mask, part in zip(tensors, where or repeat(None), parts, strict=False):
        if mask is None or len(part) == tensor.numel():
            source = _memory_order(tensor.detach())
            fill(source, part.view(source.shape))
        else:
            _gather(tensor.detach(), mask, part)
    if device.type != "cpu":
        return kth_off_cpu(buffer, k)
    return torch.tensor(_partition(buffer.numpy(), k).item(), dtype=dtype, device=device)


def _kind(tensors: Collection[Tensor]) -> tuple[torch.dtype, torch.device, list[int]]:
    """The dtype and the device that all tensors share, and their numbers of entries."""
    if not tensors:
        raise ValueError("tensors is empty; an order statistic needs at least one tensor.")
    dtypes, devices, sizes = zip(*((t.dtype, t.device, t.numel()) for t in tensors), strict=True)
    for what, kinds in (("dtype", set(dtypes)), ("device", set(devices))):
        if len(kinds) > 1:
            raise ValueError(
                f"tensors must share one {what}, got {', '.join(sorted(map(str, kinds)))}; "
                "convert first."
            )
    return dtypes[0], devices[0], list(sizes)


def _copy(source: Tensor, out: Tensor) -> None:
    out.copy_(source)


def _copy_magnitude(source: Tensor, out: Tensor) -> None:
    if source.dtype == out.dtype:
        torch.abs(source, out=out)
    else:
        out.copy_(source).abs_()  # abs has no output of another dtype


def _gather(source: Tensor, mask: Tensor, out: Tensor) -> None:
    """Write the entries where the mask is True to `out`, in any order."""
    if out.device.type != "cpu":
        out.copy_(torch.masked_select(source, mask))
        return
    if _is_channels_last(source) and _is_channels_last(mask):
        source, mask = _memory_order(source), _memory_order(mask)
    # The indices from NumPy, then torch: twice as fast as indexing with bools in either.
    chosen = torch.from_numpy(np.flatnonzero(mask.flatten().numpy()))
    out.copy_(source.flatten().index_select(0, chosen))


def _partition(values: np.ndarray, k: int) -> np.generic:
    """The value of rank `k`; the values are reordered."""
    # Where a tenth of the values or more are equal, as the zeros of a pruned network are,
    # partition degenerates, up to forty times slower; so they are taken out as one.
    while (lump := _lump(values)) is not None:
        less, through = values < lump, values <= lump
        below, upto = np.count_nonzero(less), np.count_nonzero(through)
        if below <= k < upto:
            return lump
        values, k = (values[less], k) if k < below else (values[~through], k - upto)
    values, k = _narrowed(values, k)
    # partition, not sort: 100x faster at 2 M weights, and only one order statistic is needed.
    values.partition(k)
    return values[k]


def _narrowed(values: np.ndarray, k: int) -> tuple[np.ndarray, int]:
    """The few values around rank `k`, and its rank among them; all, where a sample misleads.

    Counting goes at the memory's speed on every processor. A partition of all does on those with a
    fast compress-store alone: 2 M values took 1 ms on one processor with AVX-512, 10 ms on another.
    """
    if values.size < 16 * _SCOUTS:
        return values, k
    sample = np.sort(values[:: values.size // _SCOUTS])
    place, slack = k * len(sample) // values.size, 2 * math.isqrt(len(sample))
    low, high = sample[max(0, place - slack)], sample[min(len(sample) - 1, place + slack)]
    below = np.count_nonzero(values < low)  # a NaN is above every number
    inside = values[np.flatnonzero((values >= low) & (values <= high))]
    return (inside, k - below) if 0 <= k - below < len(inside) else (values, k)


def _lump(values: np.ndarray) -> np.generic | None:
    """A value that many entries share, if a sample shows one."""
    if values.size < 16 * _SAMPLE:
        return None
    sample = np.sort(values[:: values.size // _SAMPLE])
    lumps = sample[_RUN:][sample[_RUN:] == sample[:-_RUN]]
    return lumps[0] if lumps.size else None


def _memory_order(tensor: Tensor) -> Tensor:
    """The same entries with the axes as they lie in memory; a rank does not ask for their order."""
    return tensor.permute(0, 2, 3, 1) if _is_channels_last(tensor) else tensor


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
