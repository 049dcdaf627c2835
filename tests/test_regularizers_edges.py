"""The regularisers at the edges: zeros, denormals, NaN, nothing at all, unsuitable input."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from sparsetrain.regularizers import L1, L2, HyperSparse, Regularizer
from tests.regularizer_oracles import (
    ALL,
    WAYS,
    Way,
)

W10 = (0.5, -0.3, 0.1, -0.05, 0.02, 0.8, -0.01, 0.25, -0.6, 0.04)


@WAYS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_border_of_zero_gives_a_zero_gradient(way: Way, dtype: torch.dtype) -> None:
    w = torch.tensor([0.0] * 6 + [1.0, -2.0, 3.0, 4.0], dtype=dtype)
    (g,) = way(HyperSparse(0.5), [w])
    assert torch.equal(g, torch.zeros_like(w))
    assert float(HyperSparse(0.5).loss([w])) == 0.0


@pytest.mark.parametrize("regularizer", ALL, ids=str)
def test_zero_weights_get_no_gradient(regularizer: Regularizer) -> None:
    weights = [torch.zeros(5), torch.tensor([1.0, -0.0, 2.0, 0.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])]
    grads = regularizer.grad(weights)
    assert torch.equal(grads[0], torch.zeros(5))
    assert grads[1][1] == 0.0
    assert grads[1][3] == 0.0


@pytest.mark.parametrize("border", [1e-45, 1e-42, 1e-39, 1e-37])
def test_denormal_border_gives_finite_gradients(border: float) -> None:
    w = torch.tensor([0.0, border, -border, border, 1.0, 0.0, border, -border])
    grads, loss = HyperSparse(0.5).grad([w]), HyperSparse(0.5).loss([w])
    assert torch.isfinite(grads[0]).all()
    assert torch.equal(grads[0].sign()[:4], w.sign()[:4])
    assert float(loss) == 0.0


def test_huge_weights_are_not_taken_for_infinite() -> None:
    w = torch.tensor(W10, dtype=torch.float64)
    large = (w * 3e38).float()  # the sum of magnitudes overflows float32
    torch.testing.assert_close(
        HyperSparse(0.5).grad([large])[0].double(), HyperSparse(0.5).grad([w])[0], rtol=1e-5, atol=0
    )
    assert torch.equal(L1().grad([large])[0], w.sign().float())
    assert torch.equal(L2().grad([large])[0], (2 * large.double()).float())


def test_one_weight_and_zero_dimensions_work() -> None:
    s = 0.6585 / 0.25
    bend = 1 - math.tanh(0.6585) ** 2
    expected = -s * bend * 0.25 / math.tanh(0.6585)
    for sparsity in (0.0, 0.5, 0.99):
        for w in (torch.tensor(-0.25), torch.tensor([-0.25]), torch.tensor([[[-0.25]]])):
            (g,) = HyperSparse(sparsity).grad([w])
            assert g.shape == w.shape
            assert float(g) == pytest.approx(expected, rel=3e-7)


def test_empty_tensors_among_others_are_allowed() -> None:
    weights = [torch.empty(0, 3), torch.tensor(W10), torch.empty(0)]
    grads = HyperSparse(0.5).grad(weights)
    assert [g.shape for g in grads] == [w.shape for w in weights]
    assert torch.equal(grads[1], HyperSparse(0.5).grad([torch.tensor(W10)])[0])


@pytest.mark.parametrize("regularizer", ALL, ids=str)
@pytest.mark.parametrize("weights", [[], {}, [torch.empty(0)], {"a": torch.empty(2, 0)}], ids=str)
def test_no_weights_are_refused_with_the_next_move(regularizer: Regularizer, weights) -> None:
    for call in (regularizer.loss, regularizer.grad):
        with pytest.raises(ValueError, match=r"at least one value.*select"):
            call(weights)
    with pytest.raises(ValueError, match="at least one value"):
        regularizer.add_grad_(weights, copy.copy(weights), 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("regularizer", ALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_non_finite_weights_are_named_and_leave_the_gradients_alone(
    bad: float, regularizer: Regularizer, dtype: torch.dtype
) -> None:
    weights = {"fine": torch.ones(6, dtype=dtype), "conv.weight": torch.ones(4, dtype=dtype)}
    weights["conv.weight"][2] = bad
    grads = {name: torch.ones_like(w) for name, w in weights.items()}
    with pytest.raises(FloatingPointError, match=r"'conv\.weight'"):
        regularizer.add_grad_(weights, grads, 1.0)
    assert all(torch.equal(g, torch.ones_like(g)) for g in grads.values())
    with pytest.raises(FloatingPointError, match=r"\[1\]"):
        regularizer.loss(list(weights.values()))


def test_only_non_finite_weights_are_reported_too() -> None:
    with pytest.raises(FloatingPointError):
        HyperSparse(0.5).grad([torch.full((4,), math.nan)])
    with pytest.raises(FloatingPointError):
        HyperSparse(0.5).grad([torch.full((4,), math.inf)])


@pytest.mark.parametrize("sparsity", [90, -0.1, 1.0, math.nan, "much", None])
def test_sparsity_outside_zero_and_one_is_refused(sparsity) -> None:
    with pytest.raises(ValueError, match="sparsity"):
        HyperSparse(sparsity)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (torch.ones(3), TypeError, "one tensor"),
        ([torch.ones(3, dtype=torch.int64)], TypeError, r"\[0\].*int64"),
        ({"a": torch.ones(3, dtype=torch.complex64)}, TypeError, r"'a'.*complex64"),
        ([torch.eye(3).to_sparse()], TypeError, "sparse_coo"),
        ([1.0, 2.0], TypeError, "must be a tensor, got float"),
        ([torch.ones(2), torch.ones(2, device="meta")], ValueError, "one device"),
    ],
)
def test_unsuitable_weights_are_refused(weights, error, message) -> None:
    with pytest.raises(error, match=message):
        HyperSparse(0.5).grad(weights)


@pytest.mark.parametrize(
    ("weights", "grads", "message"),
    [
        ([torch.ones(3)], [torch.ones(1)], "shape"),
        ([torch.ones(3)], [], "one entry"),
        ({"a": torch.ones(3)}, {"b": torch.ones(3)}, "'a'"),
        ({"a": torch.ones(3)}, {"a": torch.ones(3), "b": None}, "one entry"),
        ({"a": torch.ones(3)}, [torch.ones(3)], "mapping"),
        ([torch.ones(3)], [torch.ones(3, device="meta")], "device"),
    ],
)
def test_gradients_that_do_not_match_are_refused(weights, grads, message) -> None:
    with pytest.raises(ValueError, match=message):
        L1().add_grad_(weights, grads, 1.0)
