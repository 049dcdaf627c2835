"""The optimizer that the settings name, fused where torch has a fused kernel."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ..sharded import any_sharded
from .config import OptimConfig


def make_optimizer(model: nn.Module, optim: OptimConfig, device: torch.device) -> Optimizer:
    """One parameter group with every parameter, as the sparse-training papers have it.

    Args:
        model: on `device` already.
        optim: `optimizer`, `lr`, `momentum`, `nesterov`, `weight_decay`.
        device: decides whether the fused kernel is used; CPU and CUDA have one.
    Returns:
        The optimizer.
    """
    parameters = list(model.parameters())
    # The fused SGD has no form for FSDP2's parameters.
    fused = device.type in ("cpu", "cuda") and not any_sharded(parameters)
    if optim.optimizer == "sgd":
        return SGD(
            parameters,
            lr=optim.lr,
            momentum=optim.momentum,
            nesterov=optim.nesterov,
            weight_decay=optim.weight_decay,
            fused=fused,
        )
    kind = Adam if optim.optimizer == "adam" else AdamW
    return kind(parameters, lr=optim.lr, weight_decay=optim.weight_decay, fused=fused)
