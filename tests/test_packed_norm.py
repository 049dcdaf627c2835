"""Batch norm and pooling in the packed layout against PyTorch in float64."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from sparsetrain.kernels import packed_norm as pn
from sparsetrain.kernels import packed_pool as pp
from sparsetrain.kernels.packed import Layout, pack, unpack
from tests.kernel_tools import CLOSE, assert_close, built, level  # noqa: F401


def spoil_missing(packed, batch):
    """Another number where the last block has no image."""
    blocks, block = packed.shape[0], packed.shape[-1]
    for missing in range(batch, blocks * block):
        packed[missing // block, :, 1:-1, 1:-1, missing % block] = 7.0


def check_norm(batch, shape, block, relu, residual, halos=(1, 2)):
    source = Layout(*shape, halo=halos[0], block=block)
    target = dataclasses.replace(source, halo=halos[1])
    channels = shape[0]
    x = (torch.randn(batch, *shape) + 3).double()
    r, dy = torch.randn(batch, *shape).double(), torch.randn(batch, *shape).double()
    weight, bias = torch.randn(channels).double(), torch.randn(channels).double()
    leaves = [t.requires_grad_() for t in (x, r, weight, bias)]
    out = F.batch_norm(x, None, None, weight, bias, training=True) + (r if residual else 0.0)
    out = out.relu() if relu else out
    wanted = torch.autograd.grad(out, leaves, dy, allow_unused=True)

    images = pack(x.detach().float(), source)
    spoil_missing(images, batch)
    found = pn.moments(images, source, batch)
    n = batch * shape[1] * shape[2]
    mean, variance = found[:, 0], found[:, 1] / n
    assert_close(mean, x.mean((0, 2, 3)).detach(), "mean")
    assert_close(variance, x.var((0, 2, 3), unbiased=False).detach(), "variance")

    invstd = (variance + 1e-5).rsqrt()
    scale = weight.detach() * invstd
    constants = torch.stack([mean, scale, bias.detach()], 1).float()
    place = pn.Place(batch, source, target, relu)
    result = target.framed(batch)
    more = pack(r.detach().float(), target) if residual else None
    pn.apply(place, pn.Saved(images, None, constants), more, result)
    assert_close(unpack(result, target, batch), out.detach(), "output")

    grad = pack(dy.float(), target)
    spoil_missing(grad, batch)
    saved = pn.Saved(images, result if residual else None, constants)
    masked = target.framed(batch) if residual else None
    sums = pn.sums(place, saved, grad, masked)
    # Terms may cancel: what is summed in float32 is rounded by the terms' size, not by the sum's.
    rounding = 4 * torch.finfo(torch.float32).eps * dy.abs().sum((0, 2, 3)).max()
    for found_sums, expected in ((sums[:, 0], wanted[3]), (sums[:, 1] * invstd, wanted[2])):
        error = (found_sums.double() - expected).abs().max()
        assert error <= CLOSE * expected.abs().max() + rounding
    slopes = torch.stack([scale * invstd**2 * sums[:, 1] / n, scale * sums[:, 0] / n], 1).float()
    in_grad = source.framed(batch)
    pn.input_grad(place, saved, grad, slopes, in_grad)
    # Of few entries a channel it is a difference of almost equal terms: close by their size.
    error = (unpack(in_grad, source, batch).double() - wanted[0]).abs().max()
    assert error <= CLOSE * max(wanted[0].abs().max(), (scale.abs().max() * dy.abs().max()))
    assert not in_grad.movedim(-1, 1).flatten(0, 1)[batch:].any()
    if masked is not None:
        assert_close(unpack(masked, target, batch), wanted[1], "gradient of residual")
        assert not masked.movedim(-1, 1).flatten(0, 1)[batch:].any()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("batch", "block"), [(32, 16), (19, 16), (33, 32)])
def test_norm_sum_and_relu_equal_float64_autograd(level, batch, block, relu, residual):  # noqa: F811
    check_norm(batch, (5, 3, 7), block, relu, residual)


@built
@given(
    batch=st.integers(2, 130),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9)),
    block=st.sampled_from([16, 32, 64]),
    relu=st.booleans(),
    residual=st.booleans(),
    halos=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_norm_equals_float64_autograd_at_any_shape(batch, shape, block, relu, residual, halos):
    check_norm(batch, shape, block, relu, residual, halos)


def test_the_variance_survives_a_mean_far_from_zero(level):  # noqa: F811
    layout = Layout(2, 8, 8, halo=1, block=16)
    x = torch.randn(20, 2, 8, 8) + 1000.0
    found = pn.moments(pack(x, layout), layout, 20)
    expected = x.double().var((0, 2, 3), unbiased=False)
    assert_close(found[:, 1] / (20 * 64), expected, "variance")


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize(("window", "size"), [((2, 2), (6, 8)), ((2, 3), (7, 8)), ((5, 4), (5, 4))])
def test_pooling_equals_float64_autograd(level, kind, window, size):  # noqa: F811
    source = Layout(3, *size, halo=1, block=16)
    pooling = pp.Pooling(kind, window, source, halo=2)
    x = torch.randn(21, 3, *size).mul(3).round().div(3)  # with ties
    x[0] = -0.5
    x[1, 0, 0, 0] = torch.nan
    function = F.max_pool2d if kind == "max" else F.avg_pool2d
    inner = x.double().requires_grad_()
    wanted = function(inner, window)
    dy = torch.randn(wanted.shape)
    (wanted_grad,) = torch.autograd.grad(wanted, inner, dy.double())
    images, out = pack(x, source), pooling.target.framed(21)
    pp.pool(pooling, images, out)
    torch.testing.assert_close(
        unpack(out, pooling.target, 21).double(), wanted.detach(), equal_nan=True
    )
    found = torch.full(source.shape(21), 9.0)  # what lay there before is not left
    found[:, :, 1:-1, 1:-1] = 9.0
    grad = pack(dy, pooling.target)
    pp.pool_grad(pooling, images if kind == "max" else None, grad, found)
    torch.testing.assert_close(unpack(found, source, 21).double(), wanted_grad)


def test_what_does_not_fit_is_refused_in_one_sentence():
    layout = Layout(2, 4, 4, halo=1, block=16)
    images, place = layout.framed(20), pn.Place(20, layout, layout, relu=False)
    saved = pn.Saved(images, None, torch.zeros(2, 3))
    pooling = pp.Pooling("max", (2, 2), layout, halo=0)
    wrong = {
        "grad must have the input's 2 blocks": lambda: pn.sums(place, saved, layout.framed(9)),
        "batch must fill the 2 blocks": lambda: pn.sums(
            place._replace(batch=33), saved, layout.framed(32)
        ),
        "out must have the input's 2 blocks": lambda: pp.pool(
            pooling, images, pooling.target.framed(3)
        ),
        "images must be given": lambda: pp.pool_grad(
            pooling, None, pooling.target.framed(20), images
        ),
    }
    for message, call in wrong.items():
        with pytest.raises(ValueError, match=message):
            call()
