"""The IDX reader, and the two sets that use it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

import sparsetrain.data as data
from sparsetrain.data import DataError
from sparsetrain.data.mnist import read_idx
from tests.archives import IDX_NAMES, idx_bytes, random_pixels, write_idx


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_load_gzipped_and_plain(tmp_path: Path, name: str, packed: bool) -> None:
    arrays = write_idx(tmp_path / name, packed=packed)

    loaded = data.load(name, root=tmp_path, download=False)

    assert np.array_equal(loaded.train_images[:, 0].numpy(), arrays[IDX_NAMES[0]])
    assert np.array_equal(loaded.train_labels.numpy(), arrays[IDX_NAMES[1]])
    assert np.array_equal(loaded.test_images[:, 0].numpy(), arrays[IDX_NAMES[2]])
    assert np.array_equal(loaded.test_labels.numpy(), arrays[IDX_NAMES[3]])
    assert loaded.train_images.dtype == torch.uint8
    assert loaded.train_labels.dtype == torch.int64
    assert (loaded.num_classes, loaded.in_channels, loaded.image_size) == (10, 1, (28, 28))


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (1, 2, 3, 4)])
def test_idx_shape_is_read_from_the_header(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = random_pixels(*shape)
    (tmp_path / "file").write_bytes(idx_bytes(array))

    assert np.array_equal(read_idx(tmp_path / "file"), array)


_GOOD = idx_bytes(random_pixels(3, 4, 4))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (_GOOD[:-1], "needs 48 bytes and it holds 47"),
        (_GOOD + b"x", "holds more"),
        (_GOOD[:9], "header is cut off"),
        (b"", "starts with"),
        (b"<html>", "not with 00 00 08"),
        (b"\0\0\x08\xff" + bytes(1020), "states 255 dimensions"),
        (b"\0\0\x0d" + _GOOD[3:], "not with 00 00 08"),
        (b"\0\0\x08\x02" + b"\xff" * 8, "more than 47040000 bytes"),
    ],
)
def test_broken_idx_is_refused_by_name(tmp_path: Path, content: bytes, why: str) -> None:
    for path, stored in (("plain", content), ("packed.gz", gzip.compress(content))):
        (tmp_path / path).write_bytes(stored)
        with pytest.raises(DataError, match=rf"{path} is truncated, damaged .*{why}"):
            read_idx(tmp_path / path)


def test_truncated_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(_GOOD)[:-12])

    with pytest.raises(DataError, match=r"cut\.gz is truncated"):
        read_idx(tmp_path / "cut.gz")


def test_flipped_bit_in_gzip_is_noticed(tmp_path: Path) -> None:
    stored = bytearray(gzip.compress(_GOOD, compresslevel=0))
    stored[40] ^= 1
    (tmp_path / "bad.gz").write_bytes(stored)

    with pytest.raises(DataError, match="CRC"):
        read_idx(tmp_path / "bad.gz")


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist", packed=False)
    labels = tmp_path / "mnist" / IDX_NAMES[1]

    labels.write_bytes(idx_bytes(np.zeros(5)))
    with pytest.raises(DataError, match=r"\(5,\) labels for 6 images"):
        data.load("mnist", root=tmp_path, download=False)
    labels.write_bytes(idx_bytes(np.full(6, 10)))
    with pytest.raises(DataError, match="label 10 of 10 classes"):
        data.load("mnist", root=tmp_path, download=False)


def test_missing_file_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        data.load("mnist", root=tmp_path, download=False)

    assert str(tmp_path / "mnist" / "train-images-idx3-ubyte.gz") in str(error.value)
    assert "https://" in str(error.value)
    assert not (tmp_path / "mnist").exists()
