"""Floating-point operations, dense and at the masks' density; a multiply-add counts as two."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..masks import count_active

# Forward, gradient of the inputs, gradient of the weights: one forward's worth each.
TRAIN_FACTOR = 3


@dataclass(frozen=True)
class ForwardFlops:
    """Cost of the forward pass of one image.

    Attributes:
        total: of the dense network.
        layers: weight name -> its layer's part of that.
    """

    total: int
    layers: Mapping[str, int]

    def at(self, masks: Mapping[str, Tensor]) -> float:
        """Cost if pruned weights cost nothing: each layer's part times its density."""
        saved = 0.0
        for name, active in count_active(masks).items():
            saved += self.layers.get(name, 0) * (1 - active / masks[name].numel())
        return self.total - saved


def count_forward(model: nn.Module, image: Tensor) -> ForwardFlops:
    """Count one image's forward pass with torch's own counter, in evaluation mode.

    Args:
        model: left untouched; a copy is run.
        image: [1, C, H, W].
    Returns:
        The total, and the part of each convolution and linear layer by its weight's name.
    """
    model = copy.deepcopy(model).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    by_module = {path: sum(ops.values()) for path, ops in counter.get_flop_counts().items()}
    root = type(model).__name__
    layers = {
        f"{name}.weight": int(by_module.get(f"{root}.{name}", 0))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    }
    return ForwardFlops(counter.get_total_flops(), layers)
