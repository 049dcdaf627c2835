"""Which kernels run: the cheapest cut, measured once and kept, and what explain() says of it."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsetrain as st
from sparsetrain.inference import cache, choice
from sparsetrain.inference import model as cost_model
from sparsetrain.inference.choice import Chosen
from sparsetrain.inference.cut import Costs, cheapest
from sparsetrain.inference.prepared import prepare
from sparsetrain.inference.units import Network
from sparsetrain.kernels import native

from .inference_nets import NETS, trained_looking_
from .inference_tools import assert_same
from .kernel_tools import built


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sparsetrain" / "choices"


def net() -> nn.Sequential:
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    layers = (first, nn.BatchNorm2d(8), nn.ReLU(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(8, 4))
    trained_looking_(model, sparsity=0.75)
    return model


def total(network: Network, costs: Costs, packed: frozenset[str]) -> float:
    """Seconds of a choice, added up by the definition."""
    made = {unit.output for unit in network.units}
    spent = 0.0
    for unit in network.units:
        side = costs.packed if unit.output in packed else costs.torch
        spent += side.get(unit.output, float("inf"))
    for name in {*made, *(name for unit in network.units for name in unit.inputs)}:
        users = [unit.output in packed for unit in network.units if name in unit.inputs]
        users += [False] * (name in network.results)
        if name in packed and not all(users):
            spent += costs.unpack[name]
        if name not in packed and any(users):
            spent += costs.pack[name]
    return spent


@pytest.mark.parametrize("name", ["shared", "branches", "pre-activation"])
def test_the_cut_is_the_cheapest_of_all_choices(name: str) -> None:
    kind, shape = NETS[name]
    prepared = prepare(kind().eval(), torch.randn(2, *shape))
    network, draw = prepared.network, random.Random(0)
    names = {n for unit in network.units for n in (*unit.inputs, unit.output)}
    outputs = [unit.output for unit in network.units]
    for _ in range(8):
        able = [output for output in outputs if draw.random() < 0.8]
        pack, unpack = ({n: draw.random() for n in names} for _ in range(2))
        torch_, packed = {n: draw.random() for n in outputs}, {n: draw.random() for n in able}
        costs = Costs(torch_, packed, pack, unpack)
        choices = (
            frozenset(some)
            for k in range(len(able) + 1)
            for some in itertools.combinations(able, k)
        )
        sums = {one: total(network, costs, one) for one in choices}
        for one, seconds in sums.items():
            assert cost_model.total(network, costs, one) == pytest.approx(seconds)
        least = min(sums.values())
        assert total(network, costs, cheapest(network, costs)) == pytest.approx(least)


def test_a_measured_network_gives_its_results_and_its_choice_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, example = net(), torch.randn(2, 3, 9, 9)
    first = st.compile_sparse(model, example)
    assert_same(first, model, torch.randn(20, 3, 9, 9))
    assert len(list(folder.iterdir())) == 2  # for few images and for many
    monkeypatch.setattr(choice, "timed", None)  # a second measurement would call it
    second = st.compile_sparse(model, example)
    assert second.few is not None and first.few is not None
    assert second.few.chosen == first.few.chosen
    assert_same(second, model, torch.randn(1, 3, 9, 9))


def test_the_fastest_as_a_whole_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for winner, wanted in (("sparse", 1.0), ("dense", 0.0)):
        times = dict.fromkeys(("sparse", "dense", "mixed", "modelled"), 2.0) | {winner: 1.0}
        monkeypatch.setattr(choice, "timed", lambda runs, t=times: {name: t[name] for name in runs})
        monkeypatch.setenv("XDG_CACHE_HOME", f"/nonexistent/{winner}")
        compiled = st.compile_sparse(net(), torch.randn(2, 3, 9, 9))
        assert compiled.few is not None
        able = compiled.prepared.able
        assert len(compiled.few.chosen.packed) == wanted * len(able)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"packed": [99], "seconds": {}}', '{"packed": 3, "seconds": []}']
)
def test_a_damaged_cache_file_is_measured_again(text: str, folder: Path) -> None:
    model, example = net(), torch.randn(2, 3, 9, 9)
    st.compile_sparse(model, example)
    for file in folder.iterdir():
        file.write_text(text)
    assert_same(st.compile_sparse(model, example), model, example)
    assert all(json.loads(file.read_text())["seconds"] for file in folder.iterdir())


def test_the_key_depends_on_weights_kept_threads_and_rows() -> None:
    prepared = prepare(net(), torch.randn(2, 3, 9, 9))
    network, outputs = prepared.network, [unit.output for unit in prepared.network.units]
    kept = dict.fromkeys(outputs, 5)
    keys = [
        cache.key(network, kept, rows=1, block=1),
        cache.key(network, kept | {outputs[0]: 6}, rows=1, block=1),
        cache.key(network, kept, rows=2, block=1),
        cache.key(network, kept, rows=1, block=16),
    ]
    assert len(set(keys)) == 4
    assert cache.key(network, dict(kept), rows=1, block=1) == keys[0]


@built
def test_the_cost_model_chooses_alike_each_time_and_follows_sparsity() -> None:
    def packed(sparsity: float) -> frozenset[str]:
        model = trained_looking_(st.models.create("vgg11", image_size=16), sparsity)
        compiled = st.compile_sparse(model, torch.randn(16, 3, 16, 16), choice="model")
        assert compiled.many is not None
        assert isinstance(compiled.many.chosen, Chosen)
        return compiled.many.chosen.packed

    assert len(packed(0.0)) <= 2  # the linear layer and the pooling before it
    assert packed(0.99) == packed(0.99)
    assert len(packed(0.99)) > 5


def test_the_cost_model_of_the_kernels_takes_none_where_they_are_not_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    model = trained_looking_(st.models.create("vgg11", image_size=16), 0.99)
    compiled = st.compile_sparse(model, torch.randn(16, 3, 16, 16), choice="model")
    assert compiled.many is not None
    assert isinstance(compiled.many.chosen, Chosen)
    assert not compiled.many.chosen.packed


def test_explain_says_each_layers_sparsity_kernel_and_share() -> None:
    model = net()
    found = st.compile_sparse(model, torch.randn(2, 3, 9, 9), choice="sparse").explain()
    rows = {layer.name: layer for layer in found.layers}
    for name in ("0", "3", "6"):
        weight: Tensor = model.get_parameter(f"{name}.weight")
        zeros = int((weight == 0).sum())
        assert rows[name].sparsity == pytest.approx(zeros / weight.numel())
        assert rows[name].kernel == "sparse"
    assert rows["0"].what == "conv + norm + relu"
    assert rows["0"].shape == (8, 9, 9)
    assert all(layer.seconds >= 0 for layer in found.layers)
    assert found.batch == 2
    text = str(found).splitlines()
    assert text[0].split() == ["layer", "operation", "output", "sparsity", "kernel", "ms", "share"]
    assert text[-1].startswith("all, batch 2")
    assert text[-1].endswith("100.0 %")
    assert st.compile_sparse(model, torch.randn(2, 3, 9, 9), choice="dense").explain(9).batch == 9
