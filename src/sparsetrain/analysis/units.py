"""Units that nothing reaches, and inputs that nothing reads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..types import Tensors


class DeadUnits(NamedTuple):
    """One layer's units without a connection.

    Attributes:
        outputs: of its output units (channels, neurons), those with no active weight: they give
            their bias whatever the image.
        units: output units in all.
        unread: of its inputs, those that no active weight reads.
        inputs: inputs in all; of a grouped convolution, those of all groups.
    """

    outputs: int
    units: int
    unread: int
    inputs: int


def dead_units(masks: Tensors, *, groups: dict[str, int] | None = None) -> dict[str, DeadUnits]:
    """Output units without a connection, and inputs without a reader, layer by layer.

    Args:
        masks: name -> bool mask [outputs, inputs / groups, ...].
        groups: name -> groups of a grouped convolution; 1 where not given.
    Returns:
        name -> counts, in the order of `masks`.
    """
    found = {}
    for name, mask in masks.items():
        parts = (groups or {}).get(name, 1)
        reached = mask.flatten(1).any(dim=1)
        read = _read(mask, parts)
        found[name] = DeadUnits(
            outputs=int((~reached).sum()),
            units=len(reached),
            unread=int((~read).sum()),
            inputs=len(read),
        )
    return found


def _read(mask: Tensor, groups: int) -> Tensor:
    """[inputs], True where an active weight reads the input."""
    taps = mask.flatten(2).any(dim=2) if mask.dim() > 2 else mask
    return torch.cat([part.any(dim=0) for part in taps.tensor_split(groups)])
