"""One-shot pruning against a naive NumPy twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sparsetrain as st
from sparsetrain.types import View
from tests.nets import kept, loss_of, mlp


def naive_global(weights: list[np.ndarray], keep: int) -> list[np.ndarray]:
    flat = np.concatenate([np.abs(w).ravel() for w in weights])
    order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
    mask = np.zeros(len(flat), bool)
    mask[order[:keep]] = True
    return [
        m.reshape(w.shape)
        for m, w in zip(
            np.split(mask, np.cumsum([w.size for w in weights])[:-1]), weights, strict=True
        )
    ]


@pytest.mark.parametrize("sparsity", [0.0, 0.29, 0.9, 0.998])
def test_global_magnitude_equals_the_naive_twin(sparsity: float) -> None:
    model = mlp()
    weights = [p.detach().numpy().copy() for p in st.select(model).values()]
    total = sum(w.size for w in weights)
    masks = st.prune(model, sparsity)
    for wanted, mask, weight, p in zip(
        naive_global(weights, st.masks.kept(total, sparsity)),
        masks.values(),
        weights,
        st.select(model).values(),
        strict=True,
    ):
        assert np.array_equal(mask.numpy(), wanted)
        assert np.array_equal(p.detach().numpy(), weight * wanted)


def test_layer_scope_gives_each_layer_the_sparsity_and_the_total_is_exact() -> None:
    masks = st.prune(mlp(), 0.75, scope="layer")
    counts = [int(m.sum()) for m in masks.values()]
    assert counts == [24, 64, 12]


def test_gradient_criteria_need_a_backward_and_say_so() -> None:
    model = mlp()
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match=r"0\.weight"):
        st.prune(model, 0.5, criterion="taylor")
    assert torch.equal(model[0].weight, before)
    loss_of(model).backward()
    masks = st.prune(model, 0.5, criterion="gradient")
    scores = torch.cat([p.grad.abs().flatten() for p in st.select(model).values()])
    flat = torch.cat([m.flatten() for m in masks.values()])
    assert scores[flat].min() >= scores[~flat].max()


def test_a_criterion_may_be_any_function_of_a_view() -> None:
    def first_come(view: View) -> dict[str, torch.Tensor]:
        return {n: torch.zeros_like(w) for n, w in view.weights.items()}

    model = mlp()
    masks = st.prune(model, 0.9, criterion=first_come)
    flat = torch.cat([m.flatten() for m in masks.values()])
    assert flat[: kept(masks)].all()  # ties: the lower flat index stays


def test_random_pruning_depends_on_its_seed_alone() -> None:
    first, second, third = (st.prune(mlp(), 0.5, criterion="random", seed=s) for s in (1, 1, 2))
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not all(torch.equal(first[n], third[n]) for n in first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 90}, r"sparsity must be in \[0, 1\), got 90\. Did you mean 0\.9\?"),
        ({"sparsity": -0.1}, "got -0.1"),
        ({"sparsity": 1.0}, "got 1"),
        ({"sparsity": float("nan")}, "got nan"),
        ({"sparsity": 0.5, "criterion": "size"}, "criterion must be"),
        ({"sparsity": 0.5, "scope": "local"}, "scope must be"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(arguments: dict, message: str) -> None:
    model = mlp()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=message):
        st.prune(model, **arguments)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
