"""Floating-point operations of a forward pass, layer by layer, from the shapes that pass through.

A weight of a convolution or linear layer is used once at each output position, so a layer with w
weights and p positions costs 2·w·p for one image, and with a active weights 2·a·p: a multiply-add
counts as two, a pruned weight as none, biases and batch norm as none.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from ..masks import count_active

# Forward, gradient of the inputs, gradient of the weights: one forward's worth each.
TRAIN_FACTOR = 3


@dataclass(frozen=True)
class ForwardFlops:
    """Cost of the forward pass of one image.

    Attributes:
        total: of the dense network, with what has no weight, such as attention's products.
        layers: weight name -> its layer's part of that.
    """

    total: int
    layers: Mapping[str, int]

    def at(self, masks: Mapping[str, Tensor]) -> float:
        """Cost if pruned weights cost nothing: each layer's part times its density."""
        active = count_active(masks)
        return self.at_densities({n: active[n] / mask.numel() for n, mask in masks.items()})

    def at_densities(self, densities: Mapping[str, float]) -> float:
        """Cost at densities by weight name; a layer that is not named is dense."""
        return self.total - self.of_layers({n: 1 - d for n, d in densities.items()})

    def of_layers(self, shares: Mapping[str, float]) -> float:
        """Cost of a share of each layer's weights alone."""
        return sum(self.layers.get(name, 0) * share for name, share in shares.items())


def count_forward(model: nn.Module, image: Tensor) -> ForwardFlops:
    """Count one image's forward pass, in evaluation mode.

    Layers are counted from the shapes that hooks see, the total by torch's own counter, so that
    operations outside layers are in it too.

    Args:
        model: left untouched; a copy is run.
        image: [1, C, H, W], or whatever the model takes.
    Returns:
        The total, and the part of each convolution and linear layer by its weight's name.
    """
    model = copy.deepcopy(model).eval()
    layers: dict[str, int] = {}
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | _ConvNd):
            layers[f"{name}.weight"] = 0
            handles.append(module.register_forward_hook(partial(_add, layers, f"{name}.weight")))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    for handle in handles:
        handle.remove()
    return ForwardFlops(counter.get_total_flops(), layers)


def _add(
    layers: dict[str, int], name: str, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor
) -> None:
    """Two operations for each weight at each position; a layer that is called again adds up."""
    weight = module.get_parameter("weight")
    if isinstance(module, nn.Linear):
        positions = out.numel() // weight.shape[0]
    elif isinstance(module, _ConvTransposeNd):  # each weight is used once at each input position
        positions = inputs[0].numel() // weight.shape[0]
    else:
        positions = out.numel() // weight.shape[0]
    layers[name] += 2 * weight.numel() * positions
