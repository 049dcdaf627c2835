"""Memory of packed activations, used again as soon as no tensor needs it.

Fresh memory costs about as much as a pass over it (page faults), and its halo would have to be
cleared; what comes back here still has its halo zero, because no kernel writes there.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor

from ..kernels.packed import Layout

_Key = tuple[tuple[int, ...], int]


class Buffers:
    """Tensors in the packed layout, halo zero, whose memory returns here when they die."""

    def __init__(self) -> None:
        self._free: dict[_Key, list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def framed(self, layout: Layout, batch: int) -> Tensor:
        """Room for so many images; the halo is zero, what lies inside is not yet written."""
        shape = layout.shape(batch)
        key = (shape, layout.halo)
        with self._lock:
            free = self._free.get(key)
            array = free.pop() if free else None
        if array is None:
            array = layout.framed(batch).numpy()
        return torch.from_numpy(np.asarray(_Lease(array, key, self)))

    def clear(self) -> None:
        """Give what is free back to the system."""
        with self._lock:
            self._free.clear()

    def take_back(self, key: _Key, array: np.ndarray) -> None:
        """Memory that no tensor uses any more."""
        with self._lock:
            self._free.setdefault(key, []).append(array)


class _Lease:
    """Owns an array as long as a tensor of it lives: `numpy` keeps it as the array's base."""

    def __init__(self, array: np.ndarray, key: _Key, home: Buffers) -> None:
        self.__array_interface__ = array.__array_interface__
        self._array, self._key, self._home = array, key, home

    def __del__(self) -> None:
        self._home.take_back(self._key, self._array)
