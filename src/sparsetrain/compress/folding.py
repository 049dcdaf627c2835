"""Masks folded into the tensors they belong to."""

from __future__ import annotations

import torch
from torch import Tensor

from ..types import Tensors


def fold(tensors: Tensors, masks: Tensors) -> dict[str, Tensor]:
    """The tensors with zeros where their mask is False, also where a NaN or infinity stood.

    Args:
        tensors: name -> tensor.
        masks: name -> bool mask of the tensor's shape; the others stay as they are.
    """
    return {
        name: torch.where(masks[name], tensor, torch.zeros_like(tensor))
        if name in masks
        else tensor
        for name, tensor in tensors.items()
    }
