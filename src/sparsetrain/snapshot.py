"""A pruned network in little memory: mask bits, kept values and the tensors that are not pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import masks as mask_algebra
from .selection import named_tensors
from .types import Masks


@dataclass(frozen=True)
class Snapshot:
    """One pruned copy of a model.

    Attributes:
        bits: name -> packed mask, one bit a weight.
        values: name -> the kept weights in row-major order.
        others: name -> every other parameter and buffer.
    """

    bits: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    others: Mapping[str, Tensor]

    @classmethod
    def take(cls, model: nn.Module, parameters: Mapping[str, Tensor], masks: Masks) -> Snapshot:
        """Copy what is left of `model` under `masks`."""
        return cls(
            bits={name: mask_algebra.pack(mask) for name, mask in masks.items()},
            values={name: parameters[name].detach()[mask] for name, mask in masks.items()},
            others={
                name: tensor.detach().clone()
                for name, tensor in named_tensors(model).items()
                if name not in masks
            },
        )

    def masks(self, parameters: Mapping[str, Tensor]) -> Masks:
        """The masks, in the shapes and on the devices of `parameters`."""
        return {
            name: mask_algebra.unpack(bits, tuple(parameters[name].shape)).to(
                parameters[name].device
            )
            for name, bits in self.bits.items()
        }

    @torch.no_grad()
    def restore_(self, model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        """Put the copy back into `model`, zeros where it was pruned."""
        for name, mask in self.masks(parameters).items():
            weight = parameters[name].detach()
            weight.zero_()
            weight[mask] = self.values[name].to(weight.device)
        for name, tensor in named_tensors(model).items():
            if name in self.others:
                tensor.detach().copy_(self.others[name])

    def state_dict(self) -> dict[str, Any]:
        """As plain dicts of tensors."""
        return {"bits": dict(self.bits), "values": dict(self.values), "others": dict(self.others)}
