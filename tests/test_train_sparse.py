"""`--sparse-compute` in the command: same results, exact resume, refusals."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import torch

from sparsetrain import compute
from sparsetrain.training.errors import BadInput, Interrupted
from tests.harm_tools import at_step, metrics
from tests.kernel_tools import built
from tests.training_tools import ART, fake_load, run

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
RESNET = {"model": "resnet8", "epochs": 4, "sparsity": 0.8}
METHODS = {
    "static": {},
    "rigl": {},
    "art": {k: v for k, v in ART.items() if k != "method"},
    "imp": {"rounds": 1},
}


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_with_sparse_steps_learns_what_a_dense_one_does(tmp_path, monkeypatch, method):
    settings = RESNET | METHODS[method] | {"method": method}
    entered = []
    enter = compute.SparseCompute.__enter__
    monkeypatch.setattr(
        compute.SparseCompute, "__enter__", lambda c: entered.append(c.runs_sparse) or enter(c)
    )
    sparse = run(tmp_path / "sparse", **settings, sparse_compute="always")
    dense = run(tmp_path / "dense", **settings)
    assert any(entered)
    assert sparse["kept_weights"] == dense["kept_weights"]
    losses = [[line["loss"] for line in metrics(tmp_path / n)] for n in ("sparse", "dense")]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-3)


@posix
@pytest.mark.parametrize("wanted", ["auto", "always"])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_broken_off_ends_as_if_it_had_not_been(tmp_path, monkeypatch, method, wanted):
    settings = RESNET | METHODS[method] | {"method": method, "sparse_compute": wanted}
    settings |= {"deterministic": wanted == "auto"}
    run(tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run(tmp_path / "a", **settings)
    run(tmp_path / "a", **settings)
    files = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "a")]
    assert files[0] == files[1]
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "a")


@built
def test_choices_are_kept_and_not_measured_again_on_resume(tmp_path, monkeypatch):
    settings = RESNET | {"method": "static", "sparse_compute": "auto"}
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run(tmp_path / "a", **settings)
    (newest,) = sorted((tmp_path / "a" / "checkpoint").glob("*.pt"))[-1:]
    assert torch.load(newest, weights_only=True)["sparse_compute"]

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr("sparsetrain.compute.choice.measured", again)
    run(tmp_path / "a", **settings)


def test_what_does_not_go_together_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(BadInput, match="sparse_compute=always does not go with compile=default"):
        run(tmp_path / "a", **RESNET, sparse_compute="always", compile="default")
