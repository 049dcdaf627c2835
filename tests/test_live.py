"""`--tensorboard`: what is shown is what is in the metrics."""

from __future__ import annotations

import json

import pytest

from sparsetrain.training import live
from sparsetrain.training.errors import BadInput
from tests.training_tools import ART, fake_load, run


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)


def test_without_the_package_it_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(live.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"run pip install 'sparsetrain\[tensorboard\]'"):
        run(tmp_path / "a", method="static", tensorboard=True)
    assert not (tmp_path / "a").exists()


@pytest.mark.filterwarnings("ignore")  # of the package's own imports
def test_the_events_are_the_numbers_of_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, **ART, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    for name in ("loss", "val_accuracy", "sparsity", "strength", "pruned_train_accuracy"):
        expected = [(m["epoch"], m[name]) for m in map(json.loads, rows) if name in m]
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(epoch, pytest.approx(value)) for epoch, value in expected]


def test_nothing_is_shown_without_a_folder():
    with live.shown(None, epoch=0) as show:
        show({"epoch": 1, "loss": 0.5})
