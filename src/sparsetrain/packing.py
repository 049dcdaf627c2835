"""Masks as bits, and the number that tells two masks apart."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from . import sharded


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

    For checking that ranks agree: one int64 is sent instead of the mask. Of a sharded mask, this
    rank's rows.
    """
    mask = sharded.local(mask)
    state = hashlib.blake2b(repr(tuple(mask.shape)).encode(), digest_size=8)
    state.update(pack(mask).numpy().tobytes())
    return int.from_bytes(state.digest(), "big") >> 1
