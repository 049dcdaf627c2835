"""Masks on weights and optimizer state: one pass in C++ where that is built, else its twin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import native
from .native import Masked as Masked


def zero_pruned_(rows: Sequence[Masked]) -> list[bool]:
    """Store +0.0 where a mask is False, in every tensor of its row; kept entries stay bit for bit.

    Infinity and NaN at pruned places go too, which a product with the mask would not do.

    Args:
        rows: a bool mask and float tensors of its shape on one device, the weight first.

    Returns:
        Whether the weight of each row is finite everywhere afterwards. On CPU nothing else reads
        the weights; elsewhere this waits for the device.
    """
    fast = [i for i, row in enumerate(rows) if native.takes_mask(row)]
    finite = dict(zip(fast, native.mask_([rows[i] for i in fast]), strict=True)) if fast else {}
    for i, row in enumerate(rows):
        if i not in finite:
            finite[i] = _zero_pruned_(row)
    return [finite[i] for i in range(len(rows))]


def multiplier_dtype(weight: Tensor) -> torch.dtype:
    """What a multiplier of this weight had best be kept in.

    bool where the C++ kernels mask with it; elsewhere the weight's dtype, because PyTorch
    multiplies by floats three to five times faster than by bools.
    """
    return torch.bool if native.takes([weight], *native.MASKED) else weight.dtype


def _zero_pruned_(row: Masked) -> bool:
    pruned = ~row.mask
    for tensor in row.tensors:
        tensor.masked_fill_(pruned, 0)
    return all(_is_finite(tensor) for tensor in row.tensors[:1])


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
