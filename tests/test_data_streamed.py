"""Images from the disk: what is cut out and decoded, and batches that are the same every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from sparsetrain import data
from sparsetrain.data import DataError, Reading, StreamLoader
from sparsetrain.data.streamed.decode import Box, central_box, decode_cut, random_box
from tests.jpegs import picture, write_folder

HERE = Reading(workers=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images"))


def stream(folder, **settings):
    dataset = data.load("imagenet", root=folder, image_size=16, reading=HERE)
    return StreamLoader(
        dataset.train,
        **{
            "side": 16,
            "batch_size": 5,
            "mean": dataset.mean,
            "std": dataset.std,
            "augment": True,
            "shuffle": True,
            "seed": 3,
            "device": "cpu",
            "reading": HERE,
            **settings,
        },
    )


def whole(loader, epoch=0, start=0):
    batches = list(loader.batches(epoch, start))
    return torch.cat([images for images, _ in batches]), torch.cat([label for _, label in batches])


def test_a_folder_is_listed_by_class_and_nothing_is_opened(folder, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    dataset = data.load("imagenet", root=folder)

    assert (dataset.classes, dataset.image_size) == (("c0", "c1", "c2"), (224, 224))
    assert dataset.train_labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert dataset.test_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.train.read(9) == folder / "train" / "c1" / "train_0001.JPEG"
    assert dataset.test.name(11) == str(folder / "val" / "c2" / "val_0003.JPEG")


@given(
    width=some.integers(1, 700),
    height=some.integers(1, 700),
    seed=some.integers(0, 1000),
)
def test_a_random_part_lies_within_the_image_in_shape_and_area(width, height, seed):
    box = random_box(width, height, np.random.default_rng(seed))

    assert box.left >= 0 and box.left + box.width <= width and box.width >= 1
    assert box.top >= 0 and box.top + box.height <= height and box.height >= 1
    if min(width, height) >= 100 and max(width, height) <= 2 * min(width, height):
        assert 0.074 < box.width * box.height / (width * height) <= 1
        assert 0.73 < box.width / box.height < 1.37


def test_random_parts_are_spread_as_published():
    # Closed form: with a share of the area uniform in [0.08, 1], rejected where it does not fit,
    # shares below 0.5 always fit a square image (0.5 * 4/3 < 1), so are uniform among themselves.
    boxes = [random_box(1000, 1000, np.random.default_rng(seed)) for seed in range(3000)]
    shares = np.array([box.width * box.height / 1e6 for box in boxes])
    small = shares[shares < 0.5]
    logs = np.log([box.width / box.height for box in boxes if box.width * box.height < 5e5])

    assert abs(small.mean() - 0.29) < 4 * 0.42 / np.sqrt(12 * len(small))
    assert abs(logs.mean()) < 4 * 2 * np.log(4 / 3) / np.sqrt(12 * len(logs))


def test_the_central_part_is_224_of_256():
    assert central_box(512, 256) == Box((512 - 224) / 2, 16, 224, 224)


def test_a_cut_is_the_images_own_pixels_where_nothing_is_resized(tmp_path):
    image = picture(1, 3, size=(60, 50), seed=0)
    image.save(tmp_path / "a.png")

    pixels = decode_cut(tmp_path / "a.png", "a", lambda w, h: Box(7, 9, 32, 32), side=32)

    assert np.array_equal(pixels, np.asarray(image)[9:41, 7:39])


def test_reduced_decoding_gives_nearly_the_image_from_far_fewer_pixels(tmp_path, monkeypatch):
    y, x = np.mgrid[0:600, 0:800]
    smooth = np.stack([x * 255 / 800, y * 255 / 600, 127 + 120 * np.sin(x / 60)], axis=2)
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    decoded = []
    convert = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda self, mode: decoded.append(self.size) or convert(self, mode)
    )

    def cut(reduced):
        return decode_cut(
            tmp_path / "a.jpg", "a", lambda w, h: Box(100, 50, 500, 440), side=64, reduced=reduced
        ).astype(int)

    assert abs(cut(True) - cut(False)).max() <= 6
    assert decoded == [(200, 150), (800, 600)]  # 440 / 4 = 110 >= 64 > 440 / 8


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_every_kind_of_8_bit_image_becomes_colour(mode, tmp_path):
    name = tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png")
    picture(0, 3, size=(40, 40), seed=0).convert(mode).save(name)

    assert decode_cut(name, "a", central_box, side=8).shape == (8, 8, 3)


def test_workers_change_nothing(folder):
    alone, labels = whole(stream(folder))
    for workers in (1, 2):
        images, others = whole(stream(folder, reading=Reading(workers=workers)))
        assert torch.equal(images, alone) and torch.equal(others, labels)
    assert sorted(labels.tolist()) == [0] * 8 + [1] * 8 + [2] * 8


def test_epochs_and_seeds_differ_and_repeat(folder):
    first = whole(stream(folder))[0]

    assert torch.equal(first, whole(stream(folder))[0])
    assert not torch.equal(first, whole(stream(folder), epoch=1)[0])
    assert not torch.equal(first, whole(stream(folder, seed=4))[0])


def test_an_epoch_entered_in_the_middle_goes_on_alike(folder):
    loader = stream(folder)
    images, labels = whole(loader, epoch=2)
    rest, others = whole(loader, epoch=2, start=3)

    assert torch.equal(rest, images[15:]) and torch.equal(others, labels[15:])


def test_ranks_together_see_what_one_process_sees(folder):
    together = list(stream(folder, batch_size=6).batches(1))
    parts = [stream(folder, batch_size=3, rank=r, world_size=2).batches(1) for r in (0, 1)]

    for (images, labels), *shares in zip(together, *parts, strict=True):
        for rank, (own, numbers) in enumerate(shares):
            assert torch.equal(own, images[rank::2]) and torch.equal(numbers, labels[rank::2])
    one = stream(folder, batch_size=3, rank=1, world_size=2).for_one()
    assert torch.equal(whole(one, epoch=1)[0], torch.cat([images for images, _ in together]))


def test_a_flip_mirrors_half_of_the_images_and_only_where_asked(folder):
    flipped, straight = whole(stream(folder))[0], whole(stream(folder, flip=False))[0]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, straight, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(flipped, straight, strict=True)]

    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 4 <= sum(mirrored) <= 20


def test_evaluation_takes_the_central_part_normalised_as_imagenet_is(folder):
    dataset = data.load("imagenet", root=folder, image_size=16, reading=HERE)
    images, labels = whole(stream(folder, augment=False, shuffle=False), epoch=7)
    raw = decode_cut(dataset.train.read(5), "a", central_box, side=16)
    expected = (raw / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])

    torch.testing.assert_close(images[5].permute(1, 2, 0).double(), torch.from_numpy(expected))
    assert torch.equal(labels, dataset.train_labels)


def test_a_part_of_the_images_is_a_part_of_the_batches(folder):
    index = torch.tensor([1, 8, 17, 23])
    images, labels = whole(stream(folder, index=index, shuffle=False, augment=False))
    every = whole(stream(folder, shuffle=False, augment=False))[0]

    assert torch.equal(images, every[index]) and labels.tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named_in_one_sentence(tmp_path, workers):
    root = write_folder(tmp_path, classes=2, train=3, val=1)
    bad = root / "train" / "c1" / "train_0002.JPEG"
    bad.write_bytes(bad.read_bytes()[:400])

    with pytest.raises(DataError, match="cannot be read as an image") as error:
        whole(stream(root, reading=Reading(workers=workers)))
    assert str(error.value).startswith(str(bad)) and "\n" not in str(error.value)
    assert str(error.value).endswith("Replace or remove it.")


def test_drawing_batches_leaves_torchs_own_generator_alone(folder):
    before = torch.get_rng_state()
    whole(stream(folder, reading=Reading(workers=1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_no_such_folder_is_answered_in_one_sentence(folder, tmp_path):
    with pytest.raises(DataError, match="give --data-dir FOLDER where train/CLASS"):
        data.load("imagenet", root=tmp_path)
    write_folder(tmp_path / "a", classes=2, train=1, val=1)
    (tmp_path / "a" / "val" / "c1").rename(tmp_path / "a" / "val" / "other")
    with pytest.raises(DataError, match=r"holds the class 'other' that .*train lacks"):
        data.load("imagenet", root=tmp_path / "a")
    (tmp_path / "b" / "train").mkdir(parents=True)
    (tmp_path / "b" / "val").mkdir()
    with pytest.raises(DataError, match="sort its images into folders first"):
        data.load("imagenet", root=tmp_path / "b")
    with pytest.raises(ValueError, match="image_size must be one number of pixels"):
        data.load("imagenet", root=folder, image_size=(8, 9))
    with pytest.raises(ValueError, match="workers must be 0 or more"):
        Reading(workers=-1)
    with pytest.raises(ValueError, match="prefetch must be 1 or more"):
        Reading(prefetch=0)


def test_workers_by_themselves_are_the_cores_of_this_processs_share(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.streamed.dataset._cores", lambda: 12)
    assert Reading().worker_count() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert Reading().worker_count() == 3
    assert Reading(workers=0).worker_count() == 0
