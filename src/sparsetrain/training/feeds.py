"""The images of a run as batches: which part, on this process's share, augmented or plain."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .. import data
from ..data.augment import Augment
from ..data.catalog import AnyDataset
from ..data.deal import Feed
from ..data.download import Progress
from ..data.loader import Loader
from ..data.streamed import Reading, Streamed, StreamLoader
from .config import DataConfig, TrainConfig
from .device import Place
from .errors import BadInput

_EVAL_BATCH = 500
_EVAL_PIXELS = _EVAL_BATCH * 64 * 64  # of larger images fewer: activations grow with the area


def load_data(config: DataConfig, progress: Progress | None = None) -> AnyDataset:
    """The data set that the settings name.

    Raises:
        ValueError: unknown, absent or damaged; or settings that are not for it.
    """
    return data.load(
        config.dataset,
        root=config.data_dir,
        download=config.download,
        image_size=config.image_size,
        reading=Reading(config.workers, config.prefetch, config.reduced_decoding),
        progress=progress,
    )


def train_feed(config: TrainConfig, dataset: AnyDataset, kept: Tensor, where: Place) -> Feed:
    """The training images `kept`, augmented, in a new order each epoch.

    Raises:
        BadInput: a padded crop is asked for, where parts of random size are cut out.
    """
    size, world = min(config.optim.batch_size, len(kept)), where.world
    batch_size = max(1, size // world.size)
    # Batch norm cannot train on a last batch of one image.
    drop_last = len(kept) > size and len(kept) % size == 1
    padded = config.data.crop_padding is not None or config.data.padding_mode is not None
    if isinstance(dataset, Streamed) and padded:
        raise BadInput(
            f"crop_padding and padding_mode are for data sets in memory; of {dataset.name} "
            "parts of random size are cut out: leave them out."
        )
    return _feed(
        dataset,
        where,
        index=kept,
        batch_size=batch_size,
        augmented=config.data,
        seed=config.run.seed,
        drop_last=drop_last,
    )


def held_out_feed(dataset: AnyDataset, held: Tensor, where: Place) -> Feed | None:
    """The training images `held` in order, not augmented; None where there are none."""
    if len(held) == 0:
        return None
    return _feed(dataset, where, index=held)


def test_feed(dataset: AnyDataset, where: Place) -> Feed:
    """The test images in order, not augmented."""
    return _feed(dataset, where)


def black(dataset: AnyDataset, where: Place, *, images: int = 1) -> Tensor:
    """Black images as the network takes them."""
    return torch.zeros(images, dataset.in_channels, *dataset.image_size, device=where.device)


def _feed(
    dataset: AnyDataset,
    where: Place,
    *,
    index: Tensor | None = None,
    batch_size: int | None = None,
    augmented: DataConfig | None = None,
    seed: int = 0,
    drop_last: bool = False,
) -> Feed:
    """The training images at `index`, or all test images; shuffled where they are augmented."""
    world, shuffle = where.world, augmented is not None
    if isinstance(dataset, Streamed):
        return StreamLoader(
            dataset.test if index is None else dataset.train,
            index,
            side=dataset.side,
            batch_size=batch_size or max(1, min(_EVAL_BATCH, _EVAL_PIXELS // dataset.side**2)),
            mean=dataset.mean,
            std=dataset.std,
            augment=augmented is not None,
            flip=augmented is None or augmented.flip is not False,
            shuffle=shuffle,
            seed=seed,
            device=where.device,
            channels_last=where.channels_last,
            drop_last=drop_last,
            rank=world.rank,
            world_size=world.size,
            reading=dataset.reading,
        )
    images, labels = dataset.test_images, dataset.test_labels
    if index is not None:
        images, labels = dataset.train_images[index], dataset.train_labels[index]
    return Loader(
        images,
        labels,
        batch_size=batch_size or _EVAL_BATCH,
        mean=dataset.mean,
        std=dataset.std,
        augment=None if augmented is None else _augment(augmented, dataset.augment),
        shuffle=shuffle,
        seed=seed,
        device=where.device,
        channels_last=where.channels_last,
        drop_last=drop_last,
        rank=world.rank,
        world_size=world.size,
    )


def _augment(config: DataConfig, own: Augment) -> Augment:
    return replace(
        own,
        crop_padding=own.crop_padding if config.crop_padding is None else config.crop_padding,
        padding_mode=config.padding_mode or own.padding_mode,
        flip=own.flip if config.flip is None else config.flip,
    )
