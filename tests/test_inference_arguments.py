"""Wrapped models, and arguments in every form that Python has for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import sparsetrain as st

from .inference_nets import trained_looking_
from .inference_tools import assert_same


def linear() -> nn.Module:
    return trained_looking_(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), 0.5)


class Passes(nn.Module):
    """Hands on whatever it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear()

    def forward(self, *xs: Tensor, **named: Tensor) -> Any:
        return [self.net(x) for x in xs] + [self.net(named[name]) for name in sorted(named)]


class Options(nn.Module):
    """Optional arguments of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear()

    def forward(
        self, x: Tensor, twice: bool = False, extra: Tensor | None = None, *, scale: float = 1.0
    ) -> Tensor:
        y = self.net(x) * (2 if twice is True else scale)
        return y if extra is None else y + extra


def compiled_by_torch(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [AveragedModel, nn.DataParallel, compiled_by_torch])
def test_wrapped_models_are_looked_through(wrap: Any) -> None:
    model = linear()
    wrapped = wrap(model)
    masks = {name: torch.rand_like(weight) < 0.5 for name, weight in st.select(wrapped).items()}
    compiled = st.compile_sparse(wrapped, torch.randn(4, 8), choice="sparse")
    for network in (compiled, compiled.updated(wrapped)):
        for batch in (1, 4, 9):
            assert_same(network, model, torch.randn(batch, 8))
    masked = compiled.updated(wrapped, masks)
    with torch.no_grad():
        for name, weight in st.select(wrapped).items():
            weight.mul_(masks[name])
    assert_same(masked, wrapped.module if wrap is AveragedModel else model, torch.randn(3, 8))


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_arguments_may_be_handed_on(count: int) -> None:
    model = Passes()
    compiled = st.compile_sparse(model, tuple(torch.randn(4, 8) for _ in range(count)))
    for batch in (1, 4, 9):
        assert_same(compiled, model, *(torch.randn(batch, 8) for _ in range(count)))
    with pytest.raises(ValueError, match="another structure"):
        compiled(*[torch.randn(4, 8)] * (count + 1))


def test_any_names_may_be_handed_on() -> None:
    model = Passes()
    compiled = st.compile_sparse(model, {"b": torch.randn(4, 8), "a": torch.randn(4, 8)})
    for batch in (1, 4, 9):
        assert_same(compiled, model, b=torch.randn(batch, 8), a=torch.randn(batch, 8))
    assert "forward" not in vars(model)
    with pytest.raises(ValueError, match="another structure"):
        compiled(b=torch.randn(4, 8))


def test_defaults_may_be_given_or_left_out() -> None:
    model, x = Options(), torch.randn(4, 8)
    brief = st.compile_sparse(model, x, choice="sparse")
    full = st.compile_sparse(model, {"x": x, "scale": 1.0, "extra": None}, choice="sparse")
    for compiled in (brief, full):
        for call in ((x,), (x, False), (x, False, None)):
            assert_same(compiled, model, *call)
        assert_same(compiled, model, x, scale=1.0)
        for wrong in ((x, True), (x, 0), (x, False, x)):
            with pytest.raises(ValueError, match="compiled for"):
                compiled(*wrong)


def test_an_argument_of_another_type_is_another_argument() -> None:
    model, x = Options(), torch.randn(4, 8)
    compiled = st.compile_sparse(model, (x, True), choice="sparse")
    assert_same(compiled, model, x, True)
    with pytest.raises(ValueError, match="for the argument True, got 1"):
        compiled(x, 1)
