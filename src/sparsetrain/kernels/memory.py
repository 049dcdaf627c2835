"""How tensors lie in memory, and new memory that is quick to write for the first time."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import torch
from torch import Tensor

_LARGE = 1 << 22  # bytes from which NumPy asks for huge pages
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_... of malloc.h
_LARGEST_ARENA_BLOCK = 1 << 25


def keep_freed_memory() -> None:
    """Let this process keep what it frees, for the next tensor; for glibc, elsewhere nothing.

    A training step frees and takes the same activations and gradients each time. What malloc gives
    back in between, Linux must clear again page by page: 30 of the 440 ms of a VGG-19's step where
    gradients are given back alone, 140 where everything is.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_ARENA_BLOCK)
    mallopt(_TRIM_THRESHOLD, -1)


def empty(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A 1-D tensor of `n` entries of any values."""
    if device.type != "cpu":
        return torch.empty(n, dtype=dtype, device=device)
    # NumPy asks for huge pages: the first write to 100 MB takes 8 ms, in torch.empty's 44.
    return torch.from_numpy(np.empty(n, torch.empty(0, dtype=dtype).numpy().dtype))


def empty_like(tensor: Tensor) -> Tensor:
    """A tensor of the same shape, dtype, device and memory format, of any values."""
    size = tensor.numel() * tensor.element_size()
    if size < _LARGE or not tensor.is_contiguous() or tensor.dtype is not torch.float32:
        return torch.empty_like(tensor)
    return empty(tensor.numel(), tensor.dtype, tensor.device).view(tensor.shape)


def is_gapless(tensor: Tensor) -> bool:
    """Whether the entries lie one behind the other, channels last or in order."""
    if tensor.is_contiguous():
        return True
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    memory = formats.get(tensor.dim())
    return memory is not None and tensor.is_contiguous(memory_format=memory)
