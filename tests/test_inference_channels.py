"""Channels that nobody reads, and those that are always zero, are left out of packed programs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain.inference.lower import lowered
from sparsetrain.inference.prepared import prepare
from sparsetrain.inference.stretches import Stretch, arranged
from sparsetrain.inference.weights import read
from sparsetrain.kernels.program import Program

from .inference_nets import trained_looking_
from .inference_tools import assert_same


def program_of(model: nn.Module, x: Tensor) -> Program:
    """The program of a network that is packed as a whole."""
    prepared = prepare(model, x)
    values = read(prepared.graph, model, None)
    (part,) = arranged(prepared.network, prepared.able)
    assert isinstance(part, Stretch)
    return lowered(part, prepared.network, prepared.kinds, values, 16)[0]


def widths(model: nn.Module, x: Tensor) -> list[int]:
    """Channels of what each step of its program writes."""
    program = program_of(model, x)
    return [program.buffers[step.target].channels for step in program.steps]


def chain(*, relu: bool = True) -> nn.Sequential:
    """Three convolutions of 8 channels and a linear layer, all weights there."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels in (3, 8, 8):
        layers += [nn.Conv2d(channels, 8, 3, padding=1), *[nn.ReLU()] * relu]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 4)).eval()


def convs(model: nn.Sequential) -> list[nn.Conv2d]:
    return [layer for layer in model if isinstance(layer, nn.Conv2d)]


X = torch.randn(3, 3, 6, 6)


def check(model: nn.Module) -> None:
    compiled = st.compile_sparse(model, X, choice="sparse")
    for batch in (1, 17):
        assert_same(compiled, model, torch.randn(batch, *X.shape[1:]))


def test_without_dead_channels_nothing_is_left_out() -> None:
    assert widths(chain(), X) == [8, 8, 8, 8, 72, 4]


def test_a_channel_that_nobody_reads_is_left_out() -> None:
    model = chain()
    with torch.no_grad():
        convs(model)[1].weight[:, [0, 3, 4, 5, 6, 7]] = 0.0
    assert widths(model, X) == [2, 8, 8, 8, 72, 4]
    check(model)


def test_what_only_left_out_channels_read_is_left_out_too() -> None:
    model = chain()
    first, second, third = convs(model)
    with torch.no_grad():
        third.weight[:, 4:] = 0.0  # nobody reads the second layer's channels from 4 on,
        second.weight[:4, 2:] = 0.0  # the others read two channels of the first
    assert first.weight.count_nonzero() == first.weight.numel()
    assert widths(model, X) == [2, 4, 8, 8, 72, 4]
    check(model)


@pytest.mark.parametrize(
    ("relu", "bias", "left"),
    [(True, -1.0, 7), (True, 0.0, 7), (True, 1.0, 8), (False, 0.0, 7), (False, -1.0, 8)],
)
def test_a_channel_that_is_always_zero_is_left_out(relu: bool, bias: float, left: int) -> None:
    model = chain(relu=relu)
    first = convs(model)[0]
    assert first.bias is not None
    with torch.no_grad():
        first.weight[5] = 0.0
        first.bias[5] = bias
    assert widths(model, X)[0] == left
    check(model)


def test_a_pixel_that_the_linear_layer_reads_keeps_its_channel() -> None:
    model = chain()
    head = model[-1]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.view(4, 8, 9)[:, 1:] = 0.0
        head.weight.view(4, 8, 9)[:, 6, 4] = 1.0
    assert widths(model, X) == [8, 8, 2, 2, 18, 4]
    check(model)


def test_an_empty_network_gives_its_last_bias() -> None:
    model = chain()
    with torch.no_grad():
        for layer in (*convs(model), model[-1]):
            layer.weight.zero_()  # type: ignore[operator, union-attr]
    assert max(widths(model, X)[:3]) == 1
    check(model)


class Residual(nn.Module):
    """Two blocks whose sums lie in one place, then a norm that no weight can take."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.one, self.two = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.three, self.four = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.last, self.head = nn.Conv2d(width, width, 1, stride=2), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.two(F.relu(self.one(x))))
        x = x + self.four(F.relu(self.three(x)))
        x = self.last(F.relu(self.norm(x)))
        return self.head(F.avg_pool2d(F.relu(x), 3).flatten(1))


def test_channels_of_a_sum_stay_while_either_side_is_read() -> None:
    torch.manual_seed(0)
    model = trained_looking_(Residual(8), sparsity=0.0)
    with torch.no_grad():
        model.last.weight[:, 2:] = 0.0  # type: ignore[union-attr, operator]
        for layer in (model.one, model.three):
            layer.weight[:, :6] = 0.0  # type: ignore[union-attr, operator]
    assert {2, 6} & set(widths(model, X)) == set()  # the sums have channels 0, 1, 6 and 7
    assert widths(model, X)[0] == 4
    check(model)


@settings(deadline=None, max_examples=20)
@given(data=some.data())
def test_networks_with_dead_channels_give_their_results(data: some.DataObject) -> None:
    torch.manual_seed(data.draw(some.integers(0, 999)))
    model = trained_looking_(Residual(data.draw(some.integers(1, 9))), sparsity=0.3)
    dead = some.sampled_from([0.0, 0.3, 0.8, 1.0])
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight[torch.rand(layer.weight.shape[0]) < data.draw(dead)] = 0.0
                layer.weight[:, torch.rand(layer.weight.shape[1]) < data.draw(dead)] = 0.0
                assert layer.bias is not None
                layer.bias[torch.rand(len(layer.bias)) < data.draw(dead)] = 0.0
    images = torch.randn(data.draw(some.integers(1, 130)), 3, 6, 12)[..., ::2]
    threads = torch.get_num_threads()
    torch.set_num_threads(data.draw(some.sampled_from([1, 2, 3])))
    try:
        assert_same(st.compile_sparse(model, X, choice="sparse"), model, images)
    finally:
        torch.set_num_threads(threads)
