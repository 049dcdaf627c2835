"""Tiny-ImageNet's stock zip: labels of the validation images, the cache, broken archives."""

from __future__ import annotations

import logging
import stat
import zipfile
from pathlib import Path

import pytest
import torch

import sparsetrain.data as data
from sparsetrain.data import DataError
from tests.archives import picture, tiny_imagenet_members, write_zip

_TOP = "tiny-imagenet-200"


def _write(root: Path, members: dict[str, bytes] | None = None) -> Path:
    path = root / "tiny-imagenet" / "tiny-imagenet-200.zip"
    write_zip(path, tiny_imagenet_members() if members is None else members)
    return path


def _load(root: Path) -> data.Dataset:
    return data.load("tiny-imagenet", root=root, download=False)


def test_validation_labels_come_from_the_annotations(tmp_path: Path) -> None:
    _write(tmp_path)

    loaded = _load(tmp_path)

    # Sorted WordNet numbers: goldfish n01443537 (green) is 0, the cat n02124075 (red) is 1.
    assert loaded.classes == ("goldfish", "Egyptian cat")
    assert loaded.test_labels.tolist() == [0, 1]
    assert (loaded.test_images[0, 1] > 200).all()
    assert (loaded.test_images[1, 0] > 200).all()


def test_training_labels_follow_the_folders_and_grey_becomes_colour(tmp_path: Path) -> None:
    _write(tmp_path)

    loaded = _load(tmp_path)

    assert loaded.train_labels.tolist() == [1, 1, 0, 0]
    assert loaded.train_images.shape == (4, 3, 64, 64)
    assert (loaded.train_images[3] == 128).all()


def test_second_load_reads_the_cache_and_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path)
    first = _load(tmp_path)
    monkeypatch.setattr("sparsetrain.data.tiny_imagenet.decode", None)  # decoding would fail

    second = _load(tmp_path)

    assert torch.equal(first.train_images, second.train_images)
    assert torch.equal(first.test_labels, second.test_labels)
    assert first.classes == second.classes
    files = sorted(path.name for path in (tmp_path / "tiny-imagenet").iterdir())
    assert files == ["tiny-imagenet-200.safetensors", "tiny-imagenet-200.zip"]


def test_damaged_cache_is_made_again(tmp_path: Path) -> None:
    _write(tmp_path)
    _load(tmp_path)
    cache = tmp_path / "tiny-imagenet" / "tiny-imagenet-200.safetensors"
    whole = cache.stat().st_size
    cache.write_bytes(cache.read_bytes()[:-100])

    assert _load(tmp_path).test_labels.tolist() == [0, 1]
    assert cache.stat().st_size == whole


def test_cache_of_another_archive_is_not_used(tmp_path: Path) -> None:
    _write(tmp_path)
    _load(tmp_path)
    members = tiny_imagenet_members()
    members[f"{_TOP}/val/images/val_0.JPEG"] = picture((0, 90, 0))
    members[f"{_TOP}/extra.txt"] = b"makes it longer"
    _write(tmp_path, members)

    assert (_load(tmp_path).test_images[0, 1] < 100).all()


def test_cache_that_cannot_be_written_is_only_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _write(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparsetrain.data.tiny_imagenet.save_file", full)
    with caplog.at_level(logging.WARNING):
        loaded = _load(tmp_path)

    assert len(loaded.test_labels) == 2
    assert "No space left" in caplog.text
    assert len(list((tmp_path / "tiny-imagenet").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("wnids.txt", None, "lacks tiny-imagenet-200/wnids.txt"),
        ("wnids.txt", b"n01443537\n", "do not match wnids.txt"),
        ("wnids.txt", b"n01443537\nn02124075\nn3\n", "do not match wnids.txt"),
        ("val/val_annotations.txt", None, "lacks .*val_annotations.txt"),
        ("val/val_annotations.txt", b"", "names no image"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn999\t0\t0\t1\t1\n", "has the row"),
        ("val/val_annotations.txt", b"val_9.JPEG\tn01443537\t0\t0\t1\t1\n", "val_9.JPEG"),
        ("val/images/val_1.JPEG", picture((1, 2, 3), 32), "32x32 pixels, not 64x64"),
    ],
)
def test_other_archives_are_refused(
    tmp_path: Path, name: str, content: bytes | None, why: str
) -> None:
    members = tiny_imagenet_members()
    del members[f"{_TOP}/{name}"]
    if content is not None:
        members[f"{_TOP}/{name}"] = content
    _write(tmp_path, members)

    with pytest.raises(DataError, match=why):
        _load(tmp_path)


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    members = tiny_imagenet_members()
    members[f"{_TOP}/val/images/val_1.JPEG"] = members[f"{_TOP}/val/images/val_1.JPEG"][:300]
    _write(tmp_path, members)

    with pytest.raises(DataError, match=r"val_1\.JPEG in .*zip cannot be read as an image"):
        _load(tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_truncated_zip_is_refused(tmp_path: Path, keep: int) -> None:
    path = _write(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(DataError, match=r"tiny-imagenet-200\.zip is truncated"):
        _load(tmp_path)
    assert sorted(path.parent.iterdir()) == [path]


def test_unsafe_zip_members_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, {**tiny_imagenet_members(), "../evil": b""})
    with pytest.raises(DataError, match="leads out"):
        _load(tmp_path)

    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="is a link"):
        _load(tmp_path)
