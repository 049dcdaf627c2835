"""Odd networks, options and gradients: counts stay exact, zeros stay zero, errors are clear."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as hs
from torch import Tensor, nn

import sparsetrain as st
from sparsetrain.optimizers import same_shaped_state
from tests.nets import OPTIMIZERS, kept, loss_of, mlp, train

GROWING = ["set", "snfs", "rigl", "itop", "granet"]
SHAPES = [
    (1, 1),
    (3, 4),
    (7, 2),
    (2, 3, 3, 3),
    (1, 1, 1, 1),
    (8, 4, 1, 1),
    (2, 2, 3),
    (1, 9),
    (0, 3),
]
SPARSITIES = [0, 0.0, 0.07, 0.29, 1 / 3, 0.5, 0.9, 0.98, 0.998]


class Weights(nn.Module):
    """Bare weights of odd shapes; a layer of zero scale has a gradient of zeros."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.layers = nn.ParameterList()
        for _ in range(rng.randint(1, 4)):
            shape = rng.choice(SHAPES)
            weight = {
                "normal": lambda s: torch.randn(s),
                "zero": torch.zeros,
                "equal": lambda s: torch.full(s, 0.5),
                "tied": lambda s: torch.randint(-2, 3, s).float(),
            }[rng.choice(["normal", "normal", "zero", "equal", "tied"])](shape)
            if len(shape) == 4 and rng.random() < 0.5:
                weight = weight.to(memory_format=torch.channels_last)
            if len(shape) == 2 and rng.random() < 0.3:
                weight = weight.t().contiguous().t()
            self.layers.append(nn.Parameter(weight))
        self.scales = [rng.choice([0.0, 1.0, 1.0, 1.0]) for _ in self.layers]

    def loss(self) -> Tensor:
        pulls = [((w - 1) ** 2 * (torch.arange(w.numel()).view(w.shape) % 3)) for w in self.layers]
        return sum(p.float().sum() * s for p, s in zip(pulls, self.scales, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class Plan:
    name: str
    sparsity: float
    total: int
    options: dict[str, Any]

    @classmethod
    def draw(cls, rng: random.Random) -> Plan:
        name = rng.choice([*GROWING, "gmp", "magnitude", "static"])
        sparsity, total = rng.choice(SPARSITIES), rng.choice([1, 2, 5, 9])
        options: dict[str, Any] = {}
        if name in GROWING:
            options |= {
                "drop": rng.choice(["magnitude", "set", "threshold", "taylor"]),
                "growth": rng.choice(["gradient", "random", "momentum", "random-unfired"]),
                "redistribution": rng.choice(["none", "magnitude", "momentum", "nonzeros"]),
                "drop_fraction": rng.choice([0, 0.0, 0.3, 0.5, 1.0, 1]),
                "revive": rng.choice([True, False]),
            }
            if options["drop"] == "threshold":
                options["threshold"] = rng.choice([0.0, 0.5, 100.0])
        if name in GROWING or name == "gmp":
            start, stop = sorted(rng.choices(range(total + 1), k=2))
            every = rng.choice([1, 1, 2, 3, 100])
            options |= {"update_every": every, "start": start, "stop": stop}
        first = sparsity
        if name in ("gmp", "granet"):
            first = rng.choice([0.0, sparsity, sparsity / 2])
            options |= {"initial_sparsity": first, "scope": rng.choice(["global", "layer"])}
        if name == "granet":
            options["regrow_until"] = rng.randint(options["start"], total)
            options |= {"redistribution": "none"} if options["scope"] == "layer" else {}
        if name == "gmp" and options["scope"] == "layer":
            options["classifier_sparsity"] = rng.choice([None, 0.0, 0.5, 0.8, 1.0])
        if name in GROWING or name == "gmp":
            if first > 0:
                options["distribution"] = rng.choice(["uniform", "er", "erk"])
                options["start_mask"] = rng.choice(["random", "pruned"])
        elif name == "magnitude":
            options = {"scope": rng.choice(["global", "layer"]), "at": rng.randint(0, total)}
        return cls(name, sparsity, total, options)

    def kept(self, method: Any, n: int, step: int) -> int:
        if self.name in ("gmp", "granet"):
            last = max((s for s in range(1, step + 1) if method.when(s)), default=0)
            return st.masks.kept(n, method.sparsity_at(last))
        if self.name == "magnitude" and step < self.options["at"]:
            return n
        return st.masks.kept(n, self.sparsity)


def check(seed: int, optimizer: str, dtype: torch.dtype) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    model, plan = Weights(rng).to(dtype), Plan.draw(rng)
    n = sum(p.numel() for p in model.parameters())
    if n == 0:
        return
    method = st.methods.create(
        plan.name, sparsity=plan.sparsity, total_steps=plan.total, **plan.options
    )
    opt = OPTIMIZERS[optimizer](model)
    names = [name for name, _ in model.named_parameters()]
    sparsifier = st.Sparsifier(model, opt, method, seed=seed, include=names)
    for step in range(plan.total + 3):  # beyond the end, too
        assert kept(sparsifier.masks) == plan.kept(method, n, step), (plan, step)
        for name, p in model.named_parameters():
            pruned = ~sparsifier.masks[name]
            assert p.dtype is dtype
            assert not p[pruned].any()
            assert all(not value[pruned].any() for value in same_shaped_state(opt, p).values())
        opt.zero_grad()
        model.loss().backward()
        opt.step()


ANY = {
    "seed": hs.integers(0, 10**9),
    "optimizer": hs.sampled_from(["sgd", "nesterov", "adam", "rprop", "adagrad"]),
    "dtype": hs.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float64]),
}


