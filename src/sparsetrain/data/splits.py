"""Hold out a part of every class."""

from __future__ import annotations

import torch
from torch import Tensor


def split(labels: Tensor, fraction: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Hold out a stratified part of a data set, with a seed of its own.

    Args:
        labels: int64 [N].
        fraction: part held out, 0 <= fraction < 1.
        seed: of the choice within each class; nothing else draws from it.
    Returns:
        (training indices, held-out indices), int64, ascending, disjoint, together all of 0..N-1.
        Exactly round(fraction N) are held out; each class gives its share to within one sample,
        by largest remainder, ties to the lower class.
    Raises:
        ValueError: fraction out of range, or no sample would be left to train on.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction held out must be in [0, 1), got {fraction}. Did you mean 0.1?")
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"labels must be a non-empty vector, got shape {tuple(labels.shape)}.")
    labels = labels.cpu()
    total = round(fraction * len(labels))
    if total == len(labels):
        raise ValueError(f"holding out {fraction} of {len(labels)} samples leaves none to train.")
    classes, counts = labels.unique(return_counts=True)
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for value, quota in zip(classes.tolist(), _quotas(counts.tolist(), total), strict=True):
        members = (labels == value).nonzero().squeeze(1)
        chosen = torch.randperm(len(members), generator=generator)[:quota]
        held[members[chosen]] = True
    return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)


def _quotas(counts: list[int], total: int) -> list[int]:
    """Integers near total * counts / sum(counts) that add up to total, by largest remainder."""
    size = sum(counts)
    quotas = [total * count // size for count in counts]
    remainders = [total * count % size for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda place: (-remainders[place], place))
    for place in by_remainder[: total - sum(quotas)]:
        quotas[place] += 1
    return quotas
