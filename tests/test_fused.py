"""The fused optimizers of a run: torch's own steps and state, in any memory order."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from sparsetrain.training.fused import FusedAdam, FusedAdamW, FusedSGD, as_it_lies

SHAPES = [(8, 4, 3, 3), (6, 8), (5,), (4, 4, 1, 1), (4, 1, 3, 3), ()]
KINDS: list[tuple[type[Optimizer], type[Optimizer], dict[str, Any]]] = [
    (SGD, FusedSGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    (SGD, FusedSGD, {"momentum": 0.9}),
    (SGD, FusedSGD, {}),
    (Adam, FusedAdam, {"weight_decay": 1e-3}),
    (AdamW, FusedAdamW, {"amsgrad": True}),
]
close = partial(torch.testing.assert_close, rtol=2e-6, atol=1e-6)


def in_order(tensor: Tensor, order: str) -> Tensor:
    last = order == "last" and tensor.ndim == 4
    return tensor.contiguous(memory_format=torch.channels_last) if last else tensor.contiguous()


def both(
    kinds: tuple[type[Optimizer], type[Optimizer], dict[str, Any]], order: str
) -> tuple[list[nn.Parameter], list[nn.Parameter], Any, Any]:
    plain, quick, options = kinds
    torch.manual_seed(0)
    first = [nn.Parameter(in_order(torch.randn(shape), order)) for shape in SHAPES]
    second = [nn.Parameter(p.detach().clone()) for p in first]
    return first, second, plain(first, lr=0.1, **options), quick(second, lr=0.1, **options)  # type: ignore[call-arg]


@pytest.mark.parametrize("order", ["last", "rows"])
@pytest.mark.parametrize("of_gradient", ["last", "rows"])
@pytest.mark.parametrize("kinds", KINDS)
def test_steps_are_torchs_whatever_the_memory_order(
    kinds: tuple[type[Optimizer], type[Optimizer], dict[str, Any]], order: str, of_gradient: str
) -> None:
    first, second, plain, quick = both(kinds, order)
    for step in range(4):
        for p, q in zip(first, second, strict=True):
            grad = None if step == 0 and p.ndim == 2 else torch.randn(p.shape)
            p.grad = grad
            q.grad = None if grad is None else in_order(grad, of_gradient)
        plain.step()
        quick.step()
        for p, q in zip(first, second, strict=True):
            close(q, p)
    for p, q in zip(first, second, strict=True):
        assert plain.state[p].keys() == quick.state[q].keys()
        for key, value in plain.state[p].items():
            if isinstance(value, Tensor):
                close(quick.state[q][key], value)
    assert len(quick.state) <= len(SHAPES)  # no state under a view


@pytest.mark.parametrize("kinds", KINDS)
def test_state_goes_both_ways(
    kinds: tuple[type[Optimizer], type[Optimizer], dict[str, Any]],
) -> None:
    first, second, plain, quick = both(kinds, "last")
    for source, other in ((plain, quick), (quick, plain)):
        for p, q in zip(first, second, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        source.step()
        pairs = zip(first, second, strict=True)
        with torch.no_grad():
            for p, q in pairs:
                q.copy_(p) if source is plain else p.copy_(q)
        state = copy.deepcopy(source.state_dict()["state"])  # loading copies no tensor
        other.load_state_dict({**other.state_dict(), "state": state})
    for p, q in zip(first, second, strict=True):
        p.grad = torch.randn(p.shape)
        q.grad = p.grad.clone()
    plain.step()
    quick.step()
    for p, q in zip(first, second, strict=True):
        close(q, p)


def test_closures_and_hooks_work() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = FusedSGD([weight], lr=0.5)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 3.0
    assert weight.tolist() == [0.5] * 3
    assert seen == ["before", "after"]


def test_a_view_shares_memory_and_a_step_copies_nothing() -> None:
    weight = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    view = as_it_lies(weight, weight)
    assert view.is_contiguous()
    assert view.data_ptr() == weight.data_ptr()
    assert as_it_lies(torch.tensor(1.0), weight).ndim == 0  # Adam's step count
