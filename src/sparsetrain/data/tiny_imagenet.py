"""Tiny-ImageNet from its stock zip archive, decoded once and kept as one file of pixels."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .archives import broken, open_zip
from .augment import Augment
from .dataset import Dataset
from .download import Remote
from .images import decode
from .store import Store

_log = logging.getLogger(__name__)

# Its page, cs231n.stanford.edu, publishes no checksum; zip holds one for each member.
ARCHIVE = Remote("http://cs231n.stanford.edu/tiny-imagenet-200.zip", None)
_TOP = "tiny-imagenet-200"
_SIZE = (64, 64)
_CACHE = "tiny-imagenet-200.safetensors"
_VERSION = "1"  # of the cache's layout
_PARTS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, eq=False)
class _Pixels:
    """What the cache holds: images uint8 [N, 64, 64, 3], labels int64, class names."""

    tensors: Mapping[str, Tensor]
    classes: tuple[str, ...]


def load(store: Store) -> Dataset:
    """Read the set; the first time decodes the archive, about a minute.

    The 10,000 validation images serve as test set, as in the papers, because the archive's own test
    images have no labels. Validation labels come from `val_annotations.txt`: in the stock archive
    all validation images lie in one folder, and a reader by folders sees one class.

    Args:
        store: its folder; pixels are cached beside the archive.
    Returns:
        the data set, images [N, 3, 64, 64]; labels in the order of the sorted WordNet numbers.
    Raises:
        DataError: the archive is missing, broken, unsafe or not the stock one.
    """
    path = store.file(ARCHIVE)
    cache = store.folder / _CACHE
    stamp = {"version": _VERSION, "archive_bytes": str(path.stat().st_size)}
    pixels = _cached(cache, stamp)
    if pixels is None:
        with open_zip(path) as archive:
            pixels = _decoded(path, archive)
        _keep(cache, stamp, pixels)
    train_images, train_labels, test_images, test_labels = (pixels.tensors[key] for key in _PARTS)
    return Dataset(
        name="tiny-imagenet",
        train_images=train_images.permute(0, 3, 1, 2),
        train_labels=train_labels,
        test_images=test_images.permute(0, 3, 1, 2),
        test_labels=test_labels,
        classes=pixels.classes,
        mean=(0.48024578664982126, 0.44807218089384643, 0.3975477478649648),
        std=(0.2769864069088257, 0.26906448510256, 0.282081906210584),
        augment=Augment(crop_padding=4, flip=True),
    )


def _decoded(path: Path, archive: zipfile.ZipFile) -> _Pixels:
    members = archive.namelist()
    numbers = sorted(_text(path, archive, "wnids.txt").split())
    labels = {number: place for place, number in enumerate(numbers)}
    train = [name for name in members if name.startswith(f"{_TOP}/train/") and _is_image(name)]
    train_labels = [labels.get(name.split("/")[2], -1) for name in train]
    if len(numbers) < 2 or set(train_labels) != set(labels.values()):
        raise broken(path, "its training folders do not match wnids.txt")
    test, test_labels = _annotated(path, archive, labels)
    missing = sorted(set(test) - set(members))
    if missing or not test:
        raise broken(path, f"val_annotations.txt names {missing[:1] or 'no image'}")
    return _Pixels(
        tensors={
            "train_images": _images(path, archive, train),
            "train_labels": torch.tensor(train_labels, dtype=torch.int64),
            "test_images": _images(path, archive, test),
            "test_labels": torch.tensor(test_labels, dtype=torch.int64),
        },
        classes=_names(path, archive, numbers),
    )


def _is_image(name: str) -> bool:
    return name.endswith(".JPEG")


def _text(path: Path, archive: zipfile.ZipFile, name: str) -> str:
    try:
        return archive.read(f"{_TOP}/{name}").decode("utf-8", "replace")
    except KeyError as error:
        raise broken(path, f"it lacks {_TOP}/{name}") from error


def _annotated(
    path: Path, archive: zipfile.ZipFile, labels: Mapping[str, int]
) -> tuple[list[str], list[int]]:
    """Members and labels of the validation images; a row is name, class and four box corners."""
    names: list[str] = []
    classes: list[int] = []
    for row in _text(path, archive, "val/val_annotations.txt").splitlines():
        fields = row.split("\t")
        if len(fields) < 2 or fields[1] not in labels:
            raise broken(path, f"val_annotations.txt has the row {row!r}")
        names.append(f"{_TOP}/val/images/{fields[0]}")
        classes.append(labels[fields[1]])
    return names, classes


def _names(path: Path, archive: zipfile.ZipFile, numbers: Sequence[str]) -> tuple[str, ...]:
    """The first word of each class in words.txt, which lists all of WordNet."""
    rows = (row.split("\t") for row in _text(path, archive, "words.txt").splitlines())
    words = {row[0]: row[1].split(",")[0] for row in rows if len(row) == 2}
    return tuple(words.get(number, number) for number in numbers)


def _images(path: Path, archive: zipfile.ZipFile, names: Sequence[str]) -> Tensor:
    pixels = np.empty((len(names), *_SIZE, 3), dtype=np.uint8)
    for place, name in enumerate(names):
        with archive.open(name) as file:
            image = decode(file, f"{name} in {path}", "RGB", None)
        if image.shape != pixels.shape[1:]:
            raise broken(path, f"{name} has {image.shape[0]}x{image.shape[1]} pixels, not 64x64")
        pixels[place] = image
    return torch.from_numpy(pixels)


def _cached(cache: Path, stamp: Mapping[str, str]) -> _Pixels | None:
    """The cache's content; None where it is missing, damaged or of another archive."""
    try:
        with safe_open(cache, framework="pt") as file:
            about = file.metadata() or {}
            if any(about.get(key) != value for key, value in stamp.items()):
                return None
            tensors = {key: file.get_tensor(key) for key in _PARTS}
            pixels = _Pixels(tensors, tuple(map(str, json.loads(about["classes"]))))
    except (OSError, SafetensorError, ValueError, LookupError, TypeError):
        return None
    return pixels if _fits(pixels) else None


def _fits(pixels: _Pixels) -> bool:
    """Whether the tensors are images and their labels; the cache may be anybody's file."""
    for part in ("train", "test"):
        images, labels = pixels.tensors[f"{part}_images"], pixels.tensors[f"{part}_labels"]
        if images.dtype != torch.uint8 or images.shape != (len(labels), *_SIZE, 3):
            return False
        if labels.dtype != torch.int64 or labels.ndim != 1 or not len(labels):
            return False
        if int(labels.min()) < 0 or int(labels.max()) >= len(pixels.classes):
            return False
    return True


def _keep(cache: Path, stamp: Mapping[str, str], pixels: _Pixels) -> None:
    """Write the cache; without it the set is only slower to read, so failing is no error."""
    part = cache.with_name(f"{cache.name}.{os.getpid()}.part")
    try:
        about = {**stamp, "classes": json.dumps(pixels.classes)}
        save_file(dict(pixels.tensors), part, metadata=about)
        part.replace(cache)
    except (OSError, SafetensorError) as error:
        _log.warning("Cannot keep the decoded images in %s (%s).", cache, error)
    finally:
        part.unlink(missing_ok=True)
