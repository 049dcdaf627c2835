"""Random tickets, regrown starts and channels through the settings of a run; short lottery runs."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain import models
from sparsetrain.training.errors import BadInput
from sparsetrain.training.flags import parse_train
from sparsetrain.training.options import SmartRatioOptions
from sparsetrain.training.session import build_session
from sparsetrain.training.settings import build
from tests.training_tools import TINY, fake_load, run

TICKETS = {"method": "smart_ratio", "model": "resnet8", "epochs": 1}
REGROWN = {"method": "granet", "start_mask": "pruned-and-regrown", "epochs": 2}


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)


def fresh_network(name):
    torch.manual_seed(0)
    return models.create(name, num_classes=4, in_channels=1, image_size=8)


def shapes_of(network):
    return {n: tuple(p.shape) for n, p in st.select(network).items()}


@pytest.mark.parametrize("start_mask", ["random", "pruned"])
@pytest.mark.parametrize("compat", ["none", "paper"])
def test_random_tickets_hold_the_smart_ratio_in_the_file(tmp_path, start_mask, compat):
    record = run(tmp_path / "a", **TICKETS, start_mask=start_mask, compat=compat)
    network = fresh_network("resnet8")
    paper = "paper" if compat == "paper" else None
    counts = st.distributions.smart_ratio(shapes_of(network), 0.9, compat=paper)
    weights = load_file(tmp_path / "a" / "model.safetensors")
    alive = {n: int(weights[n].count_nonzero()) for n in counts}
    assert alive == counts
    assert record["kept_weights"] == sum(counts.values())
    exact = st.masks.kept(record["prunable_weights"], 0.9)
    assert (record["kept_weights"] == exact) == (compat == "none")
    assert record["scored_images"] == 0


def test_a_hybrid_ticket_keeps_the_largest_initial_weights_of_each_layer():
    masks = build_session(build(TINY | TICKETS | {"start_mask": "pruned"})).plan.masks
    for name, p in st.select(fresh_network("resnet8")).items():
        size = p.detach().abs()
        assert size[masks[name]].min() >= size[~masks[name]].max()


def test_random_tickets_are_the_seed_s_and_spread_over_the_layer():
    def ticket(seed):
        return build_session(build(TINY | TICKETS | {"seed": seed})).plan.masks

    first, again, other = ticket(0), ticket(0), ticket(1)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not all(torch.equal(first[n], other[n]) for n in first)


def test_choosing_tickets_and_regrown_starts_leaves_the_run_s_random_state():
    states = []
    for settings in ({"method": "dense"}, TICKETS | {"model": "resnet8"}, REGROWN):
        build_session(build(TINY | {"model": "resnet8", "sparsity": 0.5} | settings))
        states.append(torch.get_rng_state())
    assert all(torch.equal(state, states[0]) for state in states)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TICKETS | {"model": "mlp"}, "smart_ratio shares weights among convolutions"),
        (TICKETS | {"sparsity": 0.9999}, "keeps 30 % of .*; lower the sparsity"),
        (TICKETS | {"start_mask": "pruned-global"}, "start_mask must be one of random, pruned"),
        (TICKETS | {"network": "vgg"}, "network must be one of auto, resnet, plain"),
        ({"method": "gmp", "pattern": "channel", "sparsity": 0.999}, "pattern='channel' keeps"),
        ({"method": "rigl", "distribution": "given"}, "distribution must be one of uniform, er"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_no_folder(tmp_path, settings, message):
    with pytest.raises(BadInput, match=message):
        run(tmp_path / "a", **settings)
    assert not (tmp_path / "a").exists()


def test_the_command_line_has_the_options_of_tickets_and_starts():
    words = ["--method", "smart_ratio", "--start-mask", "pruned", "--network", "plain"]
    options = parse_train(words).settings.options
    assert options == SmartRatioOptions(start_mask="pruned", network="plain")
    words = ["--method", "rigl", "--distribution", "uniform", "--pattern", "channel"]
    options = parse_train([*words, "--start-mask", "pruned-global"]).settings.options
    assert (options.distribution, options.pattern) == ("uniform", "channel")
    with pytest.raises(BadInput, match="invalid choice 'erq' for argument '--distribution'"):
        parse_train(["--method", "rigl", "--distribution", "erq"])


def test_a_regrown_start_ranks_by_the_first_batch_and_leaves_nothing_behind():
    config = build(TINY | REGROWN | {"model": "resnet8", "initial_sparsity": 0.6})
    session = build_session(config)
    twin = fresh_network("resnet8").to(memory_format=torch.channels_last)
    untouched = {n: b.clone() for n, b in twin.named_buffers()}
    images, labels = next(session.train.batches(0))
    F.cross_entropy(twin(images), labels).backward()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    method = st.methods.granet(
        0.9, 8, start_mask="pruned-and-regrown", initial_sparsity=0.6, drop_fraction=0.5
    )
    initial = {n: p.detach().clone() for n, p in st.select(twin).items()}
    masks = st.Sparsifier(twin, optimizer, method).masks
    assert Counter(session.plan.masks.keys()) == Counter(masks.keys())
    # Rounding apart: two backward passes may order equal gradients differently.
    differ = sum(int((masks[n] ^ session.plan.masks[n]).sum()) for n in masks)
    assert differ <= 2
    assert all(p.grad is None for p in session.model.parameters())
    for name, buffer in session.model.named_buffers():
        assert torch.equal(buffer, untouched[name])
    fresh = 0
    for name, p in st.select(session.model).items():
        zeros = session.plan.masks[name] & (p.detach() == 0)
        fresh += int(zeros.sum())
        assert torch.equal(p.detach()[~zeros & masks[name]], initial[name][~zeros & masks[name]])
    assert fresh == sum(-(-int(mask.sum()) // 2) for mask in masks.values())


def test_a_run_from_a_regrown_start_ends_exactly_and_says_what_it_scored(tmp_path):
    record = run(tmp_path / "a", **REGROWN)
    assert record["kept_weights"] == st.masks.kept(record["prunable_weights"], 0.9)
    assert record["scored_images"] == 16


def test_a_run_of_channels_ends_with_whole_ones(tmp_path):
    record = run(tmp_path / "a", method="gmp", pattern="channel", sparsity=0.6, epochs=2)
    weights = load_file(tmp_path / "a" / "model.safetensors")
    for name in record["sparsity"]["per_layer"]:
        rows = weights[name].flatten(1) != 0
        assert torch.equal(rows.any(1), rows.all(1))
    assert record["kept_weights"] >= st.masks.kept(record["prunable_weights"], 0.6)
    assert record["kept_weights"] < record["prunable_weights"] / 2


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (
            {"sparsity": 0.95, "epochs": 24},
            ["fraction=0.2 is 15 trainings and gives each 1 of 24", "take 75 epochs", "rounds=3"],
        ),
        ({"rounds": 2, "epochs": 7}, ["rounds=2 is 3 trainings and gives each 2", "take 15 ep"]),
        ({"rounds": 2, "epochs_per_round": 4}, ["gives each 4 of 12", "rounds=1, or fraction=0.9"]),
        ({"rounds": 2, "epochs": 15}, []),
        ({"rounds": 2, "epochs": 6, "rewind": "learning-rate"}, []),
    ],
)
def test_lottery_trainings_too_short_to_learn_are_warned_of(caplog, settings, parts):
    with caplog.at_level(logging.WARNING, logger="sparsetrain"):
        build_session(build(TINY | {"method": "imp"} | settings))
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert bool(said) == bool(parts)
    assert all(part in said for part in parts), said
