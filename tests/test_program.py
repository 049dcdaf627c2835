"""Packed programs against the same networks in float64 PyTorch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from sparsetrain.kernels import native
from sparsetrain.kernels.packed import Layout
from sparsetrain.kernels.program import Add, Executor, Flatten, Pool, Program

from .program_tools import Drawn, network


@pytest.fixture(params=["twin", "native"])
def path(request, monkeypatch):
    """PyTorch alone, and the C++ executor."""
    if request.param == "twin":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("the C++ kernels are not built or are switched off")


def assert_right(net: Drawn, found: Tensor) -> None:
    expected = net.known[-1]
    assert found.shape == expected.shape
    assert found.is_contiguous()
    if expected.numel():
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("block", [1, 16, 32])
@pytest.mark.parametrize("batch", [0, 1, 7, 16, 33])
def test_a_program_equals_float64(path, batch, block):
    torch.manual_seed(batch)
    net = network(batch, block)
    assert_right(net, Executor(net.program())(net.images)[0])


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_empty_and_full_layers_are_right(path, density):
    torch.manual_seed(0)
    net = network(5, 16, density=density)
    assert_right(net, Executor(net.program())(net.images)[0])


def test_inputs_of_any_strides_give_the_same(path):
    torch.manual_seed(0)
    net = network(18, 16)
    run = Executor(net.program())
    wanted = run(net.images)[0]
    last = net.images.contiguous(memory_format=torch.channels_last)
    wide = torch.cat([net.images, net.images])[:18].repeat_interleave(2, 3)[..., ::2]
    for images in (last, wide, net.images.mT.contiguous().mT):
        assert torch.equal(run(images)[0], wanted)


def test_several_inputs_and_outputs_keep_their_order(path):
    layout = Layout(5, 1, 1, 0, 16)
    program = Program((layout,) * 3, (Add(0, 2, 1),), (0, 1), (2, 0))
    a, b = torch.randn(4, 5), torch.randn(4, 5)
    total, first = Executor(program)(a, b)
    assert torch.equal(total.flatten(1), a + b)
    assert torch.equal(first.flatten(1), a)


def test_programs_that_do_not_fit_are_refused_in_one_sentence():
    net = network(2, 16)
    program = net.program()
    odd = dataclasses.replace(program.buffers[1], halo=1)
    one = Layout(3, 8, 9, 2, 1)
    wrong = {
        "buffers must share one block size": {"buffers": (one, *program.buffers[1:])},
        "inputs must be one buffer or more": {"inputs": ()},
        r"step 0 \(Conv\): target is buffer 1": {
            "buffers": (program.buffers[0], odd, *program.buffers[2:])
        },
        r"step 0 \(Conv\) reads buffer 0, which nothing": {"inputs": (1,)},
        "outputs names buffer 99": {"outputs": (99,)},
        r"step 0 \(Pool\): pooling": {"steps": (Pool(0, 1, "max", (2, 2), (2, 2)),)},
        r"step 0 \(Flatten\): .* flattens to 216 channels": {"steps": (Flatten(0, 1),)},
        r"step 0 \(Add\): a sum needs buffers of one size": {"steps": (Add(0, 1, 0),)},
    }
    for message, change in wrong.items():
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(program, **change)


def test_tensors_that_do_not_fit_are_refused_in_one_sentence(path):
    net = network(2, 16)
    run = Executor(net.program())
    for tensors, message in {
        (): "the program takes 1 tensors, got 0",
        (net.images.double(),): "tensor 0 must be float32 of shape",
        (net.images[:, 1:],): "tensor 0 must be float32 of shape",
    }.items():
        with pytest.raises(ValueError, match=message):
            run(*tensors)
