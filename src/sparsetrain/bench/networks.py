"""The network that is timed: a finished run's, or one with random zeros where they would lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import distributions, models
from ..selection import select
from ..training.device import place
from ..training.errors import BadInput
from ..training.feeds import load_data, test_feed
from ..training.finished import opened
from ..training.session import make_model


@dataclass(frozen=True, eq=False)
class Subject:
    """What is timed.

    Attributes:
        name: for the reader.
        masks: "trained", or "ERK, random".
        model: in evaluation mode, on the CPU.
        images: one batch.
    """

    name: str
    masks: str
    model: nn.Module
    images: Tensor


def of_run(path: Path, batch: int) -> Subject:
    """The network of a finished run and images of its test set.

    Raises:
        BadInput: no finished run lies there, or its data are missing.
    """
    parts = opened(path)
    where = place(replace(parts.config.run, device="cpu"))
    try:
        dataset = load_data(parts.config.data)
        model = make_model(parts.config.model, dataset, where)
        model.load_state_dict(parts.weights)
    except (ValueError, OSError, RuntimeError) as error:
        raise BadInput(f"cannot rebuild the network of {path}: {error}") from error
    first = next(iter(test_feed(dataset, where).batches(0)))[0].float().contiguous()
    images = first[torch.arange(batch) % len(first)]
    # A run that computed in channels-last has its weights so.
    model = model.float().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return Subject(str(path), "trained", model.eval(), images)


def of_name(name: str, sparsity: float, *, batch: int, image_size: int, width: int) -> Subject:
    """One of our networks with weights of usual size, of which ERK leaves so many in random places.

    Raises:
        BadInput: an unknown network, or a size or sparsity out of range.
    """
    torch.manual_seed(0)
    try:
        if width == 1:  # which not every network takes
            model = models.create(name, image_size=image_size).eval()
        else:
            model = models.create(name, image_size=image_size, width=width).eval()
        prune_at_random_(model, sparsity)
    except ValueError as error:
        raise BadInput(str(error)) from error
    images = torch.randn(batch, 3, image_size, image_size)
    title = name if width == 1 else f"{name}, width {width}"
    return Subject(title, "ERK, random", model, images)


def prune_at_random_(model: nn.Module, sparsity: float) -> None:
    """Redraw all prunable weights, as many zeros in each layer as ERK gives it.

    Raises:
        ValueError: sparsity out of range.
    """
    chosen = select(model)
    counts = distributions.erk({n: tuple(p.shape) for n, p in chosen.items()}, sparsity)
    with torch.no_grad():
        for name, weight in chosen.items():
            weight.normal_(std=(2 / max(1, weight[0].numel())) ** 0.5)
            kept = torch.zeros(weight.numel(), dtype=torch.bool)
            kept[torch.randperm(weight.numel())[: counts[name]]] = True
            weight.masked_fill_(~kept.view(weight.shape), 0.0)


def sparsity_of(model: nn.Module) -> float:
    """Fraction of zeros over all prunable weights."""
    weights = list(select(model).values())
    total = sum(weight.numel() for weight in weights)
    return 1 - sum(int(weight.count_nonzero()) for weight in weights) / max(1, total)


def deviation(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two outputs, relative to the largest entry of what is expected.

    NaN where either has one; infinite where the shapes differ.
    """
    if found.shape != expected.shape:
        return float("inf")
    scale = max(expected.abs().max().item(), 1e-30) if expected.numel() else 1.0
    return ((found - expected).abs().max() / scale).item() if expected.numel() else 0.0
