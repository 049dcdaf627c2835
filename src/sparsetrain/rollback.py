"""Undo the very first masking, when a checkpoint arrives after it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Rollback:
    """Keeps what masking at attach time overwrites, until the first step.

    A user may load a checkpoint into the model, make the Sparsifier (which masks the weights by
    its method's first masks) and only then load the Sparsifier's state, whose masks keep other
    weights. Without this those weights would be lost.
    """

    def __init__(self, masked: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Copy each tensor that its multiplier is about to change; nothing is changed here."""
        self._kept = {
            tensor.data_ptr(): (tensor.clone(), multiplier.clone())
            for tensor, multiplier in masked
            if not torch.equal(tensor, tensor * multiplier)
        }

    def undo_(self, masked: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Put back each tensor that nobody has touched since, then forget."""
        for tensor, _ in masked:
            kept = self._kept.get(tensor.data_ptr())
            if kept is not None and torch.equal(tensor, kept[0] * kept[1]):
                tensor.copy_(kept[0])
        self.forget()

    def forget(self) -> None:
        """Free the copies."""
        self._kept.clear()
