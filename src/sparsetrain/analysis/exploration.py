"""In-time exploration: the share of all weights that were ever active."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from ..masks import count_active, total
from ..types import Tensors


def exploration_rate(history: Iterable[Tensors]) -> list[float]:
    """R_s after each time: the weights active now or before, by all weights.

    Args:
        history: masks at successive times, each name -> bool mask; gone through once, so it may be
            a generator. No mask is changed.
    Returns:
        One fraction a time, never falling; the first is the density of the first masks.
    Source: Liu et al. 2021, arXiv 2102.02887, eq. 1.
    """
    seen: dict[str, torch.Tensor] = {}
    rates: list[float] = []
    for masks in history:
        seen = {n: mask | seen[n] if n in seen else mask.clone() for n, mask in masks.items()}
        rates.append(sum(count_active(seen).values()) / total(seen))
    return rates


def expected_exploration(density: float, drop_fractions: Sequence[float]) -> list[float]:
    """R_s that random growth would reach, in expectation, in a layer of many weights.

    An update drops the share r of the active weights and grows as many among the inactive ones at
    random, those just dropped included; a weight that was never active is chosen with probability
    r·d / (1 - d·(1 - r)). What lies below this line goes back to old places.

    Args:
        density: share of active weights d, 0 < d <= 1.
        drop_fractions: r of each update in turn.
    Returns:
        The rate before the first update and after each.
    Raises:
        ValueError: density out of range.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1], got {density:g}.")
    never = 1 - density
    rates = [density]
    for fraction in drop_fractions:
        free = 1 - density * (1 - fraction)
        never *= 1 - (fraction * density / free if free else 0.0)
        rates.append(1 - never)
    return rates
