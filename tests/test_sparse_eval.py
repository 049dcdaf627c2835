"""`--sparse-eval`: pruned copies judged by the sparse kernels, alike in each repeat."""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import sparsetrain as st
from sparsetrain.inference.compiled import CompiledNetwork
from sparsetrain.training import sparse_eval
from sparsetrain.training.config import RunConfig
from sparsetrain.training.device import place
from sparsetrain.training.errors import BadInput, Interrupted
from sparsetrain.training.parallel import World
from sparsetrain.training.sparse_eval import SparseEvaluation, sparse_evaluation
from tests.harm_tools import at_step, metrics
from tests.training_tools import fake_load, run

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
ART = {"model": "resnet8", "method": "art", "sparsity": 0.8}
ART |= {"epochs": 6, "dense_epochs": 1, "max_regularize_epochs": 3}
MANY = 10**8
"""Images enough for a network of any size."""


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)


def network(sparsity: float) -> nn.Module:
    torch.manual_seed(0)
    model = st.models.create("resnet8", num_classes=4, in_channels=3, image_size=16).eval()
    st.prune(model, sparsity)
    return model


def evaluation(*, images: int = MANY, always: bool = False, bf16: bool = False) -> SparseEvaluation:
    macs = 2_000_000  # of an image, about that of resnet8 on 16x16 pixels
    example = torch.zeros(16, 3, 16, 16)
    return SparseEvaluation(example, images=images, macs=macs, bf16=bf16, always=always)


def test_a_run_judged_sparse_is_the_run_judged_dense(tmp_path, monkeypatch):
    calls = []
    forward = CompiledNetwork.__call__
    monkeypatch.setattr(
        CompiledNetwork, "__call__", lambda c, x: calls.append(len(x)) or forward(c, x)
    )
    sparse = run(tmp_path / "sparse", **ART, sparse_eval="always")
    # 16 held-out and 48 training images, by 16, for each pruned copy.
    assert calls == [16, 16, 16, 16] * sparse["regularize_epochs"]
    dense = run(tmp_path / "dense", **ART, sparse_eval="never")
    assert len(calls) == 4 * sparse["regularize_epochs"]
    for key in ("test_accuracy", "kept_weights", "outcome", "pruned_train_accuracy"):
        assert sparse[key] == dense[key], key
    files = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("sparse", "dense")]
    assert files[0] == files[1]


@posix
def test_a_run_broken_off_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    settings = ART | {"sparse_eval": "always"}
    run(tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        at_step(patch, 8, lambda: os.kill(os.getpid(), signal.SIGTERM))  # of 3 an epoch
        with pytest.raises(Interrupted):
            run(tmp_path / "a", **settings)
    run(tmp_path / "a", **settings)
    files = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "a")]
    assert files[0] == files[1]
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "a")


def test_kernels_follow_from_the_copy_and_not_from_those_before():
    gone_on, resumed = evaluation(), evaluation()
    assert gone_on.call_of(network(0.2)) is None
    later = network(0.98)
    calls = [gone_on.call_of(later), resumed.call_of(later)]
    assert all(isinstance(call, CompiledNetwork) for call in calls)
    packed = [{v.runner.packed for v in (call.few, call.many)} for call in calls]  # type: ignore[union-attr]
    assert packed[0] == packed[1]
    images = torch.randn(21, 3, 16, 16)
    with torch.no_grad():
        logits = [call(images) for call in calls]  # type: ignore[misc]
        torch.testing.assert_close(logits[0], later(images), rtol=1e-4, atol=1e-5)
    assert torch.equal(logits[0], logits[1])


def test_auto_takes_what_saves_time(monkeypatch):
    sparse = network(0.98)
    assert evaluation().call_of(sparse) is not None
    assert evaluation(bf16=True).call_of(sparse) is not None
    # bf16 makes the dense pass three times as fast, the sparse one stays as it is.
    half = network(0.8)
    assert evaluation().call_of(half) is not None
    assert evaluation(bf16=True).call_of(half) is None
    monkeypatch.setattr(sparse_eval, "compile_sparse", None)  # tracing alone would take longer
    assert evaluation(images=1000).call_of(sparse) is None


def test_the_library_that_is_not_built_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("sparsetrain.kernels.native.library", lambda: None)
    where, example = place(RunConfig(device="cpu")), torch.zeros(1, 3, 16, 16)
    for wanted, there in (("auto", False), ("always", True), ("never", False)):
        config = RunConfig(sparse_eval=wanted)
        made = sparse_evaluation(config, where, example, images=MANY, macs=MANY)
        assert (made is not None) == there


class Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))


def test_a_network_that_cannot_be_traced_is_evaluated_dense(caplog):
    judge = evaluation()
    with caplog.at_level(logging.WARNING):
        assert [judge.call_of(Untraceable()) for _ in range(2)] == [None, None]
    assert caplog.text.count("evaluated as dense networks: torch.export cannot trace") == 1
    with pytest.raises(BadInput, match=r"sparse_eval=always: torch\.export cannot trace"):
        evaluation(always=True).call_of(Untraceable())


def test_tracing_draws_no_number_of_the_run():
    model = network(0.98)
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    assert evaluation().call_of(model) is not None
    assert torch.equal(torch.rand(4), wanted)


def test_what_does_not_go_together_is_refused_in_one_sentence():
    where, example = place(RunConfig(device="cpu")), torch.zeros(1, 3, 16, 16)
    sharded = replace(where, world=World(mode="fsdp"))
    with pytest.raises(BadInput, match="sparse_eval=always does not go with parallel=fsdp"):
        config = RunConfig(sparse_eval="always")
        sparse_evaluation(config, sharded, example, images=MANY, macs=MANY)
    assert sparse_evaluation(RunConfig(), sharded, example, images=MANY, macs=MANY) is None
