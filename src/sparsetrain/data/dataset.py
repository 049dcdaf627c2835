"""What a data set is once read: images and labels in memory, and how they are usually prepared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .augment import Augment


class DataError(ValueError):
    """A data set cannot be had or read; the message is one sentence that says what to do."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set held in memory.

    Attributes:
        name: the name it was loaded by, or the folder's.
        train_images: uint8 [N, C, H, W], pixels 0..255; memory in N, H, W, C order, which is what
            `Loader` wants.
        train_labels: int64 [N], 0 <= label < num_classes.
        test_images: uint8 [M, C, H, W].
        test_labels: int64 [M].
        classes: name of each class, in label order.
        mean: mean of each channel, pixels scaled to 0..1.
        std: standard deviation of each channel, pixels scaled to 0..1.
        augment: the augmentation its papers train with.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment

    @property
    def num_classes(self) -> int:
        """How many classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Channels of an image: 1 grey, 3 colour."""
        return self.train_images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        return self.train_images.shape[2], self.train_images.shape[3]


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, from exact pixel counts.

    Args:
        images: uint8 [N, C, H, W].
    Returns:
        (mean, std), pixels scaled to 0..1; std is at least 1/255, so that a constant channel can
        be divided by it.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means: list[float] = []
    deviations: list[float] = []
    for channel in range(images.shape[1]):
        # 256 counts instead of a float copy: exact, and no memory for large sets.
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        weights = counts / counts.sum()
        mean = (weights * values).sum()
        variance = (weights * (values - mean).square()).sum()
        means.append(mean.item())
        deviations.append(max(variance.sqrt().item(), 1 / 255))
    return tuple(means), tuple(deviations)
