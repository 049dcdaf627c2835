"""A NaN or infinite loss or gradient: named with step, place and checkpoint, or left out."""

from __future__ import annotations

import json
import math
import os
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparsetrain.training.device import Place
from sparsetrain.training.errors import Interrupted, RunFailed
from sparsetrain.training.loop import train_epoch
from sparsetrain.training.nonfinite import MOST_IN_A_ROW, Guard
from tests.harm_tools import at_step, metrics
from tests.training_tools import fake_load, run, run_telling

CPU = Place(torch.device("cpu"), bf16=False, channels_last=False)
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and locks")


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)


def _task(bad=()):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(8, 4), torch.randint(3, (8,))) for _ in range(5)]
    batches = [(x * math.nan if i in bad else x, y) for i, (x, y) in enumerate(batches)]
    return model, batches, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def test_a_skipped_batch_leaves_no_trace():
    model, batches, optimizer = _task(bad=[1, 3])
    guard = Guard(model, mode="skip")
    result = train_epoch(model, optimizer, batches, place=CPU, lr=lambda _: 0.1, guard=guard)
    twin, good, other = _task()
    del good[3], good[1]
    expected = train_epoch(twin, other, good, place=CPU, lr=lambda _: 0.1)
    assert result == expected
    for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_an_infinite_gradient_under_a_finite_loss_is_skipped_or_named():
    for mode in ("skip", "stop"):
        model, batches, optimizer = _task()
        model[3].bias.register_hook(lambda grad: grad * math.inf)
        guard = Guard(model, mode=mode)
        rest = {"place": CPU, "lr": lambda _: 0.1, "guard": guard}
        if mode == "skip":
            before = [p.clone() for p in model.parameters()]
            train_epoch(model, optimizer, batches, **rest)
            assert all(map(torch.equal, before, model.parameters()))
        else:
            with pytest.raises(RunFailed, match=r"a weight .* at step 1 of the run in 3\.bias;"):
                train_epoch(model, optimizer, batches, **rest)


def test_elsewhere_than_on_the_cpu_the_first_bad_step_is_named_later():
    model, batches, optimizer = _task(bad=[2])
    guard = Guard(model, at_once=False, first=10)
    taken = []
    with pytest.raises(RunFailed, match=r"the loss became nan at step 13 of the run in 0\.w"):
        train_epoch(
            model,
            optimizer,
            batches,
            place=CPU,
            lr=lambda _: 0.1,
            guard=guard,
            after=lambda: taken.append(1),
        )
    assert len(taken) == 5


def _nan_in_epoch(monkeypatch, epoch, batches):
    from sparsetrain.data.loader import Loader

    real = Loader.batches

    def bad(self, number, start=0):
        for index, (images, labels) in enumerate(real(self, number, start), start):
            hit = self._shuffle and number == epoch and index in batches
            yield (images * math.nan if hit else images), labels

    monkeypatch.setattr(Loader, "batches", bad)


@pytest.mark.parametrize("method", [{"method": "rigl"}, {"method": "dense", "model": "resnet8"}])
def test_a_nan_batch_stops_with_step_place_and_last_good_checkpoint(tmp_path, monkeypatch, method):
    with monkeypatch.context() as patch:
        _nan_in_epoch(patch, 2, [1])
        expected = (
            r"epoch 3: the loss became nan at step 8 of the run in the images of its batch; .*"
            r"The last good checkpoint is .*epoch-00002\.pt, after epoch 2\."
        )
        with pytest.raises(RunFailed, match=expected):
            run(tmp_path / "a", **method)
        _, said = run_telling(tmp_path / "a", **method, on_nonfinite="skip")
    assert "continuing after epoch 2." in said and "skipped 1 steps" in said
    record = json.loads((tmp_path / "a" / "record.json").read_text())
    assert (record["skipped_steps"], record["steps"]) == (1, 11)
    assert [m.get("skipped_steps") for m in metrics(tmp_path / "a")] == [None, None, 1, None]
    weights = load_file(tmp_path / "a" / "model.safetensors")
    assert all(bool(torch.isfinite(w).all()) for w in weights.values())


def test_too_many_bad_steps_in_a_row_stop_across_epochs_too(tmp_path, monkeypatch):
    for epoch in range(10):
        _nan_in_epoch(monkeypatch, epoch, range(3))
    assert MOST_IN_A_ROW == 20
    with pytest.raises(RunFailed, match="epoch 7: 20 steps in a row had a loss or gradient"):
        run(tmp_path / "a", method="dense", epochs=9, on_nonfinite="skip")


@posix
def test_skipped_steps_are_counted_across_a_resume(tmp_path, monkeypatch):
    _nan_in_epoch(monkeypatch, 1, [0])
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run(tmp_path / "a", method="granet", on_nonfinite="skip")
    record = run(tmp_path / "a", method="granet", on_nonfinite="skip")
    whole = run(tmp_path / "b", method="granet", on_nonfinite="skip")
    assert {**record, "seconds": None} == {**whole, "seconds": None}
    assert record["skipped_steps"] == 1
