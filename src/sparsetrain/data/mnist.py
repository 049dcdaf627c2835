"""MNIST and Fashion-MNIST: one reader of the IDX format."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .archives import broken, reading
from .augment import Augment
from .dataset import Dataset
from .download import Remote
from .store import Store

_MAX_BYTES = 60_000 * 28 * 28  # the largest of the files
_MAX_DIMENSIONS = 8
_UINT8 = 0x08  # type code of the IDX format


@dataclass(frozen=True)
class Idx:
    """A data set of four IDX files.

    Attributes:
        name: its name.
        base: address of the folder that holds the files.
        md5: published checksum of training images, training labels, test images, test labels.
        classes: names, in label order.
        mean: of the training pixels, scaled to 0..1.
        std: likewise.
        augment: usual augmentation.
        system: a folder where the operating system may have installed the files.
    """

    name: str
    base: str
    md5: tuple[str, str, str, str]
    classes: tuple[str, ...]
    mean: float
    std: float
    augment: Augment
    system: Path | None = None


MNIST = Idx(
    name="mnist",
    # Y. LeCun's page no longer serves the files; this is the mirror that torchvision uses, and the
    # checksums are torchvision's.
    base="https://ossci-datasets.s3.amazonaws.com/mnist/",
    md5=(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    classes=tuple("0123456789"),
    mean=0.1307,
    std=0.3081,
    augment=Augment(crop_padding=2),
)

FASHION_MNIST = Idx(
    name="fashion-mnist",
    # Address and checksums: README of github.com/zalandoresearch/fashion-mnist.
    base="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    md5=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    mean=0.2860,
    std=0.3530,
    augment=Augment(crop_padding=2, flip=True),
    system=Path("/usr/share/datasets/fashion-mnist"),  # Debian package dataset-fashion-mnist
)

_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def load(kind: Idx, store: Store) -> Dataset:
    """Read one of the sets; each file may be gzipped or plain.

    Args:
        kind: which.
        store: its folder.
    Returns:
        the data set, images [N, 1, 28, 28].
    Raises:
        DataError: a file is missing, truncated or not what it should be.
    """
    paths = [
        store.file(Remote(kind.base + name, md5), also=_also(name, kind, store))
        for name, md5 in zip(_FILES, kind.md5, strict=True)
    ]
    train_images, train_labels = _pair(paths[0], paths[1], len(kind.classes))
    test_images, test_labels = _pair(paths[2], paths[3], len(kind.classes))
    return Dataset(
        name=kind.name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=kind.classes,
        mean=(kind.mean,),
        std=(kind.std,),
        augment=kind.augment,
    )


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or plain.

    The format: two zero bytes, a type code, the number of dimensions, each size as a big-endian
    32-bit integer, then the data in C order.

    Args:
        path: the file; one whose name ends in .gz is unpacked.
    Returns:
        uint8 array of the shape the file states.
    Raises:
        DataError: wrong magic number, fewer or more bytes than stated, more than MNIST has, broken
            compression.
    """
    with reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:3] != bytes([0, 0, _UINT8]):
            raise broken(path, f"it starts with {magic.hex(' ')}, not with 00 00 08")
        if not 1 <= magic[3] <= _MAX_DIMENSIONS:
            raise broken(path, f"it states {magic[3]} dimensions")
        header = file.read(4 * magic[3])
        if len(header) < 4 * magic[3]:
            raise broken(path, "its header is cut off")
        shape = tuple(int(size) for size in np.frombuffer(header, dtype=">u4"))
        size = math.prod(shape)
        if size > _MAX_BYTES or max(shape) > _MAX_BYTES:
            raise broken(path, f"it states a shape of {shape}, more than {_MAX_BYTES} bytes")
        data = file.read(size + 1)
    if len(data) != size:
        raise broken(path, f"shape {shape} needs {size} bytes and it holds {_amount(data, size)}")
    return np.frombuffer(bytearray(data), dtype=np.uint8).reshape(shape)


def _amount(data: bytes, size: int) -> str:
    return "more" if len(data) > size else str(len(data))


def _also(name: str, kind: Idx, store: Store) -> list[Path]:
    """The plain file beside the gzipped one, and the operating system's copy of either."""
    plain = name.removesuffix(".gz")
    folders = [store.folder] + ([kind.system] if kind.system is not None else [])
    return [folder / file for folder in folders for file in (name, plain)]


def _pair(images_path: Path, labels_path: Path, classes: int) -> tuple[Tensor, Tensor]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or 0 in images.shape:
        raise broken(images_path, f"its shape is {images.shape}, not images x rows x columns")
    if labels.shape != images.shape[:1]:
        raise broken(labels_path, f"{labels.shape} labels for {len(images)} images")
    if labels.max() >= classes:
        raise broken(labels_path, f"label {labels.max()} of {classes} classes")
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()
