"""A pruned network in little memory: mask bits, kept values and the tensors that are not pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from . import masks as mask_algebra
from . import sharded
from .selection import named_tensors
from .types import Masks


@dataclass(frozen=True)
class Snapshot:
    """One pruned copy of a model; of a sharded one, this rank's rows.

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
            bits={name: mask_algebra.pack(sharded.local(mask)) for name, mask in masks.items()},
            values={
                name: sharded.local(parameters[name])[sharded.local(mask)]
                for name, mask in masks.items()
            },
            others={
                name: tensor.detach().clone()
                for name, tensor in named_tensors(model).items()
                if name not in masks
            },
        )

    def masks(self, parameters: Mapping[str, Tensor]) -> Masks:
        """The masks, in the shapes and on the devices of `parameters`."""
        out: Masks = {}
        for name, bits in self.bits.items():
            rows = sharded.local(parameters[name])
            mask = mask_algebra.unpack(bits, tuple(rows.shape)).to(rows.device)
            out[name] = sharded.wrap(mask, parameters[name])
        return out

    @torch.no_grad()
    def restore_(self, model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        """Put the copy back into `model`, zeros where it was pruned."""
        for name, mask in self.masks(parameters).items():
            weight = sharded.local(parameters[name])
            weight.zero_()
            weight[sharded.local(mask)] = self.values[name].to(weight.device)
        for name, tensor in named_tensors(model).items():
            if name in self.others:
                tensor.detach().copy_(self.others[name])

    def state_dict(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """The whole model's copy as plain dicts of tensors; collective where it is sharded."""
        if not sharded.any_sharded(parameters.values()):
            bits, values, others = map(dict, (self.bits, self.values, self.others))
            return {"bits": bits, "values": values, "others": others}
        bits, values = {}, {}
        for name, mask in self.masks(parameters).items():
            weight = torch.zeros_like(sharded.local(parameters[name]))
            weight[sharded.local(mask)] = self.values[name].to(weight.device)
            whole = sharded.full(mask)
            bits[name] = mask_algebra.pack(whole)
            values[name] = sharded.full(sharded.wrap(weight, parameters[name]))[whole]
        return {"bits": bits, "values": values, "others": sharded.full_state(self.others)}

    @classmethod
    def of_state(
        cls, state: Mapping[str, Any], model: nn.Module, parameters: Mapping[str, Tensor]
    ) -> Snapshot:
        """What `state_dict` gave, for a model sharded in any way or in none."""
        copy = cls(**state)
        if not sharded.any_sharded(parameters.values()):
            return copy
        bits, values = {}, {}
        for name, like in parameters.items():
            mask = mask_algebra.unpack(copy.bits[name], tuple(like.shape))
            weight = torch.zeros(mask.shape, dtype=copy.values[name].dtype)
            weight[mask] = copy.values[name].cpu()
            rows = sharded.local(sharded.place(mask, like))
            bits[name] = mask_algebra.pack(rows)
            values[name] = sharded.local(sharded.place(weight, like))[rows]
        others = sharded.place_state(copy.others, named_tensors(model))
        return cls(bits, values, others)
