"""Image data sets of the Hugging Face library, the real one, made here and read without network."""

from __future__ import annotations

import sys

import pytest
import torch

from sparsetrain import data
from sparsetrain.data import DataError, Reading, StreamLoader
from tests.jpegs import pictures, write_folder

HERE = Reading(workers=0)


def test_without_the_library_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the datasets library: pip install 'sparsetrain"):
        data.load("hf:anything")


def table(classes=3, each=4, *, seed=0, names=("red", "green", "blue"), labels=None, key="label"):
    datasets = pytest.importorskip("datasets")
    rows = list(pictures(classes, each, seed=seed))
    kinds = {"img": datasets.Image(), key: datasets.ClassLabel(names=list(names))}
    columns = {
        "img": [image for _, _, image in rows],
        key: labels or [label for label, _, _ in rows],
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def saved(folder, **parts):
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    return f"hf:{folder}"


def images(dataset, *, training, workers=0):
    loader = StreamLoader(
        dataset.train if training else dataset.test,
        side=8,
        batch_size=4,
        mean=dataset.mean,
        std=dataset.std,
        shuffle=False,
        seed=0,
        device="cpu",
        reading=Reading(workers=workers),
    )
    return torch.cat([batch for batch, _ in loader.batches(0)])


def test_a_saved_set_is_read_like_a_folder_of_the_same_files(tmp_path):
    name = saved(tmp_path / "a", train=table(), test=table(each=2, seed=1))
    dataset = data.load(name, image_size=8, reading=HERE)

    assert dataset.classes == ("red", "green", "blue")
    assert dataset.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.train.name(3) == f"row 3 of {name}, train"
    assert images(dataset, training=True).shape == (12, 3, 8, 8)
    assert torch.equal(images(dataset, training=False), images(dataset, training=False, workers=1))


def test_a_folder_of_images_is_read_by_the_library_too(tmp_path):
    pytest.importorskip("datasets")
    write_folder(tmp_path / "images", classes=2, train=3, val=2)
    dataset = data.load(f"hf:{tmp_path / 'images'}", root=tmp_path / "cache", image_size=8)
    folder = data.load("imagenet", root=tmp_path / "images", image_size=8, reading=HERE)

    assert (dataset.classes, len(dataset.test_labels)) == (("c0", "c1"), 4)
    assert torch.equal(images(dataset, training=False), images(folder, training=False))


def test_an_unlabelled_test_split_gives_way_to_validation(tmp_path):
    unlabelled = table(each=1, labels=[-1, -1, -1])
    name = saved(tmp_path / "a", train=table(), test=unlabelled, validation=table(each=2))
    assert len(data.load(name).test_labels) == 6


def test_without_a_second_split_a_fifth_of_each_class_is_held_out(tmp_path):
    dataset = data.load(saved(tmp_path / "a", train=table(each=5)), image_size=8)

    assert dataset.test_labels.tolist() == [0, 1, 2]
    assert dataset.train_labels.bincount().tolist() == [4, 4, 4]
    together = torch.cat([images(dataset, training=part) for part in (True, False)])
    assert len(torch.unique(together, dim=0)) == 15


def test_a_set_that_cannot_be_used_is_answered_in_one_sentence(tmp_path):
    datasets = pytest.importorskip("datasets")
    with pytest.raises(DataError, match="no split named train, but test"):
        data.load(saved(tmp_path / "a", test=table()))
    plain = datasets.Dataset.from_dict({"text": ["a"], "label": [0]})
    with pytest.raises(DataError, match="needs a column of images and one of class labels"):
        data.load(saved(tmp_path / "b", train=plain))
    with pytest.raises(DataError, match="labels outside its classes, from -1 to 2"):
        labels = [0, 1, -1] * 4
        data.load(saved(tmp_path / "c", train=table(labels=labels), test=table(each=1)))
    with pytest.raises(DataError, match=r"^hf:.*nowhere cannot be read \(") as error:
        data.load(f"hf:{tmp_path / 'nowhere'}", download=False)
    assert "\n" not in str(error.value)
