"""The optimizer that the settings name, fused where torch has a fused kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ..sharded import any_sharded
from .config import OptimConfig
from .fused import FusedAdam, FusedAdamW, FusedSGD

_KINDS: dict[str, tuple[type[Optimizer], type[Optimizer]]] = {
    "sgd": (SGD, FusedSGD),
    "adam": (Adam, FusedAdam),
    "adamw": (AdamW, FusedAdamW),
}


def make_optimizer(model: nn.Module, optim: OptimConfig, device: torch.device) -> Optimizer:
    """One parameter group with every parameter, as the sparse-training papers have it.

    Without `decay_norms` there are two: weights, and what is not decayed.

    Args:
        model: on `device` already.
        optim: `optimizer`, `lr`, `momentum`, `nesterov`, `weight_decay`, `decay_norms`.
        device: decides whether the fused kernel is used; CPU and CUDA have one.
    Returns:
        The optimizer.
    """
    parameters = list(model.parameters())
    groups = [{"params": parameters}] if optim.decay_norms else _groups(parameters)
    # The fused SGD has no form for FSDP2's parameters.
    fused = device.type in ("cpu", "cuda") and not any_sharded(parameters)
    plain, quick = _KINDS[optim.optimizer]
    options: dict[str, Any] = {"lr": optim.lr, "weight_decay": optim.weight_decay}
    if plain is SGD:
        options |= {"momentum": optim.momentum, "nesterov": optim.nesterov}
    return (quick if fused else plain)(groups, **options)


def _groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Weights, decayed; batch norms and biases, which are not."""
    decayed = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
