"""Batches of images that worker processes decode ahead; the same whoever decodes them."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..dataset import DataError
from ..deal import Deal, Dealt
from ..normalise import normaliser
from ..plan import Shard, generator_of, order_of
from .dataset import Reading, Source
from .decode import central_box, decode_cut, random_box


@dataclass(frozen=True)
class Square:
    """How a square is made of an image.

    Attributes:
        side: its pixels.
        reduced: JPEGs are decoded at reduced size where that does.
        seed: of random parts and flips; None takes the central part.
        flip: whether each image is mirrored left-right with probability 1/2, where seed is given.
    """

    side: int
    reduced: bool = True
    seed: int | None = None
    flip: bool = True

    def of(self, source: Source, place: int, epoch: int) -> np.ndarray:
        """An image's square, uint8 [side, side, 3]: a function of (seed, epoch, place) alone.

        Raises:
            DataError: it cannot be read.
        """
        cut, mirrored = central_box, False
        if self.seed is not None:
            generator = np.random.default_rng([self.seed, epoch, place])
            coin = generator.random()  # also without flips, so that the parts are the same
            mirrored = self.flip and coin < 0.5
            cut = partial(random_box, generator=generator)
        pixels = decode_cut(
            source.read(place), source.name(place), cut, side=self.side, reduced=self.reduced
        )
        return pixels[:, ::-1] if mirrored else pixels


class StreamLoader(Dealt):
    """Batches of images and labels, decoded as they are needed, normalised on the device.

    Order, crop and flip are drawn from (seed, epoch, image): the same with any number of workers
    and ranks, and going on in mid-epoch equals the undisturbed run bit for bit. Rank r of W takes
    places r, r + W, … of an epoch, as `data.Loader` has it. Memory holds at most
    workers x prefetch + 2 batches of uint8 squares.

    Args:
        source: all images of the part.
        index: int64 [K], those of them that are used; None: all.
        side: pixels of a side of what is handed out.
        batch_size: samples of a batch, on this rank.
        mean: of each channel, pixels scaled to 0..1.
        std: of each channel, pixels scaled to 0..1, above 0.
        augment: random part of random size, else the central one.
        flip: random left-right flips, with `augment`.
        shuffle: whether each epoch has an order of its own.
        seed: of order and augmentation, >= 0.
        device: where batches are wanted.
        channels_last: memory format of the images handed out.
        drop_last: leave out a last batch smaller than batch_size.
        rank: which part of each epoch this process takes.
        world_size: number of parts.
        reading: workers, prefetch and reduced decoding.

    Raises:
        ValueError: arguments that do not fit each other, or leave no batch.
    """

    def __init__(
        self,
        source: Source,
        index: Tensor | None = None,
        *,
        side: int,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: bool = False,
        flip: bool = True,
        shuffle: bool,
        seed: int,
        device: torch.device | str,
        channels_last: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        reading: Reading | None = None,
    ) -> None:
        self._source = source
        self._index = torch.arange(len(source.labels)) if index is None else index.cpu()
        self._labels = source.labels[self._index]
        self._device, self._shuffle = torch.device(device), shuffle
        self._reading = reading or Reading()
        self._square = Square(side, self._reading.reduced, seed if augment else None, flip)
        self._normalise = normaliser(
            mean,
            std,
            width=side,
            device=self._device,
            dtype=torch.float32,
            channels_last=channels_last,
        )
        self._deal = Deal(len(self._index), batch_size, drop_last, seed, Shard(rank, world_size))

    @property
    def labels(self) -> Tensor:
        """int64 [K], of all samples of all ranks, on the CPU."""
        return self._labels

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, from batch `start` on.

        Args:
            epoch: which epoch, >= 0; an unshuffled loader without augmentation ignores it.
            start: first batch handed out, 0 <= start <= len(self).

        Returns:
            iterator over (images [B, 3, side, side], labels int64 [B]), on the device.

        Raises:
            ValueError: epoch or start out of range.
            DataError: from the iterator, of the first image that cannot be read.
        """
        self._deal.check(epoch, start)
        return self._batches(self._places(epoch)[start:], epoch)

    def _batches(self, places: list[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number, pixels in enumerate(self._decoded(places, epoch)):
            if isinstance(pixels, str):
                raise DataError(pixels)
            images = self._normalise(pixels.to(self._device, non_blocking=True))
            yield images, self._labels[places[number]].to(self._device)

    def _places(self, epoch: int) -> list[Tensor]:
        """Places in the index of each batch of this rank."""
        deal = self._deal
        order = order_of(
            deal.count,
            shuffle=self._shuffle,
            drop_last=deal.drop_last,
            shard=deal.shard,
            generator=generator_of(deal.seed, epoch),
        )[deal.shard.rank :: deal.shard.world_size]
        bounds = [deal.bound(number, len(order)) for number in range(deal.batches + 1)]
        return [order[a:b] for a, b in pairwise(bounds)]

    def _decoded(self, places: list[Tensor], epoch: int) -> Iterator[Tensor | str]:
        decoder = _Decoder(self._source, self._square, epoch)
        numbers = [self._index[batch].tolist() for batch in places]
        # More workers than batches would only be started to end.
        workers = min(self._reading.worker_count(), len(numbers))
        loader = DataLoader(
            decoder,  # pyright: ignore[reportArgumentType] - it only needs __getitem__
            batch_sampler=numbers,
            num_workers=workers,
            prefetch_factor=self._reading.prefetch if workers else None,
            collate_fn=partial(_stacked, side=self._square.side),
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_settle,
            generator=torch.Generator(),  # else it draws from torch's own, which resume restores
        )
        yield from loader


class _Decoder:
    """An image number -> its square, or the sentence that says why there is none."""

    def __init__(self, source: Source, square: Square, epoch: int) -> None:
        self._source, self._square, self._epoch = source, square, epoch

    def __getitem__(self, place: int) -> np.ndarray | str:
        # As a value: an error from another process arrives with that process's traceback as text.
        try:
            return self._square.of(self._source, place, self._epoch)
        except DataError as error:
            return str(error)


def _stacked(squares: list[np.ndarray | str], *, side: int) -> Tensor | str:
    """uint8 [B, side, side, 3], or the first failure."""
    for square in squares:
        if isinstance(square, str):
            return square
    if not squares:  # an unshuffled rank's first batch may be
        return torch.empty(0, side, side, 3, dtype=torch.uint8)
    return torch.from_numpy(np.stack(squares))  # pyright: ignore[reportArgumentType, reportCallIssue]


def _settle(_: int) -> None:
    """A worker leaves Ctrl-C to the training process, and dies of SIGTERM; it inherits neither."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.filterwarnings("ignore", module="PIL")  # of metadata that nobody reads
