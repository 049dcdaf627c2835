"""CIFAR's binary archives, and what a hostile or broken tar may hold."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

import sparsetrain.data as data
from sparsetrain.data import DataError
from sparsetrain.data.archives import read_tar
from tests.archives import cifar10_members, cifar100_members, cifar_records, write_tar


def _cifar10(root: Path, members: dict[str, bytes]) -> Path:
    path = root / "cifar10" / "cifar-10-binary.tar.gz"
    write_tar(path, members)
    return path


def test_cifar10_records_are_label_then_planes(tmp_path: Path) -> None:
    _cifar10(tmp_path, cifar10_members())

    loaded = data.load("cifar10", root=tmp_path, download=False)

    records = np.concatenate([cifar_records(4, 10, label_bytes=1, seed=s) for s in range(5)])
    assert np.array_equal(loaded.train_images.numpy(), records[:, 1:].reshape(-1, 3, 32, 32))
    assert np.array_equal(loaded.train_labels.numpy(), records[:, 0])
    test = cifar_records(4, 10, label_bytes=1, seed=5)
    assert np.array_equal(loaded.test_images.numpy(), test[:, 1:].reshape(-1, 3, 32, 32))
    assert loaded.classes[0] == "airplane"
    assert loaded.train_images.is_contiguous(memory_format=torch.channels_last)


def test_cifar100_takes_the_fine_label(tmp_path: Path) -> None:
    write_tar(tmp_path / "cifar100" / "cifar-100-binary.tar.gz", cifar100_members())

    loaded = data.load("cifar100", root=tmp_path, download=False)

    records = cifar_records(4, 100, label_bytes=2, seed=0)
    assert np.array_equal(loaded.train_labels.numpy(), records[:, 1])
    assert np.array_equal(loaded.train_images.numpy(), records[:, 2:].reshape(-1, 3, 32, 32))
    assert loaded.num_classes == 100


@pytest.mark.parametrize(
    ("member", "content", "why"),
    [
        ("test_batch.bin", b"\0" * (3073 * 2 - 1), "6145 bytes, not whole records of 3073"),
        ("data_batch_3.bin", b"", "0 bytes"),
        ("data_batch_1.bin", b"\x0a" * 3073, "label 10 of 10 classes"),
        ("batches.meta.txt", b"cat\ndog\n", "names 2 classes, not 10"),
    ],
)
def test_broken_member_is_refused_by_name(
    tmp_path: Path, member: str, content: bytes, why: str
) -> None:
    _cifar10(tmp_path, {**cifar10_members(), f"cifar-10-batches-bin/{member}": content})

    with pytest.raises(DataError, match=f"{member} .*{why}"):
        data.load("cifar10", root=tmp_path, download=False)


def test_missing_batch_is_refused_not_skipped(tmp_path: Path) -> None:
    members = cifar10_members()
    del members["cifar-10-batches-bin/data_batch_4.bin"]
    _cifar10(tmp_path, members)

    with pytest.raises(DataError, match=r"it lacks .*data_batch_4\.bin"):
        data.load("cifar10", root=tmp_path, download=False)


def test_wrong_archive_is_refused(tmp_path: Path) -> None:
    _cifar10(tmp_path, {"cifar-10-batches-py/data_batch_1": b"a pickle"})

    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is truncated, damaged or not"):
        data.load("cifar10", root=tmp_path, download=False)


@pytest.mark.parametrize("keep", [0, 5, 0.5, -4])
def test_truncated_archive_is_refused(tmp_path: Path, keep: float) -> None:
    path = _cifar10(tmp_path, cifar10_members())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep == 0.5 else int(keep)])

    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is truncated"):
        data.load("cifar10", root=tmp_path, download=False)


def test_damaged_pixels_are_noticed(tmp_path: Path) -> None:
    path = _cifar10(tmp_path, cifar10_members())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)

    with pytest.raises(DataError):
        data.load("cifar10", root=tmp_path, download=False)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:/evil"])
def test_member_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.tar.gz"
    write_tar(path, {name: b"x", "wanted": b"y"})

    with pytest.raises(DataError, match=r"not safe to read.*leads out"):
        read_tar(path, {"wanted": 100})
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "file.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("wanted")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)

    with pytest.raises(DataError, match=r"not safe to read.*link or a device"):
        read_tar(path, {"wanted": 100})


def test_size_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.tar.gz"
    info = tarfile.TarInfo("wanted")
    info.size = (1 << 30) + 1
    path.write_bytes(gzip.compress(info.tobuf() + bytes(1024)))

    with pytest.raises(DataError, match="more than 256 MiB"):
        read_tar(path, {"wanted": 100})


def test_leading_dot_in_member_names_is_accepted(tmp_path: Path) -> None:
    write_tar(tmp_path / "file.tar.gz", {"./wanted": b"content", "./other": b""})

    assert read_tar(tmp_path / "file.tar.gz", {"wanted": 100}) == {"wanted": b"content"}
