"""Folders of images by class, and the choice of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sparsetrain.data as data
from sparsetrain.data import DataError
from tests.archives import picture, write_folder


def _png(color: tuple[int, int, int] | int, size: int = 16) -> bytes:
    return picture(color, size, "PNG")


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    for held_out in ("test", "val"):
        files = {
            "train/cat/1.png": _png((9, 8, 7)),
            "train/dog/deep/2.PNG": _png((1, 2, 3)),
            f"{held_out}/dog/3.png": _png((4, 5, 6)),
            "train/dog/notes.txt": b"no image",
            "train/.hidden/x.png": b"",
        }
        loaded = data.load(write_folder(tmp_path / held_out, files))

        assert loaded.classes == ("cat", "dog")
        assert loaded.train_labels.tolist() == [0, 1]
        assert loaded.test_labels.tolist() == [1]
        assert loaded.train_images[0, :, 0, 0].tolist() == [9, 8, 7]
        assert (loaded.in_channels, loaded.image_size) == (3, (16, 16))
        assert loaded.name == held_out


def test_a_part_that_is_not_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = ("train", "val", "test")
    files = {
        f"{part}/{kind}/1.tiff": picture(n, 16, "TIFF")
        for part in parts
        for n, kind in enumerate("ab")
    }
    loaded = data.load(write_folder(tmp_path, files))
    assert len(loaded.test_labels) == 2
    (said,) = caplog.messages
    assert f"{tmp_path / 'val'} is not read: {tmp_path / 'test'} is tested on" in said


@pytest.mark.parametrize("top", ["", "train/"])
def test_classes_without_a_test_part_are_split_for_good(tmp_path: Path, top: str) -> None:
    files = {f"{top}{kind}/{n}.png": _png(n) for kind in ("a", "b") for n in range(10)}
    path = str(write_folder(tmp_path, files))

    first, second = data.load(path), data.load(path)

    assert torch.equal(first.test_images, second.test_images)
    assert first.test_labels.tolist() == [0, 0, 1, 1]
    values = [*first.train_images[:, 0, 0, 0].tolist(), *first.test_images[:, 0, 0, 0].tolist()]
    assert sorted(values) == sorted([*range(10), *range(10)])


def test_images_take_the_first_ones_size_or_the_one_given(tmp_path: Path) -> None:
    files = {"train/a/1.png": _png(10, 12), "train/b/2.png": _png(20, 40), "test/a/3.png": _png(5)}
    path = write_folder(tmp_path, files)

    assert data.load(path).train_images.shape == (2, 1, 12, 12)
    assert data.load(path, image_size=8).test_images.shape == (1, 1, 8, 8)
    assert data.load(path, image_size=(8, 10)).image_size == (8, 10)
    assert (data.load(path, image_size=8).train_images[1] == 20).all()


def test_one_colour_image_makes_the_set_colour(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {"train/a/1.png": _png(7), "train/b/1.png": _png((1, 2, 3))})
    write_folder(path, {"test/a/1.png": _png(3)})

    loaded = data.load(path)

    assert loaded.train_images[0, :, 0, 0].tolist() == [7, 7, 7]


def test_mean_and_deviation_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    files = {"train/a/1.png": _png((0, 51, 9)), "train/b/2.png": _png((255, 51, 18))}
    path = write_folder(tmp_path, {**files, "test/a/3.png": _png((200, 200, 200))})

    loaded = data.load(path)

    assert np.allclose(loaded.mean, (0.5, 0.2, 13.5 / 255), atol=1e-12)
    # A channel of one value gets 1/255 instead of 0, by which nothing could be divided.
    assert np.allclose(loaded.std, (0.5, 1 / 255, 4.5 / 255), atol=1e-12)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a/1.png": _png(1)}, r"two or more classes, got 1 \(a\)"),
        ({"1.png": _png(1)}, r"two or more classes, got 0 \(none\)"),
        ({"a/1.png": _png(1), "b/x.txt": b""}, "b holds no image"),
        ({"a/1.png": _png(1), "b/2.png": b"no image"}, r"b/2\.png cannot be read as an image"),
        ({"a/1.png": _png(1), "b/2.png": _png(1)[:-30]}, r"b/2\.png cannot be read as an image"),
        (
            {"train/a/1.png": _png(1), "train/b/1.png": _png(1), "val/images/1.png": _png(1)},
            "got images. For the stock Tiny-ImageNet",
        ),
    ],
)
def test_bad_folder_gets_one_sentence(tmp_path: Path, files: dict[str, bytes], why: str) -> None:
    write_folder(tmp_path, files)

    with pytest.raises(DataError, match=why):
        data.load(tmp_path)


def test_sixteen_bit_images_are_refused_not_clipped(tmp_path: Path) -> None:
    from PIL import Image

    write_folder(tmp_path, {"a/1.png": _png(1), "b/1.png": _png(1)})
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "b" / "2.png")

    with pytest.raises(DataError, match="more than 8 bits"):
        data.load(tmp_path)


def test_too_much_for_memory_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {"a/1.png": _png(1), "b/1.png": _png(1)})

    with pytest.raises(DataError, match="Take a smaller image_size"):
        data.load(tmp_path, image_size=200_000)
    with pytest.raises(ValueError, match="image_size must be 1 pixel or more, got 0"):
        data.load(tmp_path, image_size=0)


def test_digits_are_embedded_and_split_alike_in_each_class() -> None:
    first, second = data.load("digits"), data.load("digits", download=False)

    assert first.train_images.shape == (1437, 1, 8, 8)
    assert first.test_images.shape == (360, 1, 8, 8)
    assert torch.equal(first.test_images, second.test_images)
    counts = first.train_labels.bincount() + first.test_labels.bincount()
    assert ((first.test_labels.bincount() - counts * 360 / 1797).abs() < 1).all()
    assert first.train_images.max() == 255
    assert np.allclose(first.mean, first.train_images.double().mean() / 255)
    assert np.allclose(first.std, first.train_images.double().std(correction=0) / 255)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("cifr10", "Did you mean cifar10"),
        ("MNIST", "Did you mean mnist"),
        ("", "no data set"),
        ("zzz", "Known: digits, mnist"),
        ("/no/such/folder", "no folder /no/such/folder"),
    ],
)
def test_unknown_name_suggests_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=why):
        data.load(name)


def test_file_instead_of_folder_and_size_of_named_sets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file"):
        data.load(tmp_path / "file")
    with pytest.raises(ValueError, match="image_size is for folders"):
        data.load("digits", image_size=8)


def test_every_name_is_described_in_order() -> None:
    assert tuple(entry.name for entry in data.describe()) == data.names()
    assert data.names()[0] == "digits"


def test_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSETRAIN_DATA", str(tmp_path / "here"))

    with pytest.raises(DataError, match=str(tmp_path / "here" / "mnist")):
        data.load("mnist", download=False)
