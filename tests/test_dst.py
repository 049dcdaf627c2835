"""Drop and grow: what holds for every combination of parts."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sparsetrain as st
from sparsetrain.types import View
from tests.nets import OPTIMIZERS, kept, mlp, train
from tests.oracles.cases import moved, regrow


def sparsified(method: st.Method, optimizer: str = "sgd") -> tuple[st.Sparsifier, nn.Module]:
    model = mlp()
    opt = OPTIMIZERS[optimizer](model)
    sparsifier = st.Sparsifier(model, opt, method)
    train(model, opt, 6)
    return sparsifier, model


@pytest.mark.parametrize(
    ("drop", "growth", "redistribution"),
    list(
        itertools.product(
            ["magnitude", "set", "threshold", "taylor"],
            ["gradient", "random", "momentum", "random-unfired"],
            ["none", "magnitude", "momentum", "nonzeros"],
        )
    ),
)
def test_every_combination_of_parts_keeps_the_total_exactly(
    drop: str, growth: str, redistribution: str
) -> None:
    options = {"drop": drop, "growth": growth, "redistribution": redistribution}
    options |= {"threshold": 0.1} if drop == "threshold" else {}
    for name in ("snfs", "granet"):
        method = st.methods.create(name, sparsity=0.8, total_steps=6, update_every=2, **options)
        sparsifier, model = sparsified(method, "adam")
        assert kept(sparsifier.masks) == st.masks.kept(400, 0.8)
        for layer, p in st.select(model).items():
            assert not p[~sparsifier.masks[layer]].any()


@pytest.mark.parametrize("name", ["set", "rigl", "itop"])
def test_without_redistribution_each_layer_keeps_its_count(name: str) -> None:
    method = st.methods.create(name, sparsity=0.8, total_steps=6, update_every=1)
    sparsifier, model = sparsified(method)
    shapes = {n: tuple(p.shape) for n, p in st.select(model).items()}
    distribution = st.distributions.er if name == "set" else st.distributions.erk
    assert st.masks.count_active(sparsifier.masks) == distribution(shapes, 0.8)


def test_a_threshold_drops_every_weight_that_is_no_larger() -> None:
    # |w| <= 0.15: 2, 3 and 9 go; 2, 10 and 6 have the largest gradients outside what is kept.
    method = regrow(0.5, drop="threshold", threshold=0.15)
    assert moved(method) == "111010101011"


def test_growth_by_momentum_reaches_places_outside_the_mask() -> None:
    # Published momentum growth reads the masked buffer and regrows exactly what was dropped.
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    method = st.methods.snfs(0.8, 6, update_every=3, drop_fraction=0.8, redistribution="none")
    sparsifier = st.Sparsifier(model, optimizer, method)
    before = {n: mask.clone() for n, mask in sparsifier.masks.items()}
    average = {n: np.zeros(mask.shape) for n, mask in before.items()}
    for step in range(3):
        train(model, optimizer, 1, start=step)
        for n, p in st.select(model).items():
            assert p.grad is not None
            average[n] = 0.9 * average[n] + 0.1 * p.grad.numpy()
    memory = sparsifier.state_dict()["memory"]["momentum"]
    for n, value in average.items():
        np.testing.assert_allclose(memory[n].numpy(), value, rtol=1e-4, atol=1e-7)
        grown = sparsifier.masks[n] & ~before[n]
        stayed_out = ~sparsifier.masks[n]
        assert grown.any()
        assert np.abs(value)[grown.numpy()].min() >= np.abs(value)[stayed_out.numpy()].max()


def test_random_unfired_growth_tries_every_place_before_any_again() -> None:
    masks = {"w": torch.arange(20) < 4}
    method = st.methods.set(0.8, 10, growth="random-unfired", drop_fraction=0.5)
    view = View(1, {"w": torch.rand(20)}, {}, {}, torch.Generator().manual_seed(0))
    memory = method._regrow.memory(masks)
    fired = []
    for _ in range(10):
        masks, memory = method.update(view, masks, memory)
        fired.append(int(memory["fired"]["w"].sum()))
    assert fired == [6, 8, 10, 12, 14, 16, 18, 20, 20, 20]


@pytest.mark.parametrize("growth", ["random", "momentum", "random-unfired"])
def test_what_growth_remembers_is_resumed(growth: str) -> None:
    method = st.methods.granet(0.8, 8, update_every=1, growth=growth)  # type: ignore[arg-type]
    model = mlp()
    optimizer = OPTIMIZERS["adam"](model)
    sparsifier = st.Sparsifier(model, optimizer, method)
    train(model, optimizer, 4)
    state = [copy.deepcopy(part.state_dict()) for part in (model, optimizer, sparsifier)]
    train(model, optimizer, 4, start=4)
    again = mlp(seed=1)
    optimizer = OPTIMIZERS["adam"](again)
    resumed = st.Sparsifier(again, optimizer, method, seed=5)
    for part, saved in zip((again, optimizer, resumed), state, strict=True):
        part.load_state_dict(saved)
    train(again, optimizer, 4, start=4)
    assert all(torch.equal(resumed.masks[n], mask) for n, mask in sparsifier.masks.items())
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_random_growth_is_the_engine_generators_and_no_other() -> None:
    def run(noise: int) -> dict[str, Tensor]:
        model = mlp()
        optimizer = OPTIMIZERS["sgd"](model)
        sparsifier = st.Sparsifier(model, optimizer, st.methods.set(0.8, 6), seed=7)
        for step in range(6):
            torch.manual_seed(noise + step)
            train(model, optimizer, 1, start=step)
        return sparsifier.masks

    first, second = run(1), run(100)
    assert all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("every", [1, 2, 3, 5, 7])
def test_the_target_is_reached_at_stop_whatever_the_interval(every: int) -> None:
    for name in ("granet", "gmp"):
        model = mlp()
        optimizer = OPTIMIZERS["sgd"](model)
        method = st.methods.create(name, sparsity=0.9, total_steps=9, update_every=every, stop=4)
        sparsifier = st.Sparsifier(model, optimizer, method)
        train(model, optimizer, 4)
        assert kept(sparsifier.masks) == st.masks.kept(400, 0.9)


def test_masks_of_gmp_are_nested() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    for scope in ("global", "layer"):
        sparsifier = st.Sparsifier(model, optimizer, st.methods.gmp(0.9, 8, scope=scope))
        for step in range(8):
            before = {n: mask.clone() for n, mask in sparsifier.masks.items()}
            train(model, optimizer, 1, start=step)
            assert not any((sparsifier.masks[n] & ~before[n]).any() for n in before)
        sparsifier.finalize()


def test_layer_scope_densifies_no_layer_that_is_sparser_already() -> None:
    # The published code turns such layers dense: 50 % sparsity becomes 25 % at its first update.
    weights = {"small": torch.rand(10, 10), "large": torch.rand(100, 100)}
    view = View(0, weights, {n: w.clone() for n, w in weights.items()}, {}, torch.Generator())
    method = st.methods.granet(0.9, 100, scope="layer", update_every=1)
    masks, memory = method.init(view)
    before = st.masks.count_active(masks)
    assert before["small"] > 50 > before["large"] / 200
    for step in range(1, 51):
        view = View(step, weights, view.grads, {}, view.generator)
        masks, memory = method.update(view, masks, memory)
        now = st.masks.count_active(masks)
        assert sum(now.values()) == st.masks.kept(10_100, method.sparsity_at(step))
        assert all(now[n] <= before[n] for n in now)
        before = now
    assert before == {"small": 10, "large": 1000}


def test_a_single_layer_is_its_own_classifier_and_still_exact() -> None:
    view = View(9, {"head": torch.rand(5, 10)}, {}, {}, torch.Generator())
    method = st.methods.gmp(0.9, 10, stop=9, scope="layer", classifier_sparsity=0.8)
    masks, _ = method.update(view, {"head": torch.ones(5, 10, dtype=torch.bool)}, {})
    assert kept(masks) == 5


def test_a_pruned_start_keeps_the_largest_weights_of_each_layer() -> None:
    model = mlp()
    first = {n: p.detach().abs() for n, p in st.select(model).items()}
    first = {n: w.clone() for n, w in first.items()}
    method = st.methods.rigl(0.8, 10, start_mask="pruned", distribution="uniform")
    sparsifier = st.Sparsifier(model, OPTIMIZERS["sgd"](model), method)
    for n, mask in sparsifier.masks.items():
        assert first[n][mask].min() >= first[n][~mask].max()
    assert kept(sparsifier.masks) == st.masks.kept(400, 0.8)