def test_counts_are_exact_with_any_options_on_any_layers() -> None:
    settings(max_examples=40, deadline=None)(given(**ANY)(check))()


@pytest.mark.slow
def test_counts_are_exact_with_any_options_on_any_layers_in_many_cases() -> None:
    settings(max_examples=3000, deadline=None)(given(**ANY)(check))()


def updated(method: st.Method, grads: Tensor | None, steps: int = 3) -> st.Sparsifier:
    """An MLP trained with gradients that are all replaced by `grads`."""
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, method)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, seed=step).backward()
        for p in model.parameters():
            p.grad = None if grads is None else torch.full_like(p, float(grads))
        optimizer.step()
    return sparsifier


@pytest.mark.parametrize("name", GROWING)
def test_gradients_of_zeros_lose_no_weight(name: str) -> None:
    method = st.methods.create(name, sparsity=0.9, total_steps=3, update_every=1)
    sparsifier = updated(method, torch.tensor(0.0))
    assert kept(sparsifier.masks) == 40


@pytest.mark.parametrize("name", ["rigl", "itop", "granet", "snfs"])
def test_a_nan_gradient_is_an_error_that_says_so(name: str) -> None:
    method = st.methods.create(name, sparsity=0.9, total_steps=3, update_every=1)
    with pytest.raises((ValueError, FloatingPointError), match=r"NaN.*0\.weight"):
        updated(method, torch.tensor(torch.nan))


@pytest.mark.parametrize("name", ["rigl", "itop", "granet"])
def test_growth_by_gradient_names_a_layer_that_has_none(name: str) -> None:
    model = nn.ModuleDict({"used": mlp(), "unused": nn.Linear(4, 4)})
    optimizer = OPTIMIZERS["sgd"](model)
    method = st.methods.create(name, sparsity=0.5, total_steps=9, update_every=1)
    st.Sparsifier(model, optimizer, method)
    loss_of(model["used"]).backward()
    with pytest.raises(ValueError, match=r"no gradient for unused\.weight"):
        optimizer.step()


@pytest.mark.parametrize("name", ["set", "snfs", "gmp", "magnitude", "static"])
def test_methods_that_need_no_gradient_train_beside_a_layer_without_one(name: str) -> None:
    model = nn.ModuleDict({"used": mlp(), "unused": nn.Linear(4, 4)})
    optimizer = OPTIMIZERS["sgd"](model)
    method = st.methods.create(name, sparsity=0.5, total_steps=3)
    sparsifier = st.Sparsifier(model, optimizer, method)
    train(model["used"], optimizer, 3)
    assert kept(sparsifier.masks) == 208


def test_layers_that_erk_fills_stay_full_and_keep_their_values() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 60), nn.Linear(60, 60))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    method = st.methods.rigl(0.8, 4, update_every=1, stop=1.0, drop_fraction=1.0)
    sparsifier = st.Sparsifier(model, optimizer, method)
    first = model[0].weight.detach().clone()
    assert bool(sparsifier.masks["0.weight"].all())
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(8, 2)).square().mean().backward()
        optimizer.step()
        assert bool(sparsifier.masks["0.weight"].all())
    # Dropped and regrown in one update: it is never set back to zero.
    assert (model[0].weight.detach() - first).abs().max() < 0.1


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_equal_weights_keep_the_lower_index(scope: str) -> None:
    model = nn.ModuleDict({"a": nn.Linear(5, 4, bias=False), "b": nn.Linear(5, 4, bias=False)})
    for p in model.parameters():
        nn.init.constant_(p, 0.5)
    masks = st.prune(model, 0.29, scope=scope)  # type: ignore[arg-type]
    flat = torch.cat([m.flatten() for m in masks.values()]).tolist()
    wanted = [True] * 29 + [False] * 11
    if scope == "layer":
        wanted = [True] * 15 + [False] * 5 + [True] * 14 + [False] * 6
    assert flat == wanted


