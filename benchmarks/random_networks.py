"""Networks that look trained, for benchmarks: ERK-random masks, batch norms with statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import sparsetrain as st

IMAGE = (3, 32, 32)
OPTIONS: dict[str, dict[str, Any]] = {"resnet32": {"width": 2}, "vgg19": {}, "resnet8": {}}


def network(name: str, sparsity: float) -> nn.Module:
    """A network in evaluation mode, masked, its activations of a trained network's size."""
    torch.manual_seed(0)
    model = st.models.create(name, num_classes=10, in_channels=3, image_size=32, **OPTIONS[name])
    weights = st.select(model)
    counts = st.distributions.erk({n: tuple(w.shape) for n, w in weights.items()}, sparsity)
    with torch.no_grad():
        for key, weight in weights.items():
            chosen = torch.randperm(weight.numel())[: counts[key]]
            scale = (weight.numel() / max(1, counts[key])) ** 0.5  # the variance of a dense layer
            mask = torch.zeros(weight.numel()).index_fill_(0, chosen, scale)
            weight.mul_(mask.view_as(weight))
        _train_norms_(model)
    return model.eval()


def _train_norms_(model: nn.Module) -> None:
    """Batch norms as after a training, so that folding them matters."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0.0, 0.1)


def products(model: nn.Module, image: tuple[int, ...] = IMAGE) -> tuple[int, int]:
    """Multiply-adds of one image: by kept weights, and by all."""
    kept = whole = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal kept, whole
        assert isinstance(module, nn.Conv2d | nn.Linear)
        positions = output[0, 0].numel()
        kept += int(module.weight.count_nonzero()) * positions
        whole += module.weight.numel() * positions

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    model(torch.zeros(1, *image))
    for hook in hooks:
        hook.remove()
    return kept, whole
