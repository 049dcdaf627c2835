"""Augmentation and batches against a per-sample NumPy oracle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetrain.data import Augment, Loader
from sparsetrain.data.augment import PaddingMode, crop, flip_, pad
from sparsetrain.data.plan import Shard, draw
from tests.archives import random_pixels

_MEAN, _STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
_FULL = Augment(crop_padding=2, padding_mode="reflect", flip=True)


def _loader(
    count: int = 23,
    *,
    batch_size: int = 4,
    augment: Augment | None = _FULL,
    shuffle: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    drop_last: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """A loader whose labels number the samples."""
    return Loader(
        torch.from_numpy(random_pixels(count, 3, 6, 5)),
        torch.arange(count),
        batch_size=batch_size,
        mean=_MEAN,
        std=_STD,
        augment=augment,
        shuffle=shuffle,
        seed=seed,
        device="cpu",
        dtype=dtype,
        channels_last=channels_last,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )


def _oracle(image: np.ndarray, augment: Augment, top: int, left: int, flip: bool) -> np.ndarray:
    """One sample, [C, H, W], the plain way: pad, crop, flip, normalise in float32."""
    _, height, width = image.shape
    p = augment.crop_padding
    mode = "reflect" if augment.padding_mode == "reflect" else "constant"
    padded = np.pad(image, ((0, 0), (p, p), (p, p)), mode=mode)
    window = padded[:, top : top + height, left : left + width]
    window = window[:, :, ::-1] if flip else window
    mean = np.array(_MEAN)[:, None, None]
    std = np.array(_STD)[:, None, None]
    scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    return window.astype(np.float32) * scale + shift


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_batches_equal_the_per_sample_oracle(mode: PaddingMode, flip: bool, padding: int) -> None:
    augment = Augment(padding, mode, flip)
    plan = draw(
        23,
        augment=augment,
        shuffle=True,
        drop_last=False,
        shard=Shard(),
        seed=0,
        epoch=3,
        device=torch.device("cpu"),
    )
    flipped = set(plan.flips.tolist())
    pixels = random_pixels(23, 3, 6, 5)
    expected = [
        _oracle(pixels[sample], augment, top, left, place in flipped)
        for place, (sample, top, left) in enumerate(
            zip(plan.order.tolist(), plan.top.tolist(), plan.left.tolist(), strict=True)
        )
    ]

    images, labels = zip(*_loader(augment=augment).batches(3), strict=True)

    assert np.array_equal(torch.cat(images).numpy(), np.stack(expected))
    assert torch.equal(torch.cat(labels), plan.order)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(2, 7),
    width=st.integers(2, 7),
    channels=st.integers(1, 4),
    mode=st.sampled_from(["zero", "reflect"]),
    numbers=st.data(),
)
def test_crop_takes_exactly_the_window_asked_for(
    height: int, width: int, channels: int, mode: PaddingMode, numbers: st.DataObject
) -> None:
    padding = numbers.draw(st.integers(0, min(height, width) - 1))
    place = st.integers(0, 2 * padding)
    top, left = (numbers.draw(st.lists(place, min_size=3, max_size=3)) for _ in range(2))
    pixels = random_pixels(4, height, width, channels)
    index = [3, 0, 3]

    padded = pad(torch.from_numpy(pixels), padding, mode)
    windows = crop(
        padded, torch.tensor(index), torch.tensor(top), torch.tensor(left), padding=padding
    )

    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    oracle = np.pad(pixels, sides, mode="reflect" if mode == "reflect" else "constant")
    assert np.array_equal(padded.numpy(), oracle)
    for window, i, y, x in zip(windows.numpy(), index, top, left, strict=True):
        assert np.array_equal(window, oracle[i, y : y + height, x : x + width])


def test_flip_mirrors_columns_of_the_chosen_images_only() -> None:
    pixels = random_pixels(5, 3, 4, 2)
    images = torch.from_numpy(pixels.copy())

    flip_(images, torch.tensor([1, 4]))

    expected = pixels.copy()
    expected[[1, 4]] = pixels[[1, 4], :, ::-1]
    assert np.array_equal(images.numpy(), expected)


def test_padding_is_black_before_normalisation() -> None:
    loader = Loader(
        torch.full((1, 1, 2, 2), 255, dtype=torch.uint8),
        torch.zeros(1, dtype=torch.int64),
        batch_size=1,
        mean=(0.25,),
        std=(0.5,),
        augment=Augment(crop_padding=2),
        shuffle=True,
        seed=0,
        device="cpu",
    )
    values = torch.cat([next(loader.batches(epoch))[0].flatten() for epoch in range(30)])

    assert set(values.tolist()) == {-0.5, 1.5}  # (0 - .25) / .5 and (1 - .25) / .5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_the_float_result_rounded_once(dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    exact, _ = next(_loader(dtype=wide).batches(0))
    images, _ = next(_loader(dtype=dtype).batches(0))

    assert images.dtype == dtype
    assert torch.equal(images, exact.to(dtype))


def test_memory_format_is_the_one_asked_for() -> None:
    last, _ = next(_loader().batches(0))
    first, _ = next(_loader(channels_last=False).batches(0))

    assert last.is_contiguous(memory_format=torch.channels_last)
    assert first.is_contiguous()
    assert torch.equal(last, first)


def test_evaluation_hands_out_every_image_in_order() -> None:
    loader = _loader(augment=None, shuffle=False)
    images, labels = zip(*loader.batches(0), strict=True)

    pixels = random_pixels(23, 3, 6, 5)
    plain = np.stack([_oracle(image, Augment(), 0, 0, False) for image in pixels])
    assert np.array_equal(torch.cat(images).numpy(), plain)
    assert torch.equal(torch.cat(labels), torch.arange(23))
    assert [len(part) for part in labels] == [4, 4, 4, 4, 4, 3]


def test_every_epoch_visits_every_sample_once_in_another_order() -> None:
    loader = _loader()
    orders = [torch.cat([labels for _, labels in loader.batches(e)]).tolist() for e in range(4)]

    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_seed_and_epoch_are_not_simply_added() -> None:
    (_, first), (_, second) = next(_loader(seed=1).batches(2)), next(_loader(seed=2).batches(1))

    assert not torch.equal(first, second)


@pytest.mark.parametrize("start", [0, 1, 3, 5, 6])
def test_resume_in_mid_epoch_equals_the_undisturbed_run_bit_for_bit(start: int) -> None:
    undisturbed = list(_loader().batches(7))
    torch.rand(5)  # the global generator plays no part

    resumed = list(_loader().batches(7, start))

    assert len(resumed) == len(undisturbed) - start
    for (images, labels), (again, same) in zip(undisturbed[start:], resumed, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)


def test_iterators_of_one_loader_do_not_disturb_each_other() -> None:
    loader = _loader()
    alone = [labels.tolist() for _, labels in loader.batches(0)]
    mixed = [a.tolist() for (_, a), _ in zip(loader.batches(0), loader.batches(1), strict=True)]

    assert mixed == alone


def test_offsets_and_flips_are_uniform_and_independent() -> None:
    plan = draw(
        60_000,
        augment=Augment(1, "zero", True),
        shuffle=True,
        drop_last=False,
        shard=Shard(),
        seed=0,
        epoch=0,
        device=torch.device("cpu"),
    )
    flip = torch.zeros(60_000, dtype=torch.int64)
    flip[plan.flips] = 1

    cells = (plan.top * 3 + plan.left) * 2 + flip
    counts = cells.bincount(minlength=18).double()
    expected = 60_000 / 18
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_squared < 40.8  # 17 degrees of freedom: exceeded once in a thousand seeds
    for one, other in itertools.combinations((plan.order, plan.top, plan.left, flip), 2):
        assert abs(torch.corrcoef(torch.stack([one, other]).double())[0, 1]) < 0.02


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_what_one_process_sees(world_size: int) -> None:
    count = 4 * world_size * 3
    alone = list(_loader(count, batch_size=4 * world_size).batches(1))
    ranks = [
        list(_loader(count, batch_size=4, rank=rank, world_size=world_size).batches(1))
        for rank in range(world_size)
    ]

    for number, (images, labels) in enumerate(alone):
        for rank in range(world_size):
            assert torch.equal(ranks[rank][number][0], images[rank::world_size])
            assert torch.equal(ranks[rank][number][1], labels[rank::world_size])


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    world_size=st.integers(1, 5),
    batch_size=st.integers(2, 6),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_shards_cover_all_samples_in_equally_many_batches(
    count: int, world_size: int, batch_size: int, shuffle: bool, drop_last: bool
) -> None:
    if count < world_size * (batch_size if drop_last else 1):
        return
    loaders = [
        _loader(
            count,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    batches = [[labels.tolist() for _, labels in loader.batches(0)] for loader in loaders]

    assert len({len(loader) for loader in loaders}) == 1
    assert all(len(part) == len(loaders[0]) for part in batches)
    sizes = [len(batch) for part in batches for batch in part]
    assert min(sizes) >= 1
    assert max(sizes) <= batch_size
    seen = sorted(sample for part in batches for batch in part for sample in batch)
    if drop_last:
        assert set(sizes) == {batch_size}
        assert len(seen) == len(set(seen)) > count - world_size * batch_size
    elif shuffle:
        assert set(seen) == set(range(count))
        assert len(seen) == -(-count // world_size) * world_size
    else:
        assert seen == list(range(count))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"batch_size": 24, "drop_last": True}, "23 samples are too few for batch_size 24"),
        ({"world_size": 24}, "too few"),
        ({"rank": 2, "world_size": 2}, "rank must be in"),
        ({"world_size": 0}, "rank must be in"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"augment": Augment(5, "reflect")}, "cannot be reflected.*at most 4"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        _loader(**change)  # pyright: ignore[reportArgumentType]


def test_tensors_that_do_not_fit_are_refused() -> None:
    images, labels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)

    def load(images: torch.Tensor, labels: torch.Tensor, std: tuple[float, ...] = (1.0,)) -> None:
        Loader(
            images,
            labels,
            batch_size=1,
            mean=(0.0,) * len(std),
            std=std,
            shuffle=False,
            seed=0,
            device="cpu",
        )

    with pytest.raises(ValueError, match="images must be uint8"):
        load(images.float(), labels)
    with pytest.raises(ValueError, match=r"labels must be int64 of shape \[2\]"):
        load(images, labels[:1])
    with pytest.raises(ValueError, match="each of 1 channels, got 3"):
        load(images, labels, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="std above 0"):
        load(images, labels, (0.0,))
    with pytest.raises(ValueError, match="crop_padding must be 0 or more"):
        Augment(crop_padding=-1)
    with pytest.raises(ValueError, match="padding_mode must be"):
        Augment(padding_mode="mirror")  # pyright: ignore[reportArgumentType]


def test_epoch_and_start_out_of_range_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="epoch must be 0 or more"):
        _loader().batches(-1)
    with pytest.raises(ValueError, match=r"start must be a batch in \[0, 6\], got 7"):
        _loader().batches(0, 7)
