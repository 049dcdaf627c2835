"""What a data set is that stays on the disk: places of images, their labels, how they are read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from torch import Tensor

# Of ImageNet's training images, as everybody rounds them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_MOST_WORKERS = 8


class Source(Protocol):
    """Images by number; it goes to the worker processes, so it must be picklable and small."""

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        ...

    def name(self, place: int) -> str:
        """What messages call an image."""
        ...

    def read(self, place: int) -> Path | IO[bytes]:
        """An image's file, or its bytes as one."""
        ...


@dataclass(frozen=True)
class Reading:
    """How images get from the disk to the device.

    Attributes:
        workers: processes that decode; 0: the training process does; None: one for each core of
            this process's share, at most 8.
        prefetch: batches that each worker has ready ahead, >= 1.
        reduced: JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where that has pixels enough.
    """

    workers: int | None = None
    prefetch: int = 2
    reduced: bool = True

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must be 0 or more, got {self.workers}.")
        if self.prefetch < 1:
            raise ValueError(f"prefetch must be 1 or more batches, got {self.prefetch}.")

    def worker_count(self) -> int:
        """`workers`, or as many as this process has cores to itself, at most 8."""
        if self.workers is not None:
            return self.workers
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's, on this machine
        return max(1, min(_MOST_WORKERS, _cores() // beside))


@dataclass(frozen=True, eq=False)
class Streamed:
    """A data set read from the disk while it is used; colour images, square once cropped.

    Attributes:
        name: the name it was loaded by.
        train: the training images.
        test: those the papers test on.
        classes: name of each class, in label order.
        side: pixels of a side of what the network sees.
        reading: how it is read.
        mean: of each channel, pixels scaled to 0..1.
        std: of each channel, pixels scaled to 0..1.
    """

    name: str
    train: Source
    test: Source
    classes: tuple[str, ...]
    side: int
    reading: Reading = Reading()
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @property
    def train_labels(self) -> Tensor:
        """int64 [N], 0 <= label < num_classes."""
        return self.train.labels

    @property
    def test_labels(self) -> Tensor:
        """int64 [M]."""
        return self.test.labels

    @property
    def num_classes(self) -> int:
        """How many classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Three: grey images are converted."""
        return 3

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of what the network sees, in pixels."""
        return self.side, self.side


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
