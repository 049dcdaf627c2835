"""Compressed files: every bit comes back, sizes are near the bound, NumPy alone reads them."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors.torch import load_file, save_file
from torch import nn

import sparsetrain as st
from sparsetrain.compress import positions

PAGE = (Path(__file__).parents[1] / "docs" / "files.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.complex64, torch.bool, torch.uint8, torch.int16, torch.uint32, torch.int64),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


def drawn(shape, dtype, seed):
    """Random bits of a type: NaN, infinities and negative zeros among them."""
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    top = 2 if dtype == torch.bool else 256
    bits = np.random.default_rng(seed).integers(0, top, (math.prod(shape), dtype.itemsize))
    return torch.from_numpy(bits.astype(np.uint8)).view(dtype).reshape(shape)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(bytes_of(a), bytes_of(b))


def bytes_of(tensor):
    """One row of bytes for each element."""
    flat = tensor.detach().flatten().clone()
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    raw = flat.view(words[flat.element_size()]).numpy().tobytes()
    return np.frombuffer(raw, np.uint8).reshape(len(flat), flat.element_size())


def folded(tensor, mask):
    """The oracle: byte by byte, zero where the mask is False."""
    kept = bytes_of(tensor) * mask.numpy().reshape(-1, 1)
    return torch.from_numpy(kept.reshape(-1)).view(tensor.dtype).reshape(tensor.shape)


@settings(max_examples=150, deadline=None)
@given(
    shape=some.lists(some.integers(0, 9), max_size=4),
    dtype=some.sampled_from(DTYPES),
    density=some.sampled_from([0.0, 0.02, 0.3, 0.5, 0.7, 0.98, 1.0]),
    seed=some.integers(0, 2**32),
    order=some.randoms(use_true_random=False),
)
def test_every_bit_and_every_mask_come_back(folder, shape, dtype, density, seed, order):
    dims = list(range(len(shape)))
    order.shuffle(dims)
    tensor = drawn(shape, dtype, seed).permute(dims)
    mask = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(seed)) < density
    path = folder / "any"

    size = st.compress.save({"w": tensor, "b": tensor}, {"w": mask}, path)
    back = st.compress.read(path)

    assert size == path.stat().st_size
    assert same_bits(back["w"], folded(tensor, mask)) and back["b"] is back["w"]  # tied
    holder = nn.Module()
    holder.register_buffer("w", drawn(tensor.shape, dtype, seed + 1))
    holder.register_buffer("b", holder.w)
    masks = st.compress.load(path, holder)
    assert same_bits(holder.w, folded(tensor, mask))
    assert list(masks) == ["w"] and torch.equal(masks["w"], mask)


@settings(max_examples=200, deadline=None)
@given(some.sets(some.integers(0, 100_000), max_size=200), some.integers(0, 2**40))
def test_positions_come_back_wherever_they_start(spots, offset):
    listed = np.array(sorted(spots), np.int64) + offset
    low_bits, code = positions.encode(listed)
    size = int(listed[-1]) + 1 if spots else 0
    assert np.array_equal(
        positions.decode(code, count=len(listed), low_bits=low_bits, size=size), listed
    )


@pytest.mark.parametrize("density", [0.5, 0.45, 0.382, 0.3, 0.2, 0.1, 0.05, 0.01, 0.002])
def test_a_random_mask_takes_at_most_five_percent_more_than_its_entropy(density):
    size = 400_000
    spots = np.flatnonzero(np.random.default_rng(0).random(size) < density)
    _, code = positions.encode(spots)
    d = len(spots) / size
    entropy = -size * (d * math.log2(d) + (1 - d) * math.log2(1 - d))
    assert entropy <= 8 * len(code) + 64  # 64: this very mask may have fewer bits than the mean
    assert 8 * len(code) <= 1.05 * entropy + 8


def test_no_other_number_of_low_bits_is_smaller():
    rng = np.random.default_rng(1)
    for density in (0.4, 0.2, 0.03, 0.003):
        spots = np.flatnonzero(rng.random(20_000) < density)
        gaps = np.diff(spots, prepend=-1) - 1
        sizes = [sum(k + 1 + (int(gap) >> k) for gap in gaps) for k in range(16)]
        low_bits, code = positions.encode(spots)
        assert sizes[low_bits] == min(sizes) and len(code) == (min(sizes) + 7) // 8


def test_vgg19_at_99_percent_is_below_3_percent_of_its_dense_file(folder):
    model = st.models.create("vgg19")
    masks = st.prune(model, 0.99)
    small = st.compress.save(model, masks, folder / "small")
    save_file(model.state_dict(), folder / "dense")
    assert small <= 0.03 * (folder / "dense").stat().st_size
    kept = sum(int(mask.sum()) for mask in masks.values())
    stored = load_file(folder / "small")
    others = sum(t.nbytes for name, t in stored.items() if ":" not in name)
    # 4 bytes a weight, 8.08 bits of entropy a position at 99 %, and the header.
    assert small <= others + kept * (4 + 1.05 * 8.08 / 8) + 40_000


def test_a_tensor_with_few_zeros_is_stored_whole_and_its_mask_still_known(folder):
    tensor, mask = torch.ones(100), torch.ones(100, dtype=torch.bool)
    st.compress.save({"w": tensor}, {"w": mask}, folder / "full")
    assert list(load_file(folder / "full")) == ["w"]
    tensor[7] = 0.0  # kept, and 0: only the positions can tell
    st.compress.save({"w": tensor}, {"w": mask}, folder / "full")
    holder = nn.Module()
    holder.register_buffer("w", torch.zeros(100))
    assert bool(st.compress.load(folder / "full", holder)["w"].all())


@pytest.mark.parametrize(("values", "dtype"), [("float16", torch.float16), ("bfloat16", None)])
def test_kept_weights_can_be_rounded_and_nothing_else_is(folder, values, dtype):
    dtype = dtype or torch.bfloat16
    model = nn.Sequential(nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.Linear(40, 50).half())
    masks = {"0.weight": torch.rand(40, 3, 3, 3) < 0.1, "2.weight": torch.rand(50, 40) < 0.1}
    st.compress.save(model, masks, folder / "narrow", values=values)
    back = st.compress.read(folder / "narrow")
    for name, tensor in model.state_dict().items():
        expected = tensor if name != "0.weight" else tensor.to(dtype).float() * masks[name]
        expected = folded(tensor, masks[name]) if name == "2.weight" else expected
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], expected)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(30, 30), nn.Linear(30, 30, bias=False)
        self.last.weight = self.first.weight
        self.register_buffer("table", torch.arange(3))


def test_tied_weights_are_stored_once_and_load_tied_or_not(folder):
    model = Tied()
    masks = st.prune(model, 0.9)
    st.compress.save(model, masks, folder / "tied")
    assert sorted(load_file(folder / "tied")) == [
        *("first.bias", "first.weight:positions", "first.weight:values", "table")
    ]
    tied, untied = Tied(), Tied()
    untied.last.weight = nn.Parameter(torch.zeros(30, 30))
    for other in (tied, untied):
        st.compress.load(folder / "tied", other)
        expected = model.first.weight * masks["first.weight"]
        assert torch.equal(other.first.weight, expected)
        assert torch.equal(other.last.weight, expected)
    tied.load_state_dict(st.compress.read(folder / "tied"))


def test_a_file_loads_into_wrapped_models_other_types_and_memory_formats(folder):
    model = st.models.create("resnet8")
    masks = st.prune(model, 0.95)
    st.compress.save(nn.DataParallel(model), masks, folder / "wrapped")
    other = nn.DataParallel(st.models.create("resnet8").to(memory_format=torch.channels_last))
    st.compress.load(folder / "wrapped", other.double())
    for name, tensor in other.module.state_dict().items():
        expected = model.state_dict()[name] * masks.get(name, 1)
        assert torch.equal(tensor, expected.to(tensor.dtype))


def test_saving_leaves_the_model_alone_and_training_goes_on_from_the_file(folder):
    model = st.models.create("lenet-300-100", in_channels=1, image_size=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = {name: weight.detach().abs() for name, weight in st.select(model).items()}
    masks = st.masks.keep_global(scores, st.masks.kept(sum(map(torch.numel, scores.values())), 0.9))
    st.compress.save(model, masks, folder / "on")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masks = st.compress.load(folder / "on", model)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(masks=masks))
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    assert sparsifier.sparsity == pytest.approx(0.9, abs=1e-4)


def test_the_reader_of_the_page_reads_what_the_library_reads(folder):
    (code,) = (block for block in BLOCKS if "def read(" in block)
    assert len(code[code.index("def ") :].strip().splitlines()) <= 20
    scope: dict = {}
    exec(compile(code, "files.md", "exec"), scope)
    model = Tied()
    for (low, high), values in zip(
        pairwise([0.0, 0.02, 0.4, 0.6, 0.99]), (None, "float16", None, None), strict=True
    ):
        masks = {"first.weight": torch.rand(30, 30) < (low + high) / 2}
        st.compress.save(model, masks, folder / "plain", values=values)
        ours, theirs = st.compress.read(folder / "plain"), scope["read"](folder / "plain")
        assert set(ours) == set(theirs)
        for name, tensor in ours.items():
            assert theirs[name].dtype == tensor.numpy().dtype
            assert np.array_equal(theirs[name], tensor.numpy())


def test_the_page_s_example_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (code,) = (block for block in BLOCKS if "def read(" not in block)
    scope: dict = {}
    exec(compile(code, "files.md", "exec"), scope)
    assert (folder / "vgg19.safetensors").stat().st_size < 1.15e6
