"""The data sets by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from . import cifar, digits, folder, mnist, tiny_imagenet
from .dataset import DataError, Dataset
from .download import Progress
from .store import Store, default_root
from .streamed import files, huggingface
from .streamed.dataset import Reading, Streamed

AnyDataset: TypeAlias = Dataset | Streamed
"""In memory, or read from the disk while it is used."""


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
        streamed: its images stay on the disk and are decoded as they are needed.
    """

    name: str
    classes: int
    image: tuple[int, int, int]
    train: int
    test: int
    source: str
    streamed: bool = False


_ENTRIES = (
    Entry("digits", 10, (1, 8, 8), 1_437, 360, "embedded in scikit-learn"),
    Entry("mnist", 10, (1, 28, 28), 60_000, 10_000, mnist.MNIST.base),
    Entry("fashion-mnist", 10, (1, 28, 28), 60_000, 10_000, mnist.FASHION_MNIST.base),
    Entry("cifar10", 10, (3, 32, 32), 50_000, 10_000, cifar.CIFAR10.archive.url),
    Entry("cifar100", 100, (3, 32, 32), 50_000, 10_000, cifar.CIFAR100.archive.url),
    Entry("tiny-imagenet", 200, (3, 64, 64), 100_000, 10_000, tiny_imagenet.ARCHIVE.url),
    Entry(
        "imagenet",
        1000,
        (3, 224, 224),
        1_281_167,
        50_000,
        "a folder of yours: --data-dir",
        streamed=True,
    ),
)
_SIDE = 224  # of streamed images, where nothing else is said


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
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> AnyDataset:
    """Load a data set by name, or a folder of images by class.

    Args:
        name_or_path: one of `names()`; hf:NAME, see `streamed.huggingface.load`; or the path of a
            folder, see `folder.load`. A name wins over a folder of that name; "./name" and
            Path("name") are always folders.
        root: files of data set NAME lie in root/NAME, those of imagenet in root itself; None:
            environment variable SPARSETRAIN_DATA, else ~/.cache/sparsetrain.
        download: whether missing files are fetched.
        image_size: (height, width) or one number for both, for a folder, where None takes the first
            image's; one number for imagenet and hf:NAME, where None is 224.
        reading: how imagenet and hf:NAME are decoded; None is the default.
        progress: called with (file name, bytes so far, bytes in all or None) during a download.
    Returns:
        the data set, in memory; imagenet and hf:NAME stay on the disk.
    Raises:
        ValueError: no such name or folder, or image_size for a named data set.
        DataError: (a ValueError) files missing, broken or not to be had.
    """
    readers = _readers()
    if isinstance(name_or_path, str):
        if name_or_path.startswith(huggingface.PREFIX):
            name, side = name_or_path.removeprefix(huggingface.PREFIX), _side(image_size)
            return huggingface.load(name, side=side, root=root, download=download, reading=reading)
        if name_or_path == "imagenet":
            place = default_root() if root is None else Path(root)
            return files.load(place, side=_side(image_size), reading=reading)
    if not (isinstance(name_or_path, str) and name_or_path in readers):
        return folder.load(_existing(name_or_path), image_size=image_size)
    if image_size is not None:
        raise ValueError(
            f"image_size is for folders of images; {name_or_path} has its own, got {image_size}."
        )
    place = (default_root() if root is None else Path(root).expanduser()) / name_or_path
    return readers[name_or_path](Store(place, download, progress))


def _side(image_size: int | tuple[int, int] | None) -> int:
    if image_size is None:
        return _SIDE
    if not isinstance(image_size, int) or image_size < 1:
        raise ValueError(f"image_size must be one number of pixels here, got {image_size}.")
    return image_size


def _readers() -> dict[str, Callable[[Store], Dataset]]:
    """Those of the named data sets that are held in memory."""
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
        "hf:NAME for one of the Hugging Face Hub; or the path of a folder of images by class."
    )
