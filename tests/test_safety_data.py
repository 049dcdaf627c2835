"""Data files made to harm: pickles, bombs, and images that are programs."""

from __future__ import annotations

import gzip
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from sparsetrain import data
from sparsetrain.data import DataError
from sparsetrain.data.archives import open_zip, read_tar
from sparsetrain.data.images import peek
from tests.archives import cifar10_members, write_tar
from tests.harm_tools import Evil


def test_no_source_file_opens_a_pickle():
    import sparsetrain

    for path in Path(sparsetrain.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for call in ("pickle.load", "allow_pickle=True", "weights_only=False", "yaml.load("):
            assert call not in text, path
        assert text.count("torch.load(") == text.count("weights_only=True)"), path


def test_a_pickle_in_place_of_the_data_is_refused_unopened(tmp_path, monkeypatch):
    monkeypatch.undo()
    evil = pickle.dumps(Evil(tmp_path / "evil"))
    members = cifar10_members() | {"cifar-10-batches-bin/data_batch_1.bin": evil}
    write_tar(tmp_path / "cifar10" / "cifar-10-binary.tar.gz", members)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / "mnist").mkdir(exist_ok=True)
        (tmp_path / "mnist" / f"{name}.gz").write_bytes(gzip.compress(evil))
    for name in ("cifar10", "mnist"):
        with pytest.raises(DataError):
            data.load(name, root=tmp_path, download=False)
    assert not (tmp_path / "evil").exists()


def _bomb(path, head):
    """A gzipped stream that starts with `head` and goes on with 300 MiB of zeros."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(300):
            file.write(bytes(1 << 20))


def test_a_tar_that_unpacks_to_more_than_it_declares_is_refused(tmp_path):
    path = tmp_path / "file.tar.gz"
    with tarfile.open(tmp_path / "plain", "w") as archive:
        info = tarfile.TarInfo("wanted")
        archive.addfile(info)
    _bomb(path, (tmp_path / "plain").read_bytes())
    with pytest.raises(DataError, match="unpacks to more than 256 MiB"):
        read_tar(path, {"wanted": 10})


def test_a_tar_header_that_holds_a_bomb_is_refused(tmp_path):
    path = tmp_path / "file.tar.gz"
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    _bomb(path, info.tobuf(format=tarfile.GNU_FORMAT))
    with pytest.raises(DataError, match=r"unpacks to more than 256 MiB"):
        read_tar(path, {"wanted": 10})


def test_a_member_longer_than_the_format_has_it_is_refused(tmp_path):
    path = tmp_path / "file.tar.gz"
    write_tar(path, {"wanted": bytes(11)})
    with pytest.raises(DataError, match="'wanted' has more than 10 bytes"):
        read_tar(path, {"wanted": 10})


def test_a_zip_bomb_is_refused_declared_or_not(tmp_path):
    path = tmp_path / "file.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1 << 25))
    with pytest.raises(DataError, match="'a' has more than 16 MiB"), open_zip(path):
        pass
    # The same one that declares a single byte, in both of its headers.
    content = bytearray(path.read_bytes())
    size = struct.pack("<I", 1 << 25)
    assert content.count(size) == 2
    path.write_bytes(bytes(content).replace(size, struct.pack("<I", 1)))
    with pytest.raises(DataError, match="truncated, damaged"), open_zip(path) as archive:
        assert len(archive.read("a")) <= 1


def test_an_image_of_a_format_that_runs_programs_is_not_opened(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with pytest.raises(DataError, match="cannot be read as an image"):
        peek(path)


def test_a_cache_that_does_not_hold_images_is_made_anew(tmp_path):
    from sparsetrain.data.tiny_imagenet import _fits, _Pixels

    good = {
        "train_images": torch.zeros(2, 64, 64, 3, dtype=torch.uint8),
        "train_labels": torch.tensor([0, 1]),
        "test_images": torch.zeros(1, 64, 64, 3, dtype=torch.uint8),
        "test_labels": torch.tensor([1]),
    }
    assert _fits(_Pixels(good, ("a", "b")))
    for name, bad in (
        ("train_labels", torch.tensor([0, 2])),
        ("train_labels", torch.tensor([-1, 0])),
        ("test_images", torch.zeros(1, 64, 64, 1, dtype=torch.uint8)),
        ("test_images", torch.zeros(1, 64, 64, 3)),
    ):
        assert not _fits(_Pixels(good | {name: bad}, ("a", "b")))
