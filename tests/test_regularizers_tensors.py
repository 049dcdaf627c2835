"""The regularisers over dtypes, layouts, structures, autograd, the compiler and devices."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparsetrain.kernels import regularizer as kernel
from sparsetrain.kernels.order import kth_smallest_magnitude
from sparsetrain.regularizers import L1, L2, HyperSparse, Regularizer
from tests.regularizer_oracles import (
    ALL,
    WAYS,
    Way,
    by_adding,
    by_backward,
    by_sorting,
    gradient,
    layers,
)


@pytest.mark.parametrize("regularizer", ALL, ids=str)
def test_mappings_give_mappings_and_sequences_lists(regularizer: Regularizer) -> None:
    weights = dict(zip("abcd", layers(), strict=True))
    named, listed = regularizer.grad(weights), regularizer.grad(tuple(weights.values()))
    assert type(named) is dict
    assert list(named) == list("abcd")
    assert type(listed) is list
    torch.testing.assert_close(list(named.values()), listed, rtol=0, atol=0)
    grads = {name: torch.zeros_like(w) for name, w in reversed(weights.items())}
    regularizer.add_grad_(weights, grads, 1.0)
    torch.testing.assert_close([grads[name] for name in weights], listed, rtol=0, atol=0)


@pytest.mark.parametrize("regularizer", ALL, ids=str)
def test_weights_and_the_regularizer_are_left_alone(regularizer: Regularizer) -> None:
    weights = layers()
    before = [w.clone() for w in weights]
    by_backward(regularizer, weights)
    by_adding(regularizer, weights)
    regularizer.grad(weights)
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))
    assert isinstance(regularizer, Regularizer)
    assert hash(regularizer) == hash(copy.deepcopy(regularizer))


@WAYS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("regularizer", [HyperSparse(0.9), L1(), L2()], ids=str)
def test_half_precision_is_computed_in_float32_and_rounded_once(
    way: Way, dtype: torch.dtype, regularizer: Regularizer
) -> None:
    weights = layers(dtype=dtype)
    expected = [g.to(dtype) for g in regularizer.grad([w.float() for w in weights])]
    torch.testing.assert_close(way(regularizer, weights), expected, rtol=0, atol=0)
    assert regularizer.loss(weights).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adding_to_half_precision_gradients_rounds_once(dtype: torch.dtype) -> None:
    weights = layers(dtype=dtype)
    start = [torch.randn_like(w) for w in weights]
    expected = [g.float() for g in start]
    HyperSparse(0.9).add_grad_([w.float() for w in weights], expected, 0.3)
    HyperSparse(0.9).add_grad_(weights, start, 0.3)
    torch.testing.assert_close(start, [g.to(dtype) for g in expected], rtol=0, atol=0)


def test_mixed_precision_weights_are_ranked_together() -> None:
    weights = layers(dtype=torch.float64)
    mixed = [weights[0], weights[1].float(), weights[2].bfloat16(), weights[3].half()]
    expected, _, _ = by_sorting(mixed, 0.8)
    for actual in (HyperSparse(0.8).grad(mixed), by_backward(HyperSparse(0.8), mixed)):
        assert [g.dtype for g in actual] == [w.dtype for w in mixed]
        for g, e in zip(actual, expected, strict=True):
            epsilon = torch.finfo(g.dtype).eps
            np.testing.assert_allclose(g.double().numpy(), e, rtol=epsilon, atol=3e-7)
    assert HyperSparse(0.8).loss(mixed).dtype == torch.float64


def views(base: Tensor) -> dict[str, Tensor]:
    """One 4-D tensor in several layouts of memory."""
    wide = torch.zeros(*base.shape[:-1], 2 * base.shape[-1])
    wide[..., ::2] = base
    return {
        "contiguous": base.clone(),
        "channels_last": base.to(memory_format=torch.channels_last),
        "transposed": base.transpose(0, 1).contiguous().transpose(0, 1),
        "gaps": wide[..., ::2],
    }


LAYOUTS = ("contiguous", "channels_last", "transposed", "gaps")


@pytest.mark.parametrize("grad_layout", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("regularizer", ALL, ids=str)
def test_every_layout_of_weight_and_gradient_gives_the_same_values(
    layout: str, grad_layout: str, regularizer: Regularizer, monkeypatch
) -> None:
    monkeypatch.setattr(kernel, "_chunk_length", lambda weights: 37)
    base, start = torch.randn(6, 5, 3, 2), torch.randn(6, 5, 3, 2)
    expected = start + 0.25 * regularizer.grad([base])[0]
    target = views(start)[grad_layout]
    regularizer.add_grad_([views(base)[layout]], [target], 0.25)
    torch.testing.assert_close(target, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("regularizer", ALL, ids=str)
def test_gradients_keep_the_memory_format(regularizer: Regularizer) -> None:
    w = torch.randn(6, 5, 3, 3).to(memory_format=torch.channels_last)
    for way in (by_backward, by_adding, lambda r, x: r.grad(x)):
        assert way(regularizer, [w])[0].stride() == w.stride()


@pytest.mark.parametrize("regularizer", ALL, ids=str)
def test_none_ranks_a_weight_without_moving_it(regularizer: Regularizer) -> None:
    weights = layers()
    expected = regularizer.grad(weights)
    grads = [None, *(torch.zeros_like(w) for w in weights[1:])]
    regularizer.add_grad_(weights, grads, 1.0)
    torch.testing.assert_close(grads[1:], expected[1:], rtol=0, atol=0)


@pytest.mark.parametrize("scale", [2.5, torch.tensor(2.5), -1.0, 0.0])
@pytest.mark.parametrize("regularizer", ALL, ids=str)
def test_scale_multiplies_what_is_added(regularizer: Regularizer, scale) -> None:
    weights = layers()
    grads = [torch.ones_like(w) for w in weights]
    regularizer.add_grad_(weights, grads, scale)
    expected = [1.0 + float(scale) * g for g in regularizer.grad(weights)]
    torch.testing.assert_close(grads, expected, rtol=1e-6, atol=1e-6)


# Autograd


@pytest.mark.parametrize("regularizer", ALL, ids=str)
def test_backward_multiplies_by_the_strength_and_skips_frozen_weights(regularizer) -> None:
    weights = layers()
    leaves = [w.clone().requires_grad_(i != 1) for i, w in enumerate(weights)]
    (3.0 * regularizer.loss(leaves)).backward()
    assert leaves[1].grad is None
    for leaf, expected in zip(leaves, regularizer.grad(weights), strict=True):
        if leaf.grad is not None:
            torch.testing.assert_close(leaf.grad, 3.0 * expected)


def test_loss_adds_to_a_training_loss_under_autocast() -> None:
    model = nn.Linear(4, 3)
    inputs = torch.randn(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        data_loss = model(inputs).float().square().sum()
        loss = data_loss + 0.5 * HyperSparse(0.5).loss([model.weight])
    expected = torch.autograd.grad(data_loss, model.weight, retain_graph=True)[0]
    expected = expected + 0.5 * HyperSparse(0.5).grad([model.weight])[0]
    loss.backward()
    torch.testing.assert_close(model.weight.grad, expected)


def test_loss_without_gradients_keeps_no_graph() -> None:
    weights = [w.requires_grad_() for w in layers()]
    with torch.no_grad():
        assert not L1().loss(weights).requires_grad
    assert not L1().loss([w.detach() for w in weights]).requires_grad
    assert not any(g.requires_grad for g in L1().grad(weights))


def test_weights_changed_before_backward_are_noticed() -> None:
    w = torch.ones(3, requires_grad=True)
    loss = HyperSparse(0.5).loss([w])
    with torch.no_grad():
        w.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("regularizer", ALL, ids=str)
def test_a_compiled_step_keeps_the_regularizer(regularizer: Regularizer) -> None:
    w = layers()[2].requires_grad_()

    def step(x: Tensor) -> None:
        ((w @ x).sum() + 0.5 * regularizer.loss([w])).backward()
        regularizer.add_grad_({"w": w}, {"w": gradient(w)}, 0.25)
        extra = regularizer.grad([w])[0]
        gradient(w).add_(extra)

    step(torch.ones(16))
    expected, w.grad = gradient(w), None
    compiled = torch.compile(step, backend="eager")
    compiled(torch.ones(16))
    torch.testing.assert_close(gradient(w), expected)
    assert float((expected - 1.75 * regularizer.grad([w])[0] - 1).abs().max()) < 1e-5


# Other devices: the same arithmetic in whole tensors, which a CPU can run too


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_device_path_equals_the_cpu_path(sparsity: float, dtype: torch.dtype) -> None:
    weights = layers(dtype=dtype)
    n = sum(w.numel() for w in weights)
    border = kth_smallest_magnitude(weights, int(sparsity * n))
    slope = kernel._slope_on_device(weights, border, 1e38)
    grads = [torch.zeros_like(w) for w in weights]
    kernel._add_on_device_(weights, grads, slope, torch.tensor(0.5))
    expected = by_adding(HyperSparse(sparsity), weights, 0.5)
    epsilon = max(torch.finfo(dtype).eps, 3e-7)
    torch.testing.assert_close(grads, expected, rtol=epsilon, atol=1e-7)


@pytest.mark.parametrize("grads_last", [False, True])
def test_device_path_knows_memory_orders(grads_last: bool) -> None:
    plain = layers()
    weights = [plain[0].to(memory_format=torch.channels_last), plain[1], plain[2].t(), plain[3]]
    layout = torch.channels_last if grads_last else torch.contiguous_format
    grads: list[Tensor | None] = [torch.zeros(w.shape) for w in weights]
    grads[0], grads[3] = torch.zeros(8, 3, 3, 3).to(memory_format=layout), None
    border = kth_smallest_magnitude(weights, sum(w.numel() for w in weights) // 2)
    slope = kernel._slope_on_device(weights, border, 1e38)
    kernel._add_on_device_(weights, grads, slope, 0.5)
    expected = by_adding(HyperSparse(0.5), weights, 0.5)
    for grad, target in zip(grads[:3], expected, strict=False):
        torch.testing.assert_close(grad, target, rtol=3e-7, atol=1e-7)


class _Kernels(TorchDispatchMode):
    """Counts the operations that a GPU would launch a kernel for; views are none."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not func.is_view:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("copies", [1, 10])
