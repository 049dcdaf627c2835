"""Whole channels: unit algebra against naive NumPy, exact counts in the engine, refusals."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as hs
from torch import Tensor, nn

import sparsetrain as st
from sparsetrain import patterns
from sparsetrain.types import Masks, Memory, View
from tests.oracles import dst

Arrays = dict[str, np.ndarray]


def network(*, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


# Units of 18 and 72 weights, and a head of 3 x 12 that stays whole: 144 + 864 + 36 = 1044.
TOTAL, HEAD = 1044, "7.weight"


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 2, 5, 5, generator=generator)
        y = torch.randint(0, 3, (8,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def sums(scores: Arrays) -> dict[str, list[float]]:
    return {n: [float(unit.sum(dtype=np.float64)) for unit in s] for n, s in scores.items()}


def naive_global(scores: Arrays, active: dict[str, list[int]], budget: int) -> dict[str, list[int]]:
    """From the best mean down until the budget is held; best of each layer and the last first."""
    names = list(scores)
    size = {n: scores[n][0].size for n in names}
    rank = [(-total / size[n], i, u) for i, n in enumerate(names) for u, total in
            enumerate(sums(scores)[n]) if u in active[n]]  # fmt: skip
    rank.sort()
    whole = len(names) - 1 if len(names) > 1 else -1
    chosen = [entry for entry in rank if entry[1] == whole]
    for i in range(len(names)):
        if i != whole:
            chosen.append(next(entry for entry in rank if entry[1] == i))
    for entry in rank:
        if sum(size[names[i]] for _, i, _ in chosen) >= budget:
            break
        if entry not in chosen:
            chosen.append(entry)
    return {n: sorted(u for _, i, u in chosen if names[i] == n) for n in names}


def naive_layers(
    scores: Arrays, active: dict[str, list[int]], sparsity: float
) -> dict[str, list[int]]:
    names, out = list(scores), {}
    for name in names:
        count = dst.kept(len(scores[name]), sparsity)
        order = sorted(active[name], key=lambda u: (-sums(scores)[name][u], u))
        whole = name == names[-1] and len(names) > 1
        out[name] = sorted(order if whole else order[:count])
    return out


def units(masks: Masks) -> dict[str, list[int]]:
    """Active units, and the claim that no unit is cut."""
    found = {}
    for name, mask in masks.items():
        rows = mask.numpy().reshape(len(mask), -1)
        assert (rows.all(1) == rows.any(1)).all(), name
        found[name] = np.flatnonzero(rows.any(1)).tolist()
    return found


def arrays(tensors: dict[str, Tensor]) -> Arrays:
    return {name: tensor.abs().numpy() for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Spy:
    """A method that notes what the one inside was shown and what it answered."""

    inner: st.Method
    seen: list[tuple[View, Masks, Masks]] = field(default_factory=list)

    @property
    def observes(self) -> bool:
        return getattr(self.inner, "observes", False)

    def observe(self, view: View, memory: Memory) -> Memory:
        return self.inner.observe(view, memory)  # type: ignore[attr-defined]

    def init(self, view: View) -> tuple[Masks, Memory]:
        return self.inner.init(view)

    def when(self, step: int) -> bool:
        return self.inner.when(step)

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        new, memory = self.inner.update(view, masks, memory)
        weights = {n: w.clone() for n, w in view.weights.items()}
        grads = {n: g.clone() for n, g in view.grads.items()}
        noted = View(view.step, weights, grads, {}, view.generator)
        before = {n: mask.clone() for n, mask in masks.items()}
        self.seen.append((noted, before, {n: mask.clone() for n, mask in new.items()}))
        return new, memory


def spied(
    name: str, **options: object
) -> tuple[list[tuple[View, Masks, Masks]], st.Sparsifier, nn.Module]:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    method = st.methods.create(
        name, sparsity=0.7, total_steps=8, update_every=1, pattern="channel", **options
    )
    spy = Spy(method)
    sparsifier = st.Sparsifier(model, optimizer, spy)
    for step in range(8):
        train(model, optimizer, 1, start=step)
        units(sparsifier.masks)
        assert all(len(u) for u in units(sparsifier.masks).values())
        assert bool(sparsifier.masks[HEAD].all())
        for layer, p in st.select(model).items():
            assert not p[~sparsifier.masks[layer]].any()
            moment = optimizer.state[p]["momentum_buffer"]
            assert not moment[~sparsifier.masks[layer]].any()
    return spy.seen, sparsifier, model


def test_units_are_rows_and_their_scores_are_sums() -> None:
    scores = {"conv": torch.arange(24.0).view(2, 3, 2, 2), "line": torch.arange(6).view(3, 2)}
    found = patterns.unit_scores(scores)
    assert found["conv"].tolist() == [66.0, 210.0]
    assert found["line"].tolist() == [1, 5, 9]
    assert found["line"].dtype is torch.int64
    assert (
        patterns.unit_scores({"h": torch.ones(1, 3000, dtype=torch.bfloat16)})["h"].item() == 3000
    )


def test_expanding_units_is_the_inverse_of_reading_them() -> None:
    like = {"conv": torch.zeros(3, 4, 2, 2).to(memory_format=torch.channels_last)}
    chosen = {"conv": torch.tensor([True, False, True])}
    masks = patterns.expand(chosen, like)
    assert masks["conv"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(patterns.units_of(masks)["conv"], chosen["conv"])
    assert masks["conv"].sum(dim=(1, 2, 3)).tolist() == [16, 0, 16]
    masks["conv"][1, 0, 0, 0] = True
    with pytest.raises(ValueError, match=r"masks\['conv'\] keeps parts of channels"):
        patterns.check_whole(masks)


LAYERS = hs.lists(
    hs.tuples(hs.integers(1, 6), hs.integers(1, 4), hs.integers(1, 2)), min_size=1, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(LAYERS, hs.integers(0, 99), hs.integers(0, 10**6), hs.sampled_from(["global", "layer"]))
def test_kept_units_equal_the_naive_twin_also_among_ties(
    layers: list[tuple[int, int, int]], percent: int, seed: int, scope: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Small integers, so that many units tie.
    scores = {f"l{i}": torch.randint(0, 3, shape, generator=generator).float()
              for i, shape in enumerate(layers)}  # fmt: skip
    alive = {n: list(range(len(s))) for n, s in scores.items()}
    sparsity, plain = percent / 100, {n: s.numpy() for n, s in scores.items()}
    n = sum(s.size for s in plain.values())
    budget = dst.kept(n, sparsity)
    last = list(plain)[-1]
    least = sum(
        s.size if len(plain) > 1 and name == last else s[0].size for name, s in plain.items()
    )
    if scope == "global" and least > budget:
        with pytest.raises(ValueError, match=rf"leaves {budget} of {n} weights, .* keeps {least}"):
            patterns.keep_units(scores, sparsity, "global")
        return
    masks = patterns.keep_units(scores, sparsity, scope)  # type: ignore[arg-type]
    wanted = (
        naive_global(plain, alive, budget)
        if scope == "global"
        else naive_layers(plain, alive, sparsity)
    )
    assert units(masks) == wanted
    if scope == "global":
        held = sum(int(m.sum()) for m in masks.values())
        assert budget <= held < budget + max(s[0].size for s in plain.values()) or held == least


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", ["gmp", "granet"])
def test_gradual_pruning_of_channels_equals_the_naive_twin_at_each_step(
    name: str, scope: str
) -> None:
    options = {"drop_fraction": 0.0} if name == "granet" else {}
    seen, sparsifier, _ = spied(name, scope=scope, **options)
    assert len(seen) >= 6
    for view, before, after in seen:
        s = sparsifier.method.inner.sparsity_at(view.step)  # type: ignore[attr-defined]
        scores = arrays(dict(view.weights))
        if scope == "global":
            wanted = naive_global(scores, units(before), dst.kept(TOTAL, s))
        else:
            wanted = naive_layers(scores, units(before), s)
        assert units(after) == wanted, view.step
    held = sum(int(mask.sum()) for mask in sparsifier.masks.values())
    if scope == "global":
        assert st.masks.kept(TOTAL, 0.7) <= held < st.masks.kept(TOTAL, 0.7) + 72
    else:
        # kept(8, 0.7) = 3 and kept(12, 0.7) = 4 channels, and the head.
        assert held == 3 * 18 + 4 * 72 + 36


@pytest.mark.parametrize("name", ["rigl", "itop", "granet"])
def test_channels_move_by_summed_weight_and_gradient(name: str) -> None:
    options = {"drop_fraction": 0.6}
    options |= {"initial_sparsity": 0.7, "stop": 1} if name == "granet" else {}
    seen, _, _ = spied(name, **options)
    moves = 0
    for view, before, after in seen:
        weight, grad = sums(arrays(dict(view.weights))), sums(arrays(dict(view.grads)))
        if name == "granet" and view.step == 1:
            continue  # the gradual part comes first there
        fraction = st.methods.create(
            name, sparsity=0.7, total_steps=8, **options
        ).fraction(view.step)  # type: ignore[attr-defined]  # fmt: skip
        for layer, alive in units(before).items():
            count = math.floor(dst.exact(fraction) * len(alive))
            stay = sorted(alive, key=lambda u: (-weight[layer][u], u))[: len(alive) - count]
            free = [u for u in range(len(weight[layer])) if u not in stay]
            come = sorted(free, key=lambda u: (-grad[layer][u], u))[:count]
            assert units(after)[layer] == sorted(stay + come)
            moves += count
    assert moves > 6


@pytest.mark.parametrize("growth", ["gradient", "random", "momentum", "random-unfired"])
@pytest.mark.parametrize("drop", ["magnitude", "taylor"])
def test_growing_keeps_each_layer_s_number_of_channels(growth: str, drop: str) -> None:
    options = {"growth": growth, "drop": drop, "distribution": "erk", "drop_fraction": 0.6}
    seen, _, model = spied("set", **options)
    shapes = {n: tuple(p.shape) for n, p in st.select(model).items()}
    counts = st.distributions.erk(shapes, 0.7)
    wanted = {"0.weight": -(-counts["0.weight"] // 18), "3.weight": -(-counts["3.weight"] // 72)}
    for _, before, after in seen:
        for masks in (before, after):
            found = {n: len(u) for n, u in units(masks).items()}
            assert found == wanted | {HEAD: 3}
    assert any(units(before) != units(after) for _, before, after in seen)


def test_one_shot_pruning_of_channels_zeroes_the_smallest_and_no_other() -> None:
    model = network()
    before = {n: p.detach().clone() for n, p in st.select(model).items()}
    masks = st.prune(model, 0.7, pattern="channel", scope="layer")
    assert units(masks) == naive_layers(
        arrays(before), {n: list(range(len(w))) for n, w in before.items()}, 0.7
    )
    for name, p in st.select(model).items():
        assert torch.equal(p.detach(), before[name] * masks[name])
    assert model[3].bias is not None
    assert model[3].bias.ne(0).all()  # what is not a weight stays
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = st.methods.magnitude(0.7, 4, at=0, scope="layer", pattern="channel")
    assert units(st.Sparsifier(model, optimizer, method).masks) == units(masks)


def test_a_network_of_one_layer_has_no_part_that_is_left_whole() -> None:
    masks = patterns.keep_units({"only": torch.arange(8.0).view(4, 2)}, 0.5)
    assert units(masks) == {"only": [2, 3]}


def test_resume_in_mid_schedule_is_bit_identical_with_channels() -> None:
    method = st.methods.granet(0.7, 8, update_every=1, pattern="channel", growth="random")

    def attached(seed: int) -> tuple[nn.Module, torch.optim.Optimizer, st.Sparsifier]:
        model = network(seed=seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        return model, optimizer, st.Sparsifier(model, optimizer, method, seed=seed)

    parts = attached(0)
    train(*parts[:2], 4)
    state = [copy.deepcopy(part.state_dict()) for part in parts]
    train(*parts[:2], 4, start=4)
    again = attached(1)
    for part, saved in zip(again, state, strict=True):
        part.load_state_dict(saved)
    train(*again[:2], 4, start=4)
    assert units(parts[2].masks) == units(again[2].masks)
    for p, q in zip(parts[0].parameters(), again[0].parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("snfs", {}, "redistribution='momentum' with pattern='channel' makes no sense"),
        ("rigl", {"redistribution": "nonzeros"}, "channels of different layers differ in size"),
        ("rigl", {"drop": "set"}, "it judges single weights"),
        ("granet", {"drop": "threshold", "threshold": 0.1}, "it judges single weights"),
        ("granet", {"compat": "paper"}, "compat='paper' has no rule for .*'channel'"),
        ("gmp", {"scope": "layer", "classifier_sparsity": 0.8}, "so it is left whole"),
    ],
)
def test_combinations_without_sense_are_refused(
    name: str, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        st.methods.create(name, sparsity=0.9, total_steps=10, pattern="channel", **options)


@pytest.mark.parametrize("name", ["static", "magnitude", "gmp", "rigl", "granet"])
def test_an_unknown_pattern_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="pattern must be one of 'unstructured', 'channel'"):
        st.methods.create(name, sparsity=0.9, total_steps=10, pattern="row")
    with pytest.raises(ValueError, match="pattern must be 'unstructured' or 'channel'"):
        st.prune(network(), 0.5, pattern="row")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["magnitude", "gmp", "granet"])
def test_a_sparsity_that_whole_channels_cannot_reach_is_refused_before_training(name: str) -> None:
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # 18 + 72 + 36 = 126 of 1044 stay at least.
    method = st.methods.create(name, sparsity=0.9, total_steps=10, pattern="channel")
    with pytest.raises(ValueError, match=r"leaves 105 of 1044 .* keeps 126: .* sparsity to 0\.879"):
        st.Sparsifier(model, optimizer, method)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_given_masks_must_be_of_whole_channels() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cut = st.methods.rigl(0.7, 10, masks=st.prune(copy.deepcopy(model), 0.7), pattern="channel")
    with pytest.raises(ValueError, match="keeps parts of channels"):
        st.Sparsifier(model, optimizer, cut)
    whole = st.prune(copy.deepcopy(model), 0.7, pattern="channel")
    method = st.methods.rigl(0.7, 10, masks=whole, pattern="channel")
    assert units(st.Sparsifier(model, optimizer, method).masks) == units(whole)


def test_recurrent_attention_and_transposed_layers_train_in_units() -> None:
    layer = nn.TransformerEncoderLayer(6, nhead=2, dim_feedforward=12, batch_first=True)
    up = nn.Sequential(nn.Unflatten(1, (5, 1)), nn.ConvTranspose2d(5, 4, 3), nn.Flatten())
    model = nn.ModuleDict(
        {"a": layer, "r": nn.LSTM(6, 8, batch_first=True), "u": up, "h": nn.Linear(40 + 96, 3)}
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = st.methods.granet(0.8, 4, update_every=1, pattern="channel", scope="layer")
    sparsifier = st.Sparsifier(model, optimizer, method)
    for _ in range(4):
        x = torch.randn(4, 5, 6)
        optimizer.zero_grad()
        parts = [model["r"](model["a"](x))[0].flatten(1), model["u"](x)]
        model["h"](torch.cat(parts, 1)).square().mean().backward()
        optimizer.step()
    assert len(sparsifier.masks) == 8
    for name, alive in units(sparsifier.masks).items():
        n = len(sparsifier.masks[name])
        assert len(alive) == (n if name == "h.weight" else st.masks.kept(n, 0.8))
