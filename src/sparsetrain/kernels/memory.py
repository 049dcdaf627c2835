"""How tensors lie in memory, and new memory that is quick to write for the first time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_MAPPED = 32 << 20  # bytes above which the C library asks the system anew each time
_LINE = 16  # entries to which each tensor is aligned: 64 bytes of float32, one cache line


def empty(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A 1-D tensor of `n` entries of any values."""
    if device.type != "cpu":
        return torch.empty(n, dtype=dtype, device=device)
    # NumPy asks for huge pages: the first write to 100 MB takes 8 ms, in torch.empty's 44.
    return torch.from_numpy(np.empty(n, torch.empty(0, dtype=dtype).numpy().dtype))


def empty_likes(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of the same shapes and memory formats, of any values, all in one piece of memory.

    Args:
        tensors: float32 tensors on CPU.

    Returns:
        Views of one buffer. The C library gives many pieces of some hundred kilobytes back to the
        system, and their first writes then take longer than the gradient itself; one piece stays.
    """
    starts = [0]
    for tensor in tensors:
        starts.append(starts[-1] + -(-tensor.numel() // _LINE) * _LINE)
    if starts[-1] * 4 > _MAPPED:
        buffer = empty(starts[-1], torch.float32, tensors[0].device)
    else:
        buffer = torch.empty(starts[-1])
    return [
        buffer.as_strided(t.shape, t.stride(), start) if is_gapless(t) else torch.empty_like(t)
        for t, start in zip(tensors, starts, strict=False)
    ]


def is_gapless(tensor: Tensor) -> bool:
    """Whether the entries lie one behind the other, channels last or in order."""
    if tensor.is_contiguous():
        return True
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    memory = formats.get(tensor.dim())
    return memory is not None and tensor.is_contiguous(memory_format=memory)