def test_a_device_gets_few_kernels_for_any_number_of_layers(copies: int) -> None:
    weights = [
        w.to("meta", memory_format=torch.channels_last if w.dim() == 4 else torch.preserve_format)
        for w in layers() * copies
    ]
    grads = [torch.zeros_like(w) for w in weights]
    with _Kernels() as kernels:
        HyperSparse(0.9).add_grad_(weights, grads, 0.5)
    assert len(kernels.names) <= 40, kernels.names


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-39])
def test_device_path_has_no_nan_at_tiny_borders(value: float) -> None:
    w = torch.tensor([0.0, 0.0, 0.0, value, value, 1.0])
    slope = kernel._slope_on_device([w], torch.tensor(value), torch.finfo(w.dtype).max / 4)
    grad = torch.zeros(6)
    kernel._add_on_device_([w], [grad], slope, 1.0)
    assert torch.isfinite(grad).all()
    assert (grad[3] > 0) == (value > 0)
    assert not grad[:3].any()


def test_device_path_passes_nan_on() -> None:
    w = torch.tensor([0.0, 0.0, 0.0, math.nan])
    grad = torch.zeros(4)
    slope = kernel._slope_on_device([w], torch.tensor(0.0), 1e38)
    kernel._add_on_device_([w], [grad], slope, 1.0)
    assert grad.isnan().any()


