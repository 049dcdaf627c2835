"""How an epoch is cut into batches and dealt out to processes: arithmetic alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from .plan import Shard

if TYPE_CHECKING:
    from typing_extensions import Self


class Feed(Protocol):
    """What training and evaluation take their batches from, wherever the images lie."""

    @property
    def labels(self) -> Tensor:
        """int64 [N], of all samples of all processes."""
        ...

    @property
    def full(self) -> int:
        """Samples of its largest batch on this rank."""
        ...

    def __len__(self) -> int:
        """Batches of an epoch; the same on all ranks."""
        ...

    def for_one(self) -> Feed:
        """What one process would load: all ranks' batches together."""
        ...

    def counted(self, number: int) -> tuple[int, int]:
        """Images of batch `number` that are no repeats: here, and in all."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches (images, labels) of an epoch on the device, from batch `start` on."""
        ...


@dataclass(frozen=True)
class Deal:
    """An epoch of `count` samples in batches.

    Attributes:
        count: samples of all ranks.
        batch_size: samples of a batch, on this rank.
        drop_last: leave out a last batch smaller than batch_size.
        seed: of the order, >= 0; here it is only checked.
        shard: which part of each epoch this process takes.

    Raises:
        ValueError: numbers that leave no batch.
    """

    count: int
    batch_size: int
    drop_last: bool
    seed: int
    shard: Shard

    def __post_init__(self) -> None:
        ranks = self.shard.world_size
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {self.batch_size}.")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}.")
        least = ranks * self.batch_size if self.drop_last else ranks
        if self.count < least:
            raise ValueError(
                f"{self.count} samples are too few for batch_size {self.batch_size} on {ranks} "
                f"rank(s) with drop_last={self.drop_last}; at least {least} are needed."
            )

    @property
    def batches(self) -> int:
        """Batches of an epoch; the same on all ranks."""
        ranks = self.shard.world_size
        if self.drop_last:
            return self.count // ranks // self.batch_size
        return -(-self.count // (ranks * self.batch_size))

    @property
    def full(self) -> int:
        """Samples of the largest batch on this rank."""
        return min(self.batch_size, -(-self.count // self.shard.world_size))

    def for_one(self) -> Deal:
        """All ranks' batches together, for one process."""
        return replace(self, batch_size=self.batch_size * self.shard.world_size, shard=Shard())

    def counted(self, number: int) -> tuple[int, int]:
        """Images of batch `number` that are no repeats: here, where they come first, and in all.

        Ranks whose parts differ by one image average right if they weigh their loss by these.
        """
        count, (rank, ranks) = self.count, (self.shard.rank, self.shard.world_size)
        parts = count // ranks if self.drop_last else -(-count // ranks)
        low = number * self.batch_size
        high = min(low + self.batch_size, parts)
        here = -(-(count - rank) // ranks)  # places of this rank within the samples
        return max(0, min(high, here) - low), min(high * ranks, count) - low * ranks

    def bound(self, number: int, samples: int) -> int:
        """First place of a batch among this rank's `samples`, or the end of the last one."""
        left = self.batches - number
        if left == 0 and not self.drop_last:
            return samples
        # A rank with one sample less keeps one for its last batch, lest that be empty.
        return max(0, min(number * self.batch_size, samples - left))

    def check(self, epoch: int, start: int) -> None:
        """Raise ValueError where there is no such epoch or batch."""
        if epoch < 0:
            raise ValueError(f"epoch must be 0 or more, got {epoch}.")
        if not 0 <= start <= self.batches:
            raise ValueError(f"start must be a batch in [0, {self.batches}], got {start}.")


class Dealt:
    """What a loader says of its deal; `_deal` is set by the loader."""

    _deal: Deal

    def __len__(self) -> int:
        """Batches of an epoch; the same on all ranks."""
        return self._deal.batches

    @property
    def full(self) -> int:
        """Samples of its largest batch on this rank."""
        return self._deal.full

    def for_one(self) -> Self:
        """What one process would load: all ranks' batches together; the images are shared."""
        one = copy.copy(self)
        one._deal = self._deal.for_one()
        return one

    def counted(self, number: int) -> tuple[int, int]:
        """Images of batch `number` that are no repeats: here, where they come first, and in all.

        Ranks whose parts differ by one image average right if they weigh their loss by these.
        """
        return self._deal.counted(number)
