"""The data sets by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import cifar, digits, folder, mnist, tiny_imagenet
from .dataset import DataError, Dataset
from .download import Progress
from .store import Store, default_root


@dataclass(frozen=True)
class Entry:
    """A row of the list of data sets.

    Attributes:
        name: what `load` takes.
        classes: how many.
        image: (channels, height, width).
        train: training images.
        test: test images.
        source: where it comes from.
    """

    name: str
    classes: int
    image: tuple[int, int, int]
    train: int
    test: int
    source: str


_ENTRIES = (
    Entry("digits", 10, (1, 8, 8), 1_437, 360, "embedded in scikit-learn"),
    Entry("mnist", 10, (1, 28, 28), 60_000, 10_000, mnist.MNIST.base),
    Entry("fashion-mnist", 10, (1, 28, 28), 60_000, 10_000, mnist.FASHION_MNIST.base),
    Entry("cifar10", 10, (3, 32, 32), 50_000, 10_000, cifar.CIFAR10.archive.url),
    Entry("cifar100", 100, (3, 32, 32), 50_000, 10_000, cifar.CIFAR100.archive.url),
    Entry("tiny-imagenet", 200, (3, 64, 64), 100_000, 10_000, tiny_imagenet.ARCHIVE.url),
)


def names() -> tuple[str, ...]:
    """Names of the data sets, the embedded one first."""
    return tuple(entry.name for entry in _ENTRIES)


def describe() -> tuple[Entry, ...]:
    """A row about each data set, in the order of `names()`."""
    return _ENTRIES


def load(
    name_or_path: str | Path,
    *,
    root: Path | None = None,
    download: bool = True,
    image_size: int | tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set by name, or a folder of images by class.

    Args:
        name_or_path: one of `names()`, or the path of a folder (see `folder.load`). A name wins
            over a folder of that name; "./name" and Path("name") are always folders.
        root: files of data set NAME lie in root/NAME; None: environment variable SPARSETRAIN_DATA,
            else ~/.cache/sparsetrain.
        download: whether missing files are fetched.
        image_size: (height, width) or one number for both, for a folder alone; None takes the first
            image's.
        progress: called with (file name, bytes so far, bytes in all or None) during a download.
    Returns:
        the data set, in memory.
    Raises:
        ValueError: no such name or folder, or image_size for a named data set.
        DataError: (a ValueError) files missing, broken or not to be had.
    """
    readers = _readers()
    if not (isinstance(name_or_path, str) and name_or_path in readers):
        return folder.load(_existing(name_or_path), image_size=image_size)
    if image_size is not None:
        raise ValueError(
            f"image_size is for folders of images; {name_or_path} has its own, got {image_size}."
        )
    place = (default_root() if root is None else Path(root).expanduser()) / name_or_path
    return readers[name_or_path](Store(place, download, progress))


def _readers() -> dict[str, Callable[[Store], Dataset]]:
    return {
        "digits": lambda store: digits.load(),
        "mnist": lambda store: mnist.load(mnist.MNIST, store),
        "fashion-mnist": lambda store: mnist.load(mnist.FASHION_MNIST, store),
        "cifar10": lambda store: cifar.load(cifar.CIFAR10, store),
        "cifar100": lambda store: cifar.load(cifar.CIFAR100, store),
        "tiny-imagenet": tiny_imagenet.load,
    }


def _existing(name_or_path: str | Path) -> Path:
    text = os.fspath(name_or_path)
    path = Path(text).expanduser()
    if text and path.is_dir():
        return path
    if text and path.exists():
        raise DataError(f"{path} is a file; give a folder of images by class, or a data set name.")
    if isinstance(name_or_path, Path) or os.sep in text:
        raise DataError(f"There is no folder {path}.")
    near = difflib.get_close_matches(text.lower(), names(), n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise ValueError(
        f"There is no data set {text!r}. {hint}Known: {', '.join(names())}; "
        "or the path of a folder of images by class."
    )
