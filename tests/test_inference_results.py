"""A compiled network gives what the model gives: all our networks, odd graphs, any batch."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import nn

import sparsetrain as st
from sparsetrain.inference.choice import Choice
from sparsetrain.kernels import native

from .inference_nets import NETS, ConvNorms, TwoInputs, trained_looking_
from .inference_tools import assert_same

KINDS: tuple[Choice, ...] = ("sparse", "dense", "model")
SLOW = ("resnet34-cifar", "resnet44", "resnet56", "resnet110", "vgg13", "vgg16")
SLOW += ("resnet34-imagenet", "resnet50-imagenet", "resnet101-imagenet")
SMALL = {"lenet5": 20, "vgg11": 16, "vgg13": 16, "vgg16": 16, "vgg19": 16}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in st.models.names()],
)
def test_our_networks_give_their_results(name: str) -> None:
    size = 32 if name.endswith("-imagenet") else SMALL.get(name, 12)
    options = {"width": 2} if name == "resnet8" else {}
    model = trained_looking_(st.models.create(name, image_size=size, **options))
    compiled = st.compile_sparse(model, torch.randn(2, 3, size, size), choice="sparse")
    for batch in (1, 9):
        assert_same(compiled, model, torch.randn(batch, 3, size, size))
    assert all(layer.kernel == "sparse" for layer in compiled.explain(1).layers)


@pytest.mark.parametrize("choice", KINDS)
@pytest.mark.parametrize("name", NETS)
def test_odd_graphs_give_their_results(name: str, choice: Choice) -> None:
    kind, shape = NETS[name]
    model = trained_looking_(kind())
    compiled = st.compile_sparse(model, torch.randn(3, *shape), choice=choice)
    for batch in (0, 1, 3, 8, 17):
        assert_same(compiled, model, torch.randn(batch, *shape))


@pytest.mark.parametrize("choice", KINDS)
def test_norms_without_statistics_and_other_convolutions_are_left_to_torch(choice: Choice) -> None:
    model = trained_looking_(ConvNorms())
    compiled = st.compile_sparse(model, torch.randn(5, 3, 8, 8), choice=choice)
    for batch in (1, 5, 9):
        assert_same(compiled, model, torch.randn(batch, 3, 8, 8))


@given(batch=some.integers(0, 130))
def test_any_batch_gives_its_results(batch: int) -> None:
    torch.manual_seed(batch)
    assert_same(_SMALL, _MODEL, torch.randn(batch, 3, 6, 6))


@given(data=some.data())
def test_random_chains_give_their_results(data: some.DataObject) -> None:
    torch.manual_seed(data.draw(some.integers(0, 99)))
    channels, layers = 3, list[nn.Module]()
    for _ in range(data.draw(some.integers(1, 4))):
        width, kernel = data.draw(some.integers(1, 9)), data.draw(some.sampled_from([1, 2, 3, 5]))
        stride, padding = data.draw(some.integers(1, 3)), data.draw(some.integers(0, kernel // 2))
        bias = data.draw(some.booleans())
        layers.append(nn.Conv2d(channels, width, kernel, stride, padding, bias=bias))
        if data.draw(some.booleans()):
            layers.append(nn.BatchNorm2d(width))
        if data.draw(some.booleans()):
            layers.append(nn.ReLU(inplace=data.draw(some.booleans())))
        channels = width
    size = 40  # four convolutions of stride 3 leave a row of it where they are padded
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))
    trained_looking_(model, sparsity=data.draw(some.sampled_from([0.0, 0.5, 0.95, 1.0])) * 0.999)
    try:
        with torch.no_grad():
            model(torch.zeros(2, 3, size, size))
    except RuntimeError:
        return  # a kernel larger than what is left of the image
    compiled = st.compile_sparse(model, torch.randn(2, 3, size, size), choice="sparse")
    assert_same(compiled, model, torch.randn(data.draw(some.sampled_from([1, 9])), 3, size, size))


def _small() -> nn.Sequential:
    torch.manual_seed(0)
    stem = (nn.Conv2d(3, 5, 3, 2, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU())
    return nn.Sequential(*stem, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5, 4))


_MODEL = trained_looking_(_small(), sparsity=0.6)
_SMALL = st.compile_sparse(_MODEL, torch.randn(2, 3, 6, 6), choice="sparse")


def test_layers_without_weights_give_their_bias() -> None:
    model = trained_looking_(_small())
    with torch.no_grad():
        model[0].weight.zero_()  # type: ignore[union-attr]
        model[5].weight.zero_()  # type: ignore[union-attr]
    compiled = st.compile_sparse(model, torch.randn(2, 3, 6, 6), choice="sparse")
    assert_same(compiled, model, torch.randn(10, 3, 6, 6))


def test_a_norm_of_tiny_variance_is_folded_exactly() -> None:
    model = trained_looking_(_small(), sparsity=0.3)
    model[1].running_var.fill_(1e-12)  # type: ignore[union-attr]
    model[1].running_mean.fill_(3.0)  # type: ignore[union-attr]
    for choice in KINDS:
        compiled = st.compile_sparse(model, torch.randn(2, 3, 6, 6), choice=choice)
        assert_same(compiled, model, torch.randn(10, 3, 6, 6))


def test_several_inputs_by_name_and_a_dict_of_results() -> None:
    model = trained_looking_(TwoInputs(), sparsity=0.3)
    example = {"x": torch.randn(3, 3, 5, 5), "y": torch.randn(3, 5)}
    compiled = st.compile_sparse(model, example, choice="sparse")
    x, y = torch.randn(9, 3, 5, 5), torch.randn(9, 5)
    assert_same(compiled, model, x, y=y)
    assert_same(compiled, model, y=y, x=x)
    assert compiled(x, y=y)["pair"][1] is y


def test_inputs_of_any_strides_give_their_results() -> None:
    wide = torch.randn(10, 8, 8, 3)[:, ::2, 1:7]
    images = wide.permute(0, 3, 1, 2)[:, :, :, :6]
    images = torch.nn.functional.pad(images, (0, 0, 0, 2)).flip(0)
    assert_same(_SMALL, _MODEL, images.to(memory_format=torch.channels_last))
    assert_same(_SMALL, _MODEL, images.transpose(2, 3))


def test_concurrent_calls_give_their_results() -> None:
    batches = [torch.randn(1 + 3 * i, 3, 6, 6) for i in range(12)]
    wanted = [_SMALL(images) for images in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(_SMALL, batches * 5))
    for place, result in enumerate(found):
        assert torch.equal(result, wanted[place % 12])


def test_without_the_extension_the_results_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    model = trained_looking_(copy.deepcopy(_MODEL))
    compiled = st.compile_sparse(model, torch.randn(2, 3, 6, 6), choice="sparse")
    for batch in (0, 1, 17):
        assert_same(compiled, model, torch.randn(batch, 3, 6, 6))
