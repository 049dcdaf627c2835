"""Masks to start from: dense, random, or one-shot pruned, with a distribution's exact counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .. import criteria, distributions
from .. import masks as mask_algebra
from ..types import Distribution, Masks, View

DistributionName: TypeAlias = Literal["uniform", "er", "erk", "smart_ratio"]
StartMask: TypeAlias = Literal["random", "pruned"]

DISTRIBUTIONS: dict[str, Distribution] = {
    "uniform": distributions.uniform,
    "er": distributions.er,
    "erk": distributions.erk,
    "smart_ratio": distributions.smart_ratio,
}


def start_masks(view: View, sparsity: float, *, distribution: str, start_mask: str) -> Masks:
    """The first masks of a run.

    Args:
        view: the untrained (or loaded) network.
        sparsity: fraction of zeros to start with; 0 is dense and draws nothing.
        distribution: name of the layer-wise counts.
        start_mask: "random" positions, or "pruned": the largest weights of each layer.
    Returns:
        name -> bool mask, exactly `kept(N, sparsity)` True in total.
    """
    if sparsity == 0:
        return {n: torch.ones_like(w, dtype=torch.bool) for n, w in view.weights.items()}
    shapes = {name: tuple(weight.shape) for name, weight in view.weights.items()}
    counts = DISTRIBUTIONS[distribution](shapes, sparsity)
    score = criteria.random if start_mask == "random" else criteria.magnitude
    return mask_algebra.keep_layerwise(score(view), counts)


def given_masks(masks: Mapping[str, Tensor], sparsity: float) -> Masks:
    """The masks, if they hold exactly `kept(N, sparsity)` weights.

    Raises:
        ValueError: they hold another number.
    """
    wanted = mask_algebra.kept(mask_algebra.total(masks), sparsity)
    found = sum(mask_algebra.count_active(masks).values())
    if found != wanted:
        raise ValueError(
            f"masks must hold {wanted} weights, which is a sparsity of {sparsity:g}, got {found} "
            f"({mask_algebra.sparsity(masks):g}); pass the sparsity that they were made with"
        )
    return dict(masks)
