"""Starts: dense, random, pruned, pruned and regrown; distributions as functions; in a run too."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import sparsetrain as st
from sparsetrain.methods.start import fresh_weights, start_masks
from sparsetrain.types import View
from tests.nets import kept, loss_of, mlp
from tests.oracles import dst
from tests.oracles.cases import A, B, G, bits, grid

# The two layers of the published one-shot cases; 8 of 12 and 5 of 6 are not zero.
WEIGHTS = {"a": grid(A), "b": torch.tensor(B).view(2, 3)}
GRADS = {"a": grid(G), "b": torch.tensor([1, -2, 0.5, 0.1, 0.2, 0.3]).view(2, 3)}
SHARES = st.distributions.given({"a": 8 / 12, "b": 5 / 6})
SPARSITY = 5 / 18

STARTERS = ["static", "gmp", "set", "rigl", "itop", "granet"]


def view_of(weights: dict[str, torch.Tensor], grads: dict[str, torch.Tensor]) -> View:
    return View(0, weights, grads, {}, torch.Generator().manual_seed(0))


def starting(name: str, sparsity: float, start_mask: str, **options: object) -> st.Method:
    """A method that holds this sparsity at step 0."""
    options |= {"start_mask": start_mask}
    if name in ("gmp", "granet"):
        options |= {"initial_sparsity": sparsity}
    if name in ("set", "rigl", "itop", "granet"):
        options = {"drop_fraction": 0.5} | options
    return st.methods.create(name, sparsity=sparsity, total_steps=10, **options)


@pytest.mark.parametrize("name", STARTERS)
def test_pruning_and_regrowing_half_gives_the_published_masks_and_zeroes(name: str) -> None:
    method = starting(name, SPARSITY, "pruned-and-regrown", distribution=SHARES)
    view = view_of(WEIGHTS, GRADS)
    masks, _ = method.init(view)
    assert (bits(masks["a"]), bits(masks["b"])) == ("111010100111", "111011")
    fresh = method.fresh(view, masks)  # type: ignore[attr-defined]
    # Published one-shot pruning leaves 110010000001 and 000011; the others start at 0.
    assert (bits(fresh["a"]), bits(fresh["b"])) == ("001000100110", "111000")
    masked = {n: w * masks[n] for n, w in WEIGHTS.items()}
    again = method.fresh(view_of(masked, {}), masks)  # type: ignore[attr-defined]
    assert all(torch.equal(again[n], fresh[n]) for n in fresh)


def test_one_shot_pruned_starts_are_the_published_ones() -> None:
    view = view_of(WEIGHTS, {})
    left = st.distributions.given({"a": 4 / 12, "b": 2 / 6})
    by_layer = start_masks(view, 0.6667, distribution=left, start_mask="pruned")
    at_once = start_masks(view, 0.6667, distribution="erk", start_mask="pruned-global")
    for masks in (by_layer, at_once):
        assert (bits(masks["a"]), bits(masks["b"])) == ("110010000001", "000011")
    assert fresh_weights(view, by_layer, start_mask="pruned") == {}


@pytest.mark.parametrize("name", STARTERS)
@pytest.mark.parametrize("start_mask", ["random", "pruned", "pruned-global", "pruned-and-regrown"])
def test_every_start_holds_the_exact_count_under_every_method(name: str, start_mask: str) -> None:
    model = mlp()
    loss_of(model).backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = starting(name, 0.7, start_mask)
    sparsifier = st.Sparsifier(model, optimizer, method)
    assert kept(sparsifier.masks) == st.masks.kept(400, 0.7)
    assert hash(method) == hash(starting(name, 0.7, start_mask))


def test_a_regrown_start_equals_the_naive_twin() -> None:
    model = mlp()
    loss_of(model).backward()
    weights = {n: p.detach().clone() for n, p in st.select(model).items()}
    grads = {n: p.grad for n, p in st.select(model).items() if p.grad is not None}
    method = st.methods.rigl(0.7, 10, start_mask="pruned-and-regrown", drop_fraction=0.3)
    masks, _ = method.init(view_of(weights, grads))
    counts = st.distributions.erk({n: tuple(w.shape) for n, w in weights.items()}, 0.7)
    for name, mask in masks.items():
        weight, grad = weights[name].numpy().ravel(), grads[name].numpy().ravel()
        places = list(range(weight.size))
        back = -(-3 * counts[name] // 10)
        stay = dst.best(np.abs(weight), places, counts[name] - back)
        come = dst.best(np.abs(grad), [i for i in places if i not in stay], back)
        assert sorted(stay + come) == mask.flatten().nonzero().flatten().tolist()
        fresh = method.fresh(view_of(weights, {}), masks)[name]
        assert sorted(come) == fresh.flatten().nonzero().flatten().tolist()


def test_a_regrown_start_of_channels_moves_whole_ones() -> None:
    weights = {"a": torch.arange(1.0, 13).view(6, 2), "head": torch.ones(2, 3)}
    grads = {"a": torch.arange(12.0, 0, -1).view(6, 2), "head": torch.ones(2, 3)}
    options = {"distribution": st.distributions.given({"a": 8 / 12, "head": 1.0})}
    method = starting("rigl", 0.2223, "pruned-and-regrown", pattern="channel", **options)
    masks, _ = method.init(view_of(weights, grads))
    # Four of six channels: the last two by weight, the first two by gradient; the head is whole.
    assert masks["a"].all(1).tolist() == [True, True, False, False, True, True]
    assert masks["head"].all()
    fresh = method.fresh(view_of(weights, grads), masks)  # type: ignore[attr-defined]
    assert fresh["a"].all(1).tolist() == [True, True, False, False, False, False]


def test_a_regrown_start_without_a_gradient_names_the_move() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = st.methods.rigl(0.7, 10, start_mask="pruned-and-regrown")
    with pytest.raises(ValueError, match=r"0\.weight has none: call loss\.backward\(\) on a batch"):
        st.Sparsifier(model, optimizer, method)


@pytest.mark.parametrize("name", ["gmp", "granet"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"distribution": "uniform"}, "distribution='uniform' makes no sense for a dense start"),
        ({"start_mask": "pruned-global"}, "start_mask='pruned-global' makes no sense for a dense"),
    ],
)
def test_a_dense_start_has_no_zeros_to_place(
    name: str, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        st.methods.create(name, sparsity=0.9, total_steps=9, initial_sparsity=0.0, **options)


@pytest.mark.parametrize("name", STARTERS)
def test_one_ranking_of_all_layers_takes_no_distribution(name: str) -> None:
    with pytest.raises(ValueError, match="one ranking of all layers decides each layer's count"):
        starting(name, 0.5, "pruned-global", distribution="smart_ratio")


@pytest.mark.parametrize("name", STARTERS)
def test_a_distribution_may_be_a_function(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 5))
    shapes = {n: tuple(p.shape) for n, p in st.select(model).items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    resnet = functools.partial(st.distributions.smart_ratio, network="resnet")
    half = st.distributions.given({"0.weight": 1.0, "2.weight": 0.275})
    for rule in (resnet, half):
        method = starting(name, 0.5, "random", distribution=rule)
        sparsifier = st.Sparsifier(model, optimizer, method)
        assert st.masks.count_active(sparsifier.masks) == rule(shapes, 0.5)
        sparsifier.finalize()
    twin = st.distributions.given({"0.weight": 1.0, "2.weight": 0.275})
    method = starting(name, 0.5, "random", distribution=half)
    assert method == starting(name, 0.5, "random", distribution=twin)
    assert hash(method) == hash(starting(name, 0.5, "random", distribution=twin))
    assert method != starting(name, 0.5, "random")
    assert pickle.loads(pickle.dumps(method)) == method


@pytest.mark.parametrize("name", STARTERS)
@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (lambda shapes, s: dict.fromkeys(shapes, 1), "distribution keeps 3 weights, but a spars"),
        (lambda shapes, s: {"w": 200}, "must name the same layers; not: 0.weight"),
    ],
)
def test_a_function_that_breaks_the_total_is_refused(
    name: str, rule: object, sentence: str
) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = starting(name, 0.5, "random", distribution=rule)
    with pytest.raises(ValueError, match=sentence):
        st.Sparsifier(model, optimizer, method)


@pytest.mark.parametrize("name", STARTERS)
@pytest.mark.parametrize(
    ("value", "hint"),
    [("ERK", "did you mean 'erk'"), ("unifrom", "did you mean 'uniform'"), (0.5, "or a function")],
)
def test_a_wrong_distribution_is_refused_with_the_nearest(
    name: str, value: object, hint: str
) -> None:
    known = "'uniform', 'er', 'erk', 'smart_ratio'"
    with pytest.raises(ValueError, match=f"distribution must be one of {known}, got .*{hint}"):
        starting(name, 0.5, "random", distribution=value)


@pytest.mark.parametrize("name", ["granet", "rigl", "gmp", "static"])
def test_the_engine_starts_regrown_weights_at_zero_and_a_checkpoint_undoes_it(name: str) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_of(model).backward()
    before = {n: p.detach().clone() for n, p in st.select(model).items()}
    options: dict[str, object] = {"start_mask": "pruned-and-regrown"}
    if name in ("granet", "gmp"):
        options["initial_sparsity"] = 0.5
    method = st.methods.create(name, sparsity=0.8, total_steps=10, **options)
    sparsifier = st.Sparsifier(model, optimizer, method)
    active_zeros = 0
    for n, p in st.select(model).items():
        mask = sparsifier.masks[n]
        held = mask & (p != 0)
        assert torch.equal(p[held], before[n][held])
        # The weights that stay are the largest of the layer.
        assert before[n].abs()[held].min() >= before[n].abs()[~held].max()
        active_zeros += int((mask & (p == 0)).sum())
    assert active_zeros >= 0.2 * sum(int(m.sum()) for m in sparsifier.masks.values())
    dense = {n: torch.ones_like(m) for n, m in sparsifier.masks.items()}
    sparsifier.load_state_dict(sparsifier.state_dict() | {"masks": dense})
    assert all(torch.equal(p, before[n]) for n, p in st.select(model).items())
