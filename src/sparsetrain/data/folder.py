"""A folder of images, one sub-folder a class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .augment import Augment
from .dataset import DataError, Dataset, channel_statistics
from .images import SUFFIXES, Mode, decode, peek
from .splits import split

_TRAIN = "train"
_TEST = ("test", "val")
_HELD_OUT = 0.2
_SEED = 0  # of the split where the folder has none; no other seed of a run changes it
_MAX_BYTES = 1 << 35

_log = logging.getLogger(__name__)
_Files = tuple[list[Path], list[int]]


def load(path: Path, *, image_size: int | tuple[int, int] | None = None) -> Dataset:
    """Read a folder of images by class.

    Either `train/CLASS/…` with `test/CLASS/…` or `val/CLASS/…` beside it, or `CLASS/…` directly, of
    which a fifth of each class is held out to test, with a fixed seed. Files that are no images and
    names that start with a dot are left out.

    Args:
        path: the folder.
        image_size: all images are resized to it, (height, width) or one number for both; None
            takes the first image's. Grey where all images are, else colour.
    Returns:
        the data set; mean and deviation are computed from the training images. Augmentation: crop
        padded by an eighth of the size; no flip, because what a mirror image means is not known.
    Raises:
        DataError: fewer than two classes, a class without images, a test class that is not trained,
            an unreadable image (named), or too much for memory.
    """
    parts, classes = _parts(path)
    every = [file for files, _ in parts for file in files]
    headers = [peek(file) for file in every]
    mode: Mode = "L" if all(kind == "L" for kind, _ in headers) else "RGB"
    size = _size(image_size, headers[0][1])
    _check_memory(path, len(every), size, mode)
    images = [_pixels(files, mode, size) for files, _ in parts]
    labels = [torch.tensor(numbers, dtype=torch.int64) for _, numbers in parts]
    if len(parts) == 1:
        train, test = split(labels[0], _HELD_OUT, seed=_SEED)
        images = [images[0][train], images[0][test]]
        labels = [labels[0][train], labels[0][test]]
    mean, std = channel_statistics(images[0])
    return Dataset(
        name=path.resolve().name,
        train_images=images[0],
        train_labels=labels[0],
        test_images=images[1],
        test_labels=labels[1],
        classes=tuple(classes),
        mean=mean,
        std=std,
        augment=Augment(crop_padding=min(size) // 8),
    )


def _parts(path: Path) -> tuple[list[_Files], list[str]]:
    """Files and labels, of the whole or of training and test, and the class names."""
    train = path / _TRAIN
    if not train.is_dir():
        classes = _classes(path)
        return [_listing(path, classes, classes)], classes
    classes = _classes(train)
    parts = [_listing(train, classes, classes)]
    test, *unread = [path / name for name in _TEST if (path / name).is_dir()] or [None]
    for folder in unread:
        _log.warning(
            "%s is not read: %s is tested on, and validation takes its images from %s.",
            folder,
            test,
            train,
        )
    if test is not None:
        present = [folder.name for folder in _folders(test)]
        unknown = sorted(set(present) - set(classes))
        if unknown or not present:
            raise DataError(
                f"{test} must hold folders named as in {train}, got "
                f"{', '.join(unknown[:3]) or 'none'}. For the stock Tiny-ImageNet archive give the "
                "name tiny-imagenet instead of a path."
            )
        parts.append(_listing(test, present, classes))
    return parts, classes


def _folders(path: Path) -> list[Path]:
    return sorted(
        entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _classes(path: Path) -> list[str]:
    classes = [folder.name for folder in _folders(path)]
    if len(classes) < 2:
        raise DataError(
            f"{path} must hold a folder for each of two or more classes, got {len(classes)} "
            f"({', '.join(classes) or 'none'})."
        )
    return classes


def _listing(path: Path, present: Sequence[str], classes: Sequence[str]) -> _Files:
    files: list[Path] = []
    labels: list[int] = []
    for name in present:
        found = sorted(
            file
            for file in (path / name).rglob("*")
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
        )
        if not found:
            raise DataError(
                f"{path / name} holds no image ({', '.join(sorted(SUFFIXES))}). "
                "Add some or remove the folder."
            )
        files += found
        labels += [classes.index(name)] * len(found)
    return files, labels


def _size(wanted: int | tuple[int, int] | None, first: tuple[int, int]) -> tuple[int, int]:
    size = first if wanted is None else (wanted, wanted) if isinstance(wanted, int) else wanted
    if min(size) < 1:
        raise ValueError(f"image_size must be 1 pixel or more, got {wanted}.")
    return size


def _check_memory(path: Path, count: int, size: tuple[int, int], mode: Mode) -> None:
    needed = count * size[0] * size[1] * len(mode)  # "L" 1 channel, "RGB" 3
    if needed > _MAX_BYTES:
        raise DataError(
            f"The {count} images of {path} at {size[0]}x{size[1]} pixels need {needed >> 30} GiB "
            f"and are held in memory, at most {_MAX_BYTES >> 30} GiB. Take a smaller image_size, "
            f"or --dataset imagenet --data-dir {path}, which reads train/ and val/ as it goes."
        )


def _pixels(files: Sequence[Path], mode: Mode, size: tuple[int, int]) -> Tensor:
    pixels = np.empty((len(files), *size, len(mode)), dtype=np.uint8)
    for place, file in enumerate(files):
        pixels[place] = decode(file, str(file), mode, size)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
