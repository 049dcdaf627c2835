"""Runs whose last epoch ends with a pruning: what is measured is the network that is saved."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from sparsetrain.masks import kept
from sparsetrain.training.reevaluate import reevaluate
from tests.training_tools import fake_load, run

UNTUNED = {
    "method": "art",
    "dense_epochs": 2,
    "max_regularize_epochs": 2,
    "finetune_epochs": 0,
    "strength": 0.0,  # so that pruning hurts
    "sparsity": 0.98,
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)
    monkeypatch.setattr("sparsetrain.training.finish.plot_history", lambda *_: None)


def _lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_art_without_fine_tuning_is_judged_as_it_was_pruned(tmp_path):
    record = run(tmp_path / "a", **UNTUNED)
    chosen = _lines(tmp_path / "a")[record["chosen_regularize_epoch"] + UNTUNED["dense_epochs"] - 1]
    assert chosen["val_accuracy"] > chosen["pruned_val_accuracy"] + 0.2
    assert record["val_accuracy"] == chosen["pruned_val_accuracy"]
    assert record["selected_epoch"] == record["epochs"] == 4
    assert record["test_accuracy_selected"] == record["test_accuracy"]
    again = reevaluate(tmp_path / "a")
    assert (again["test_accuracy"], again["difference"]) == (record["test_accuracy"], 0)


def test_the_best_test_epoch_of_art_without_fine_tuning_is_no_dense_one(tmp_path):
    record = run(tmp_path / "a", **UNTUNED, compat="paper")
    assert max(line["test_accuracy"] for line in _lines(tmp_path / "a")) > record["test_accuracy"]
    assert (record["test_accuracy_best"], record["best_epoch"]) == (record["test_accuracy"], 4)


def test_the_average_of_art_without_fine_tuning_is_as_sparse_as_its_record(tmp_path):
    record = run(tmp_path / "a", **UNTUNED, ema=0.9)
    weights = load_file(tmp_path / "a" / "model.safetensors")
    prunable = [t for t in weights.values() if t.dim() > 1]
    count = kept(sum(t.numel() for t in prunable), 0.98)
    assert record["kept_weights"] == count
    assert sum(t.count_nonzero().item() for t in prunable) == count
    assert record["test_accuracy"] == record["test_accuracy_unaveraged"]