@pytest.mark.parametrize("name", ["rigl", "granet", "gmp", "snfs"])
def test_the_memory_format_changes_no_mask(name: str) -> None:
    def run(memory_format: torch.memory_format) -> list[list[bool]]:
        torch.manual_seed(0)
        # Doubles, because convolutions add up in another order in another format.
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).double()
        model = model.to(memory_format=memory_format)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        method = st.methods.create(name, sparsity=0.7, total_steps=4, update_every=1)
        sparsifier = st.Sparsifier(model, optimizer, method)
        for step in range(4):
            x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step)).double()
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return [mask.flatten().tolist() for mask in sparsifier.masks.values()]

    assert run(torch.contiguous_format) == run(torch.channels_last)


def test_granet_from_its_own_target_holds_the_count() -> None:
    method = st.methods.granet(0.9, 6, update_every=1, initial_sparsity=0.9)
    assert {method.sparsity_at(step) for step in range(7)} == {0.9}
    assert kept(updated(method, torch.tensor(0.1), steps=6).masks) == 40


@pytest.mark.parametrize("name", [*GROWING, "gmp", "magnitude", "static"])
@pytest.mark.parametrize("number", [np.float32(0.29), np.float64(0.29), torch.tensor(0.29)])
def test_sparsity_may_be_a_number_of_numpy_or_torch(name: str, number: Any) -> None:
    method = st.methods.create(name, sparsity=number, total_steps=3)
    assert kept(updated(method, torch.tensor(0.1)).masks) == 400 - 116


@pytest.mark.parametrize("name", [*GROWING, "gmp", "magnitude", "static"])
def test_no_sparsity_is_dense_training(name: str) -> None:
    model, plain = mlp(), mlp()
    optimizer, other = OPTIMIZERS["sgd"](model), OPTIMIZERS["sgd"](plain)
    sparsifier = st.Sparsifier(
        model, optimizer, st.methods.create(name, sparsity=0.0, total_steps=4)
    )
    train(model, optimizer, 4)
    train(plain, other, 4)
    assert sparsifier.sparsity == 0
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q)


def test_phases_at_no_sparsity_end_dense() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    imp = st.IMP(model, optimizer, sparsity=0.0, epochs_per_round=2)
    train(model, optimizer, 2)
    imp.epoch_end()
    imp.epoch_end()
    assert (imp.phase, imp.sparsity) == ("done", 0.0)
    imp.finalize()
    epochs = {"dense_epochs": 1, "finetune_epochs": 1, "max_regularize_epochs": 3}
    art = st.ART(model, optimizer, sparsity=0.0, **epochs)
    for _ in range(5):
        train(model, optimizer, 1)
        art.epoch_end(0.5, lambda _: 0.5)
    assert (art.phase, art.sparsity) == ("done", 0.0)


def test_tickets_of_zero_weights_stay_nested_and_exact() -> None:
    # A pruned weight scores less than an active one that is zero, whatever its index.
    model = nn.ModuleDict({"a": nn.Linear(6, 5, bias=False), "b": nn.Linear(6, 5, bias=False)})
    with torch.no_grad():
        model["a"].weight.copy_(torch.arange(30.0).view(5, 6) % 2)
        model["b"].weight.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    imp = st.IMP(model, optimizer, sparsity=0.9, epochs_per_round=1, fraction=0.5)
    counts = []
    for swapped in (False, True, True, True):
        # Zeros move to the front, so that the lower index is no longer the active one.
        before = {n: mask.clone() for n, mask in imp.masks.items()}
        with torch.no_grad():
            model["a"].weight.copy_(model["a"].weight.flip(1) if swapped else model["a"].weight)
        imp.epoch_end()
        assert not any((imp.masks[n] & ~mask).any() for n, mask in before.items())
        counts.append(kept(imp.masks))
    assert counts == [30, 15, 8, 6]
