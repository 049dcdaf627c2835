"""Sparse convolutions against PyTorch's dense ones in float64: outputs and both gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from sparsetrain.kernels import sparse_conv as sc
from tests.kernel_tools import assert_close, built, level  # noqa: F401


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Case:
    """A layer, a batch and what float64 autograd says of them."""

    def __init__(self, geometry: sc.Geometry, batch: int, density: float, seed: int = 0) -> None:
        torch.manual_seed(seed)
        g = self.geometry = geometry
        self.batch = batch
        self.mask = torch.rand(g.outputs, g.channels, *g.kernel) < density
        self.weight = torch.randn(self.mask.shape) * self.mask
        self.bias = torch.randn(g.outputs)
        self.images = torch.randn(batch, g.channels, g.height, g.width)
        shape = (batch, g.outputs, g.out_height, g.out_width)
        self.residual, self.out_grad = torch.randn(shape), torch.randn(shape)
        x, w = self.images.double(), self.weight.double()
        outputs = [x.requires_grad_(), w.requires_grad_()]
        self.out = F.conv2d(x, w, self.bias.double(), g.stride, g.padding)
        grads = torch.autograd.grad(self.out, outputs, self.out_grad.double())
        self.in_grad, self.weight_grad = grads[0], grads[1] * self.mask
        self.out = self.out.detach()

    def forward(self, plan: sc.ConvPlan) -> None:
        images = sc.pack(self.images, plan.source)
        values = sc.gather(plan, self.weight)
        out = sc.forward(plan, images, values, bias=self.bias)
        assert_close(sc.unpack(out, plan.target, self.batch), self.out, "outputs")
        residual = sc.pack(self.residual, plan.target)
        out = sc.forward(plan, images, values, bias=self.bias, residual=residual, relu=True)
        expected = (self.out + self.residual.double()).relu()
        assert_close(sc.unpack(out, plan.target, self.batch), expected, "with residual and ReLU")
        out = sc.forward(plan, images, values)
        plain = self.out - self.bias.double().view(-1, 1, 1)
        assert_close(sc.unpack(out, plan.target, self.batch), plain, "without bias")

    def backward(self, plan: sc.ConvPlan) -> None:
        images, grad = sc.pack(self.images, plan.source), sc.pack(self.out_grad, plan.target)
        found = sc.input_grad(plan, grad, sc.gather(plan, self.weight))
        assert_close(sc.unpack(found, plan.source, self.batch), self.in_grad, "of the input")
        weight_grad = sc.scatter(plan, sc.weight_grad(plan, images, grad))
        assert_close(weight_grad, self.weight_grad, "of the weight")

    def run(self, block: int) -> None:
        plan = sc.plan(self.mask, self.geometry, block=block)
        self.forward(plan)
        if block > 1:
            self.backward(plan)


@st.composite
def geometries(draw):
    kernel = draw(st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 3, 5])))
    stride, padding = draw(st.sampled_from([1, 2, 3])), draw(st.tuples(*[st.integers(0, 2)] * 2))
    size = [draw(st.integers(max(1, k - 2 * p), 14)) for k, p in zip(kernel, padding, strict=True)]
    channels, outputs = draw(st.integers(1, 20)), draw(st.integers(1, 9))
    return sc.Geometry(channels, outputs, kernel, stride, padding, size[0], size[1])


@built
@given(
    geometry=geometries(),
    batch=st.integers(1, 130),
    density=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    block=st.sampled_from([1, 16, 32, 64]),
    seed=st.integers(0, 999),
)
def test_outputs_and_gradients_equal_float64_autograd(geometry, batch, density, block, seed):
    Case(geometry, batch, density, seed).run(block)


LAYERS = {
    "3x3": sc.Geometry(20, 6, (3, 3), 1, (1, 1), 9, 13),
    "stride 2": sc.Geometry(6, 7, (3, 3), 2, (1, 1), 8, 9),
    "shortcut": sc.Geometry(6, 7, (1, 1), 2, (0, 0), 8, 8),
    "large padding": sc.Geometry(3, 4, (5, 5), 1, (4, 3), 2, 2),
    "linear": sc.Geometry(37, 11, (1, 1), 1, (0, 0), 1, 1),
    "groups of channels": sc.Geometry(90, 8, (3, 3), 1, (1, 1), 4, 4),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("block", [1, 16, 32])
def test_every_level_and_the_twin_are_right(level, name, block):  # noqa: F811
    Case(LAYERS[name], batch=19, density=0.3).run(block)


def test_a_large_dense_layer_is_cut_into_groups_of_channels():
    plan = sc.plan(torch.ones(8, 90, 3, 3, dtype=torch.bool), LAYERS["groups of channels"])
    assert plan.entries.groups > 1


@pytest.mark.parametrize(("batch", "block"), [(1, 1), (2, 1), (64, 16), (33, 32)])
def test_a_linear_layer_is_a_convolution_of_single_pixels(level, batch, block):  # noqa: F811
    mask = torch.rand(50, 70) < 0.2
    weight, bias, x = torch.randn(50, 70) * mask, torch.randn(50), torch.randn(batch, 70)
    plan = sc.plan_linear(mask, block=block)
    packed, values = sc.pack(x[:, :, None, None], plan.source), sc.gather(plan, weight)
    out = sc.forward(plan, packed, values, bias=bias)
    expected = F.linear(x.double(), weight.double(), bias.double())
    assert_close(sc.unpack(out, plan.target, batch).flatten(1), expected, "outputs")
    if block > 1:
        grad = torch.randn(batch, 50)
        found = sc.weight_grad(plan, packed, sc.pack(grad[:, :, None, None], plan.target))
        wanted = (grad.double().T @ x.double()) * mask
        assert_close(sc.scatter(plan, found)[:, :, 0, 0], wanted, "gradient")


@pytest.mark.parametrize("block", [1, 16])
def test_a_row_without_weights_gives_its_bias_and_residual(level, block):  # noqa: F811
    case = Case(LAYERS["3x3"], batch=3, density=0.4)
    case.mask[2] = False
    plan = sc.plan(case.mask, case.geometry, block=block)
    images, residual = sc.pack(case.images, plan.source), sc.pack(case.residual, plan.target)
    values = sc.gather(plan, case.weight)
    out = sc.forward(plan, images, values, bias=case.bias, residual=residual)
    expected = case.bias[2] + case.residual[:, 2]
    torch.testing.assert_close(sc.unpack(out, plan.target, 3)[:, 2], expected)


@pytest.mark.parametrize("block", [1, 16, 32])
def test_packing_and_unpacking_give_every_layout_back(level, block):  # noqa: F811
    layout = sc.Layout(channels=19, height=3, width=18, halo=2, block=block)
    whole = torch.randn(2 * 21, 19, 3, 18)
    last = whole[:21].contiguous(memory_format=torch.channels_last)
    for images in (whole[:21], whole[::2], last, last.flip(3), whole[:21].transpose(2, 3).mT):
        packed = sc.pack(images, layout)
        assert packed.shape == layout.shape(21)
        assert torch.equal(sc.unpack(packed, layout, 21), images)
        assert packed.double().sum().item() == pytest.approx(images.double().sum().item(), abs=1e-3)
        assert not packed[:, :, :2].any() and not packed[:, :, :, -2:].any()
        assert not packed.movedim(-1, 1).flatten(0, 1)[21:].any()


def test_the_halo_of_an_output_is_zero(level):  # noqa: F811
    case = Case(LAYERS["3x3"], batch=16, density=0.4)
    plan = sc.plan(case.mask, case.geometry, source_halo=2, target_halo=3)
    case.forward(plan)
    case.backward(plan)
    values = sc.gather(plan, case.weight)
    out = sc.forward(plan, sc.pack(case.images, plan.source), values, bias=case.bias)
    in_grad = sc.input_grad(plan, sc.pack(case.out_grad, plan.target), values)
    for packed, halo in ((out, 3), (in_grad, 2)):
        frame = packed.clone()
        frame[:, :, halo:-halo, halo:-halo] = 0
        assert not frame.any()


@built
@pytest.mark.parametrize("block", [1, 16])
@pytest.mark.parametrize("batch", [1, 40])
def test_results_do_not_depend_on_the_number_of_threads(threads, block, batch):
    case = Case(sc.Geometry(64, 48, (3, 3), 2, (1, 1), 32, 32), batch, density=0.5)
    plan = sc.plan(case.mask, case.geometry, block=block)
    found = []
    for count in (1, 2, 3):
        threads(count)
        images, values = sc.pack(case.images, plan.source), sc.gather(plan, case.weight)
        results = [sc.forward(plan, images, values, bias=case.bias)]
        if block > 1:
            grad = sc.pack(case.out_grad, plan.target)
            results += [sc.input_grad(plan, grad, values), sc.weight_grad(plan, images, grad)]
        found.append([result.clone() for result in results])
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_the_output_may_replace_its_residual():
    case = Case(LAYERS["groups of channels"], batch=16, density=1.0)
    plan = sc.plan(case.mask, case.geometry)
    sums = sc.pack(case.residual, plan.target)
    images, values = sc.pack(case.images, plan.source), sc.gather(plan, case.weight)
    found = sc.forward(plan, images, values, bias=case.bias, residual=sums, out=sums)
    assert found is sums
    expected = case.out + case.residual.double()
    assert_close(sc.unpack(sums, plan.target, 16), expected, "in place")


def test_a_nan_reaches_the_outputs_that_see_it(level):  # noqa: F811
    case = Case(LAYERS["linear"], batch=16, density=1.0)
    plan = sc.plan(case.mask, case.geometry)
    case.images[3, 5] = torch.nan
    images = sc.pack(case.images, plan.source)
    out = sc.forward(plan, images, sc.gather(plan, case.weight), relu=True)
    bad = sc.unpack(out, plan.target, 16).isnan().flatten(1)
    assert bad[3].all()
    assert bad.sum() == 11


def test_no_images_give_no_outputs(level):  # noqa: F811
    case = Case(LAYERS["3x3"], batch=0, density=0.5)
    plan = sc.plan(case.mask, case.geometry)
    case.forward(plan)
    images, grad = sc.pack(case.images, plan.source), sc.pack(case.out_grad, plan.target)
    assert not sc.weight_grad(plan, images, grad).any()


def test_gathering_and_scattering_keep_the_weights():
    case = Case(LAYERS["stride 2"], batch=1, density=0.4)
    plan = sc.plan(case.mask, case.geometry)
    last = case.weight.contiguous(memory_format=torch.channels_last)
    assert plan.kept == int(case.mask.sum())
    assert torch.equal(sc.scatter(plan, sc.gather(plan, last)), case.weight)


def test_what_does_not_fit_is_refused_in_one_sentence():
    case = Case(LAYERS["3x3"], batch=2, density=0.4)
    plan, one = (sc.plan(case.mask, case.geometry, block=block) for block in (16, 1))
    images, values = sc.pack(case.images, plan.source), sc.gather(plan, case.weight)
    narrow = sc.plan(case.mask, case.geometry, target_halo=0)
    grad = sc.pack(case.out_grad, narrow.target)
    tight = sc.pack(case.images, one.source).clone()
    wrong = {
        "block must be 1 or a multiple of 16, got 8": lambda: sc.plan(
            case.mask, case.geometry, block=8
        ),
        "source_halo must be at least 1": lambda: sc.plan(case.mask, case.geometry, source_halo=0),
        "mask must be bool of shape": lambda: sc.plan(case.mask[1:], case.geometry),
        "too large for 32-bit offsets": lambda: sc.plan(
            case.mask, dataclasses.replace(case.geometry, height=9000, width=9000)
        ),
        "no convolution with stride 1": lambda: dataclasses.replace(case.geometry, height=0),
        "images must be float32 of shape": lambda: sc.pack(case.images[:, 1:], plan.source),
        "images must be a contiguous float32": lambda: sc.forward(plan, images[:, 1:], values),
        "16 floats of room behind": lambda: sc.forward(one, tight, values),
        "values must be contiguous float32": lambda: sc.forward(plan, images, values[1:]),
        "weight must have the mask's shape": lambda: sc.gather(plan, case.weight[1:]),
        "bias must be float32 of shape": lambda: sc.forward(
            plan, images, values, bias=case.bias[1:]
        ),
        "out must have the input's 1 blocks": lambda: sc.forward(
            plan, images, values, out=plan.target.framed(17)
        ),
        "gradients need blocks of 16": lambda: sc.weight_grad(one, tight, grad),
        "needs a target_halo of at least 1": lambda: sc.input_grad(narrow, grad, values),
        "batch must be at most the 16 images": lambda: sc.unpack(images, plan.source, 17),
    }
    for message, call in wrong.items():
        with pytest.raises(ValueError, match=message):
            call()
