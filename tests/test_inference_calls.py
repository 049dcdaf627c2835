"""Calls of a compiled network that were checked before take a short way; it gives the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import sparsetrain as st
from sparsetrain.inference import CompiledNetwork, compiled

from .inference_nets import Branches, TwoInputs, trained_looking_
from .inference_tools import assert_same


@pytest.fixture(params=["sparse", "dense", "model"])
def pair(request: pytest.FixtureRequest) -> tuple[CompiledNetwork, nn.Module]:
    torch.manual_seed(0)
    model = trained_looking_(Branches(), sparsity=0.6)
    return st.compile_sparse(model, torch.randn(2, 3, 7, 9), choice=request.param), model


def refuses(checked: CompiledNetwork, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the calls that are checked as if they were the first."""
    calls, whole = [], checked._checked

    def counted(*given: object) -> object:
        calls.append(given)
        return whole(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(checked, "_checked", counted)
    return lambda: len(calls)


def test_a_shape_is_checked_once(
    pair: tuple[CompiledNetwork, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, model = pair
    checks = refuses(network, monkeypatch)
    for batch in (3, 9, 3, 9, 3):
        assert_same(network, model, torch.randn(batch, 3, 7, 9))
    assert checks() == 2


def test_what_was_checked_once_is_still_refused_in_another_form(
    pair: tuple[CompiledNetwork, nn.Module],
) -> None:
    network, model = pair
    x = torch.randn(3, 3, 7, 9)
    network(x)
    for wrong in (x.double(), x.to("meta"), x.to_sparse(), x[:, :2], [x]):
        with pytest.raises(ValueError, match="as in the example"):
            network(wrong)
    with pytest.raises(ValueError, match="the model takes"):
        network(x, x)
    assert_same(network, model, x)


def test_inputs_that_want_a_gradient_get_none(pair: tuple[CompiledNetwork, nn.Module]) -> None:
    network, model = pair
    x = torch.randn(3, 3, 7, 9)
    for given in (x, x.clone().requires_grad_(), x):
        found = network(given)
        assert not found.requires_grad
        assert_same(network, model, x)


def test_inputs_of_any_strides_give_their_results_again(
    pair: tuple[CompiledNetwork, nn.Module],
) -> None:
    network, model = pair
    whole = torch.randn(6, 3, 7, 18)
    network(whole[:3, :, :, :9])
    last = whole[:3, :, :, :9].contiguous(memory_format=torch.channels_last)
    for x in (whole[::2, :, :, ::2], last, last.flip(3), whole[:3, :, :, :9]):
        assert_same(network, model, x)


def test_more_shapes_than_are_remembered_give_their_results(
    pair: tuple[CompiledNetwork, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_REMEMBERED", 2)
    network, model = pair
    for batch in (1, 2, 3, 4, 1, 2):
        assert_same(network, model, torch.randn(batch, 3, 7, 9))
    assert len(network._seen) <= 2


def test_options_and_names_are_checked_in_every_call() -> None:
    model = trained_looking_(TwoInputs(), sparsity=0.3)
    example = {"x": torch.randn(3, 3, 5, 5), "y": torch.randn(3, 5), "scale": 2.0}
    network = st.compile_sparse(model, example, choice="sparse")
    for _ in range(2):
        x, y = torch.randn(4, 3, 5, 5), torch.randn(4, 5)
        assert_same(network, model, x, y=y, scale=2.0)
        with pytest.raises(ValueError, match=r"argument 2.0, got 3.0"):
            network(x, y=y, scale=3.0)


def test_kernels_says_what_each_layer_runs_with() -> None:
    model = trained_looking_(Branches(), sparsity=0.6)
    x: Tensor = torch.randn(2, 3, 7, 9)
    names = ["stem", "left", "right", "left", "head"]
    for choice in ("sparse", "dense"):
        network = st.compile_sparse(model, x, choice=choice)
        assert sorted(network.kernels()) == sorted((name, choice) for name in names)
        assert network.kernels(64) == network.kernels()
    with pytest.raises(ValueError, match="at least 1"):
        network.kernels(0)
