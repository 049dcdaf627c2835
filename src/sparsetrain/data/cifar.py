"""CIFAR-10 and CIFAR-100 from their binary archives; no pickle is ever opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .archives import broken, read_tar
from .augment import Augment
from .dataset import Dataset
from .download import Remote
from .store import Store

_PIXELS = 3 * 32 * 32
_NAMES_BYTES = 1 << 14  # of the file of class names; the stock ones have 61 and 890


@dataclass(frozen=True)
class Cifar:
    """What differs between the two archives.

    Attributes:
        name: the data set's name.
        archive: where it comes from; both checksums are on www.cs.toronto.edu/~kriz/cifar.html.
        train: members with training records.
        test: member with test records.
        labels: member with the class names, one a line.
        label_bytes: bytes before the pixels of a record; the last of them is the class.
        classes: how many.
        images: in one member, at most.
        mean: of each channel, scaled to 0..1.
        std: likewise.
    """

    name: str
    archive: Remote
    train: tuple[str, ...]
    test: str
    labels: str
    label_bytes: int
    classes: int
    images: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CIFAR10 = Cifar(
    name="cifar10",
    archive=Remote(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    train=tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
    test="cifar-10-batches-bin/test_batch.bin",
    labels="cifar-10-batches-bin/batches.meta.txt",
    label_bytes=1,
    classes=10,
    images=10_000,
    mean=(0.4914, 0.4822, 0.4465),
    # Smaller than the true (.2470, .2435, .2616): the usual numbers, which average each image's
    # own deviation; the papers trained with them.
    std=(0.2023, 0.1994, 0.2010),
)

CIFAR100 = Cifar(
    name="cifar100",
    archive=Remote(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
    ),
    train=("cifar-100-binary/train.bin",),
    test="cifar-100-binary/test.bin",
    labels="cifar-100-binary/fine_label_names.txt",
    label_bytes=2,  # coarse, then fine
    classes=100,
    images=50_000,
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
)


def load(kind: Cifar, store: Store) -> Dataset:
    """Read one of the sets straight from its archive.

    Args:
        kind: which.
        store: its folder.
    Returns:
        the data set, images [N, 3, 32, 32], classes the fine ones.
    Raises:
        DataError: the archive is missing, broken, or holds a truncated record.
    """
    path = store.file(kind.archive)
    most = dict.fromkeys((*kind.train, kind.test), kind.images * (kind.label_bytes + _PIXELS))
    members = read_tar(path, most | {kind.labels: _NAMES_BYTES})
    names = tuple(members[kind.labels].decode("ascii", "replace").split())
    if len(names) != kind.classes:
        raise broken(path, f"{kind.labels} names {len(names)} classes, not {kind.classes}")
    train = [_records(path, member, members[member], kind) for member in kind.train]
    test_images, test_labels = _records(path, kind.test, members[kind.test], kind)
    return Dataset(
        name=kind.name,
        train_images=_channels_innermost([images for images, _ in train]),
        train_labels=torch.cat([labels for _, labels in train]),
        test_images=_channels_innermost([test_images]),
        test_labels=test_labels,
        classes=names,
        mean=kind.mean,
        std=kind.std,
        augment=Augment(crop_padding=4, flip=True),
    )


def _records(path: Path, member: str, content: bytes, kind: Cifar) -> tuple[np.ndarray, Tensor]:
    """Images uint8 [N, 3, 32, 32] and labels int64 [N] of one member."""
    length = kind.label_bytes + _PIXELS
    if not content or len(content) % length:
        raise broken(
            path, f"{member} holds {len(content)} bytes, not whole records of {length} bytes"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, length)
    labels = records[:, kind.label_bytes - 1]
    if labels.max() >= kind.classes:
        raise broken(path, f"{member} holds label {labels.max()} of {kind.classes} classes")
    images = records[:, kind.label_bytes :].reshape(-1, 3, 32, 32)
    return images, torch.from_numpy(labels.astype(np.int64))


def _channels_innermost(parts: list[np.ndarray]) -> Tensor:
    images = np.concatenate([part.transpose(0, 2, 3, 1) for part in parts])
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
