"""Everything random about an epoch, drawn at its start from (seed, epoch) alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .augment import Augment


@dataclass(frozen=True)
class Shard:
    """Which part of every epoch a process takes: places rank, rank + world_size, …

    Attributes:
        rank: 0 <= rank < world_size.
        world_size: number of parts.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"rank must be in [0, world_size), got rank {self.rank} of {self.world_size}."
            )


@dataclass(frozen=True, eq=False)
class Plan:
    """What an epoch does, by place in one process's part of it.

    Attributes:
        order: int64, sample of each place.
        top: int64, first row of its window in the padded image.
        left: int64, first column of its window.
        flips: int64, places whose image is mirrored, ascending.
        flipped_before: number of mirrored places before each place and in all; known to the host,
            so that a batch's share of `flips` is found without waiting for the device.
    """

    order: Tensor
    top: Tensor
    left: Tensor
    flips: Tensor
    flipped_before: tuple[int, ...]


def order_of(
    count: int, *, shuffle: bool, drop_last: bool, shard: Shard, generator: torch.Generator
) -> Tensor:
    """Order of a whole epoch, before it is dealt out.

    Args:
        count: samples.
        shuffle: whether in random order.
        drop_last: a shuffled order is made divisible by leaving out its end, not by repeating.
        shard: only its world size counts here.
        generator: source of the order.
    Returns:
        int64; shuffled, its length is a multiple of the world size: the first samples once more
        at its end, or its last ones left out. Unshuffled, 0..count-1.
    """
    if not shuffle:
        return torch.arange(count)
    order = torch.randperm(count, generator=generator)
    parts = count // shard.world_size if drop_last else -(-count // shard.world_size)
    return order.repeat(2)[: parts * shard.world_size]


def draw(
    count: int,
    *,
    augment: Augment,
    shuffle: bool,
    drop_last: bool,
    shard: Shard,
    seed: int,
    epoch: int,
    device: torch.device,
) -> Plan:
    """Order and augmentation of one process's part of an epoch.

    Args:
        count: samples, >= world size.
        augment: what is random about an image.
        shuffle: whether the order is.
        drop_last: see `order_of`.
        shard: which part.
        seed: >= 0.
        epoch: >= 0.
        device: where the plan is wanted; it is drawn on the CPU, the same for every device.
    Returns:
        the plan; a sample's crop and flip depend on its place in the epoch, not on the shard.
    """
    generator = generator_of(seed, epoch)
    order = order_of(count, shuffle=shuffle, drop_last=drop_last, shard=shard, generator=generator)
    reach = 2 * augment.crop_padding + 1
    # For each sample once, so that they do not depend on the number of ranks; a repeat is alike.
    top, left = torch.randint(reach, (2, count), generator=generator).repeat(1, 2)[:, : len(order)]
    coins = torch.randint(2, (count,), generator=generator).repeat(2)[: len(order)]
    mine = slice(shard.rank, None, shard.world_size)
    flip = coins[mine] if augment.flip else torch.zeros_like(coins[mine])
    return Plan(
        order=order[mine].to(device),
        top=top[mine].to(device),
        left=left[mine].to(device),
        flips=flip.nonzero().squeeze(1).to(device),
        flipped_before=(0, *flip.cumsum(0).tolist()),
    )


def generator_of(seed: int, epoch: int) -> torch.Generator:
    """A stream of its own for each (seed, epoch); seed + epoch would repeat across seeds."""
    (state,) = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state) >> 1)
