"""Sparse compute beside other uses of autograd: custom functions, checkpointing, saved tensors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import sparsetrain as st


class Rounded(torch.autograd.Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x * 8) / 8

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore
        return grad


class Product(torch.autograd.Function):
    """A linear layer with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.nn.functional.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        x, weight = ctx.saved_tensors
        return grad @ weight, grad.T @ x


class Custom(nn.Module):
    def __init__(self, *, dense: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(20, 30), nn.Linear(30, 5, bias=False)
        self.dense = dense

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = Rounded.apply(x.clone() if self.dense else x)  # pyright: ignore
        return Product.apply(x, self.second.weight)  # pyright: ignore


def conv_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3),
    )  # fmt: skip


def sparse(model: nn.Module) -> tuple[st.Sparsifier, st.SparseCompute]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
    return engine, st.SparseCompute(engine, mode="sparse")


def assert_same_gradients(model: nn.Module, expected: nn.Module, engine: st.Sparsifier) -> None:
    theirs = dict(expected.named_parameters())
    for name, parameter in model.named_parameters():
        kept = engine.masks.get(name, torch.tensor(True))
        grads = parameter.grad, theirs[name].grad
        assert grads[0] is not None, name
        assert grads[1] is not None
        torch.testing.assert_close(grads[0] * kept, grads[1] * kept, rtol=1e-4, atol=1e-5)


def test_a_custom_function_that_takes_packed_activations_is_refused() -> None:
    model = Custom(dense=False)
    _, compute = sparse(model)
    with compute:
        loss = model(torch.randn(8, 20)).square().mean()
    with pytest.raises(RuntimeError, match=r"Give it an ordinary tensor.*x\.clone\(\)"):
        loss.backward()


def test_a_custom_function_of_ordinary_tensors_has_its_gradient() -> None:
    model, x = Custom(dense=True), torch.randn(8, 20)
    engine, compute = sparse(model)
    expected = copy.deepcopy(model)
    with compute:
        loss = model(x).square().mean()
    loss.backward()
    expected(x).square().mean().backward()
    assert_same_gradients(model, expected, engine)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("start", [0, 2, 5])
def test_checkpointed_regions_have_their_gradients(
    reentrant: bool, inside: bool, start: int
) -> None:
    torch.manual_seed(0)
    model, x = conv_net(), torch.randn(6, 3, 12, 12, requires_grad=True)
    engine, compute = sparse(model)
    expected = copy.deepcopy(model)

    def loss_of(net: nn.Sequential) -> Tensor:
        x_ = net[:start](x) if start else x
        # Reentrant checkpointing is a custom function itself.
        x_ = x_.clone() if reentrant else x_
        return checkpoint(net[start:], x_, use_reentrant=reentrant).square().mean()  # pyright: ignore

    with compute:
        loss = loss_of(model)
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    loss_of(expected).backward()
    assert_same_gradients(model, expected, engine)


def test_sequential_checkpoints_follow_each_other() -> None:
    torch.manual_seed(0)
    model, x = conv_net(), torch.randn(6, 3, 12, 12)
    engine, compute = sparse(model)
    expected = copy.deepcopy(model)
    with compute:
        loss = checkpoint_sequential(model, 3, x, use_reentrant=False).square().mean()
    loss.backward()
    expected(x).square().mean().backward()
    assert_same_gradients(model, expected, engine)


def test_saved_tensors_may_be_kept_elsewhere() -> None:
    torch.manual_seed(0)
    model, x = conv_net(), torch.randn(6, 3, 12, 12)
    engine, compute = sparse(model)
    expected = copy.deepcopy(model)
    with compute, torch.autograd.graph.save_on_cpu():
        loss = model(x).square().mean()
    loss.backward()
    expected(x).square().mean().backward()
    assert_same_gradients(model, expected, engine)
