"""Methods before and between epochs in the one loop: exact files, resume, options, phases."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain import models, saliency
from sparsetrain.methods import registry
from sparsetrain.training.config import TrainConfig
from sparsetrain.training.errors import BadInput, Interrupted
from sparsetrain.training.flags import parse_train
from sparsetrain.training.options import GraspOptions, ImpOptions, SnipOptions
from sparsetrain.training.plans.at_init import first_of_each_class
from sparsetrain.training.plans.imp import imp_rule
from sparsetrain.training.progress import Reporter
from sparsetrain.training.session import build_session
from sparsetrain.training.settings import build
from tests.training_tools import TINY, fake_load, run, run_telling

IMP = {"method": "imp", "rounds": 2, "epochs": 7}
METHODS = {
    "snip": {"method": "snip", "images_per_class": 3},
    "snip-eval": {"method": "snip", "mode": "eval", "model": "resnet8", "epochs": 2},
    "grasp": {"method": "grasp", "temperature": 100.0, "model": "resnet8", "epochs": 2},
    "synflow": {"method": "synflow", "rounds": 10},
    "imp": IMP,
    "imp-epoch": IMP | {"rewind": "epoch", "rewind_epoch": 0.5},
    "imp-rates": IMP | {"rewind": "learning-rate", "epochs_per_round": 1},
}


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)


def _interrupt_after(monkeypatch, batches):
    left = iter(range(batches))

    def advance(_):
        if next(left, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "advance", advance)


def _metrics(path):
    lines = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.mark.parametrize("name", METHODS)
def test_exactly_the_kept_count_of_weights_is_left_in_the_file(tmp_path, name):
    record = run(tmp_path / "a", **METHODS[name])
    weights = load_file(tmp_path / "a" / "model.safetensors")
    alive = sum(int(weights[n].count_nonzero()) for n in record["sparsity"]["per_layer"])
    assert record["kept_weights"] == st.masks.kept(record["prunable_weights"], 0.9)
    assert alive == record["kept_weights"]
    assert record["method"] == METHODS[name]["method"]
    scored = {"snip": 12, "snip-eval": 40, "grasp": 40, "synflow": 0}
    assert record.get("scored_images") == scored.get(name)


@pytest.mark.parametrize("name", ["snip", "grasp", "imp", "imp-epoch", "imp-rates"])
@pytest.mark.parametrize("epochs_before", [1, 2])
def test_resume_is_bit_identical_to_the_undisturbed_run(tmp_path, monkeypatch, name, epochs_before):
    settings = METHODS[name] | {"epochs": 5}
    whole_record = run(tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        steps = whole_record["steps"] // whole_record["epochs"]
        _interrupt_after(patch, epochs_before * steps + 1)
        with pytest.raises(Interrupted, match=f"stopped after epoch {epochs_before} of"):
            run(tmp_path / "broken", **settings)
    record, said = run_telling(tmp_path / "broken", **settings)
    assert f"continuing after epoch {epochs_before}." in said
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    broken = load_file(tmp_path / "broken" / "model.safetensors")
    assert all(torch.equal(whole[n], broken[n]) for n in whole)
    assert _metrics(tmp_path / "whole") == _metrics(tmp_path / "broken")
    assert {**record, "seconds": None} == {**whole_record, "seconds": None}


def _config(**settings) -> TrainConfig:
    return build(TINY | settings)


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_the_plan_s_masks_are_the_library_s_on_the_fresh_network(name):
    config = _config(method=name, images_per_class=2)
    session = build_session(config)
    torch.manual_seed(config.run.seed)
    twin = models.create("mlp", num_classes=4, in_channels=1, image_size=8)
    images, labels = first_of_each_class(session.train, 2)
    halves = list(zip(images.tensor_split(2), labels.tensor_split(2), strict=True))
    data = [(images, labels)] if name == "snip" else halves
    scorer = {"snip": saliency.snip, "grasp": saliency.grasp}[name]
    wanted = scorer(twin, F.cross_entropy, data, 0.9)
    assert all(torch.equal(session.plan.masks[n], wanted[n]) for n in wanted)


def test_scoring_takes_so_many_images_of_each_class_in_the_epoch_s_order():
    train = build_session(_config(method="dense")).train
    images, labels = first_of_each_class(train, 3)
    assert Counter(labels.tolist()) == {0: 3, 1: 3, 2: 3, 3: 3}
    every = torch.cat([y for _, y in train.batches(0)])
    first = [i for i in range(len(every)) if int((every[:i] == every[i]).sum()) < 3]
    assert torch.equal(labels, every[first])
    assert torch.equal(images, torch.cat([x for x, _ in train.batches(0)])[first])
    assert len(first_of_each_class(train, 1000)[1]) == len(every)


def test_scoring_draws_nothing_from_the_run_s_random_state():
    # The same seed must train on the same images whichever the method.
    states = []
    for method in ("dense", "snip", "grasp", "synflow"):
        build_session(_config(method=method, sparsity=0.5))
        states.append(torch.get_rng_state())
    assert all(torch.equal(state, states[0]) for state in states)


def test_epochs_are_shared_among_the_trainings_and_the_last_takes_the_rest(tmp_path):
    record = run(tmp_path / "a", **IMP, schedule="constant")
    phases = [line["phase"] for line in _metrics(tmp_path / "a")]
    assert phases == ["dense", "dense", "round 1", "round 1", *["round 2"] * 3]
    assert (record["epochs"], record["epochs_per_round"], record["final_epochs"]) == (7, 2, 3)
    zeros = [line["sparsity"] for line in _metrics(tmp_path / "a")]
    n = record["prunable_weights"]
    rule = imp_rule(_config(**IMP), steps=3)
    kept = [round((1 - z) * n) for z in zeros]
    assert kept == [rule.kept(n, r) for r in (0, 0, 1, 1, 2, 2, 2)]


def test_each_training_runs_the_whole_schedule(tmp_path):
    run(tmp_path / "a", **IMP | {"epochs": 6}, schedule="step", milestones=[0.5], lr_decay=0.1)
    rates = [line["lr"] for line in _metrics(tmp_path / "a")]
    assert rates == pytest.approx([0.05, 0.005] * 3)


def test_epochs_per_round_replaces_epochs(tmp_path):
    record = run(tmp_path / "a", **METHODS["imp-rates"])
    assert record["epochs"] == 3
    assert record["rewind"] == "learning-rate"


def test_rewinding_epochs_become_steps():
    rule = imp_rule(_config(**METHODS["imp-epoch"]), steps=391)
    assert rule.rewind == round(0.5 * 391)
    assert imp_rule(_config(method="imp", epochs=40), steps=3).total_epochs == 40
    assert imp_rule(_config(method="imp", epochs=40), steps=3).rewind == "start"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "imp", "epochs": 4}, "epochs must be at least 12, one for each training"),
        ({"method": "imp", "fraction": 20.0}, r"fraction must be in \(0, 1\)"),
        (IMP | {"rewind": "epoch", "rewind_epoch": -1.0}, "rewind_epoch must be 0 or more"),
        ({"method": "snip", "images_per_class": 0}, "images_per_class must be at least 1"),
        ({"method": "grasp", "temperature": 0.0}, "temperature must be above 0"),
        ({"method": "synflow", "rounds": 0}, "rounds must be an int of at least 1"),
        ({"method": "snip", "temperature": 2.0}, "temperature"),
        ({"method": "imp", "rewind": "init"}, "rewind must be one of start, epoch, learning-rate"),
    ],
)
def test_bad_options_are_one_sentence_and_leave_no_folder(tmp_path, settings, message):
    with pytest.raises(BadInput, match=message):
        run(tmp_path / "a", **settings)
    assert not (tmp_path / "a").exists()


def test_the_command_line_has_exactly_each_method_s_options():
    words = ["--method", "imp", "--rewind", "epoch", "--rewind-epoch", "0.5", "--fraction", "0.3"]
    options = parse_train(words).settings.options
    assert options == ImpOptions(rewind="epoch", rewind_epoch=0.5, fraction=0.3)
    options = parse_train(["--method", "snip", "--images-per-class", "5"]).settings.options
    assert options == SnipOptions(images_per_class=5)
    options = parse_train(["--method", "grasp", "--temperature", "1"]).settings.options
    assert options == GraspOptions(temperature=1.0)
    with pytest.raises(BadInput, match="unknown option"):
        parse_train(["--method", "synflow", "--fraction", "0.2"])


def test_the_registry_names_the_calls_that_serve_instead_of_create():
    for name in ("snip", "grasp", "synflow", "imp"):
        with pytest.raises(ValueError, match=registry.get(name).call.split("(")[0]):
            st.methods.create(name, sparsity=0.9, total_steps=10)
