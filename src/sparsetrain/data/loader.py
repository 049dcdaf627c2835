"""Batches from images that live on the device, cropped, flipped and normalised there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .augment import Augment, crop, flip_, pad
from .deal import Deal, Dealt
from .normalise import normaliser
from .plan import Plan, Shard, draw


class Loader(Dealt):
    """Batches of images and labels, all work done batch-wise on the device.

    The images are padded once and kept as uint8. Order and augmentation of an epoch are drawn at
    its start from (seed, epoch) alone, on the CPU: they are the same on every device, and going on
    in mid-epoch equals the undisturbed run bit for bit. Rank r of W takes places r, r + W, … of
    that epoch: W ranks with batches of B see what one process sees with batches of W B.

    Shuffled epochs are made divisible by the ranks by repeating their first samples or, with
    `drop_last`, leaving out their last ones. Unshuffled ones hold every sample exactly once. All
    ranks have equally many batches, so that collective calls match (unshuffled, with batches of
    one sample, a rank's first one may be empty).

    Args:
        images: uint8 [N, C, H, W], pixels 0..255.
        labels: int64 [N].
        batch_size: samples of a batch, on this rank.
        mean: of each channel, pixels scaled to 0..1.
        std: of each channel, pixels scaled to 0..1, above 0.
        augment: random crop and flip; None for evaluation.
        shuffle: whether each epoch has an order of its own.
        seed: of order and augmentation, >= 0.
        device: where the data live and batches are made.
        dtype: of the images handed out; arithmetic is in float32 or wider.
        channels_last: memory format of the images handed out.
        drop_last: leave out a last batch smaller than batch_size.
        rank: which part of each epoch this process takes.
        world_size: number of parts.

    Raises:
        ValueError: arguments that do not fit each other, or leave no batch.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augment | None = None,
        shuffle: bool,
        seed: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check_tensors(images, labels, channels=len(mean))
        self._augment = augment if augment is not None else Augment()
        # A no-op for a Dataset's images, which lie in this order already.
        flat = images.to(device).permute(0, 2, 3, 1).contiguous()
        self._images = pad(flat, self._augment.crop_padding, self._augment.padding_mode)
        self._labels = labels.to(device)
        self._normalise = normaliser(
            mean,
            std,
            width=images.shape[3],
            device=self._images.device,
            dtype=dtype,
            channels_last=channels_last,
        )
        self._shuffle = shuffle
        self._deal = Deal(len(labels), batch_size, drop_last, seed, Shard(rank, world_size))

    @property
    def labels(self) -> Tensor:
        """int64 [N], of all samples of all ranks, on the device."""
        return self._labels

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, from batch `start` on.

        Args:
            epoch: which epoch, >= 0; an unshuffled loader without augmentation ignores it.
            start: first batch handed out, 0 <= start <= len(self).

        Returns:
            iterator over (images [B, C, H, W], labels int64 [B]), on the device.

        Raises:
            ValueError: epoch or start out of range.
        """
        deal = self._deal
        deal.check(epoch, start)
        plan = draw(
            deal.count,
            augment=self._augment,
            shuffle=self._shuffle,
            drop_last=deal.drop_last,
            shard=deal.shard,
            seed=deal.seed,
            epoch=epoch,
            device=self._images.device,
        )
        return (self._batch(plan, number) for number in range(start, len(self)))

    def _batch(self, plan: Plan, number: int) -> tuple[Tensor, Tensor]:
        samples = len(plan.order)
        low, high = (self._deal.bound(place, samples) for place in (number, number + 1))
        index = plan.order[low:high]
        images = crop(
            self._images,
            index,
            plan.top[low:high],
            plan.left[low:high],
            padding=self._augment.crop_padding,
        )
        first, last = plan.flipped_before[low], plan.flipped_before[high]
        if last > first:
            flip_(images, plan.flips[first:last] - low)
        return self._normalise(images), self._labels[index]


def _check_tensors(images: Tensor, labels: Tensor, *, channels: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            "images must be uint8 of shape [N, C, H, W] and not empty, got "
            f"{images.dtype} of shape {list(images.shape)}."
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels must be int64 of shape [{len(images)}], one for each image, got "
            f"{labels.dtype} of shape {list(labels.shape)}."
        )
    if channels != images.shape[1]:
        raise ValueError(
            f"mean must have one number for each of {images.shape[1]} channels, got {channels}."
        )
