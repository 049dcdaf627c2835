"""ImageNet, or any folder laid out like it: train/CLASS/*.JPEG and val/CLASS/*.JPEG."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..dataset import DataError
from ..images import SUFFIXES
from .dataset import Reading, Streamed

_PARTS = ("train", "val")


class Files:
    """Images as files under one folder.

    The names lie in one block of bytes: a list of 1.3 million strings would be copied into every
    worker process, as each look at one writes its reference count.

    Args:
        root: the folder.
        names: of the files, relative to it.
        labels: of each.
    """

    def __init__(self, root: Path, names: Sequence[str], labels: Sequence[int]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._root = root
        self._ends = np.cumsum([0, *map(len, encoded)])
        self._letters = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._labels = torch.tensor(labels, dtype=torch.int64)

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        return self._labels

    def name(self, place: int) -> str:
        """The file's path."""
        return str(self.read(place))

    def read(self, place: int) -> Path:
        """The file's path."""
        letters = self._letters[self._ends[place] : self._ends[place + 1]]
        return self._root / os.fsdecode(letters.tobytes())


def load(folder: Path, *, side: int = 224, reading: Reading | None = None) -> Streamed:
    """List a folder's images by class; none is opened.

    Args:
        folder: holds train/ and val/ (the training set and what is tested on), or imagenet/ with
            them in it. A class is a folder; labels follow the sorted names of train/.
        side: pixels of a side of what the network sees.
        reading: how images are read; None is the default.
    Returns:
        the data set.
    Raises:
        DataError: a part or its class folders are missing, or a class of val/ is not in train/.
    """
    root = _root(folder.expanduser())
    classes = _classes(root / "train")
    labels = {name: place for place, name in enumerate(classes)}
    present = _classes(root / "val")
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise DataError(
            f"{root / 'val'} holds the class {unknown[0]!r} that {root / 'train'} lacks; both must "
            "hold folders of the same names."
        )
    train = _listed(root / "train", classes, labels)
    test = _listed(root / "val", present, labels)
    return Streamed("imagenet", train, test, tuple(classes), side, reading or Reading())


def _root(folder: Path) -> Path:
    for root in (folder, folder / "imagenet"):
        if all((root / part).is_dir() for part in _PARTS):
            return root
    raise DataError(
        f"{folder} does not hold train/ and val/; give --data-dir FOLDER where train/CLASS/*.JPEG "
        "and val/CLASS/*.JPEG lie (ImageNet itself is to be had from image-net.org alone)."
    )


def _classes(part: Path) -> list[str]:
    with os.scandir(part) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if len(names) < 2:
        raise DataError(
            f"{part} must hold a folder for each of two or more classes, got {len(names)}; the "
            "stock archive of val/ has none: sort its images into folders first."
        )
    return names


def _listed(part: Path, classes: Sequence[str], labels: dict[str, int]) -> Files:
    names: list[str] = []
    numbers: list[int] = []
    for name in classes:
        found = sorted(_images(part / name, name))
        if not found:
            raise DataError(f"{part / name} holds no image; add some or remove the folder.")
        names += found
        numbers += [labels[name]] * len(found)
    return Files(part, names, numbers)


def _images(folder: Path, prefix: str) -> Iterator[str]:
    """Names of the image files in a folder and those below it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = f"{prefix}/{entry.name}"
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122 - 10x faster
                yield name
            elif entry.is_dir():
                yield from _images(folder / entry.name, name)