@pytest.mark.parametrize("regularizer", ALL, ids=str)
def test_nothing_reads_values_back_from_the_device(regularizer: Regularizer) -> None:
    # A meta tensor has no values: any .item(), float() or branch on data raises.
    weights = [w.to("meta").requires_grad_() for w in layers()]
    grads = [torch.zeros_like(w) for w in weights]
    regularizer.add_grad_(weights, grads, torch.ones((), device="meta"))
    regularizer.add_grad_(weights, grads, 0.5)
    regularizer.loss(weights).backward()
    assert [g.shape for g in regularizer.grad(weights)] == [w.shape for w in weights]
    assert all(w.grad is not None for w in weights)


def test_new_gradients_equal_those_added_to_zeros_and_do_not_overlap() -> None:
    shapes = [(7, 3), (1,), (0,), (4, 3, 5, 5), (33,)]
    weights = [torch.randn(shape) for shape in shapes]
    weights[3] = weights[3].contiguous(memory_format=torch.channels_last)
    grads = HyperSparse(0.5).grad(weights)
    expected = by_adding(HyperSparse(0.5), weights)
    for i, grad in enumerate(grads):
        assert grad.stride() == weights[i].stride()
        torch.testing.assert_close(grad, expected[i], rtol=0, atol=0)
        grad.fill_(i)
    assert all(bool((grad == i).all()) for i, grad in enumerate(grads))
