"""Compiled training: the same numbers, the same keys, and few compilations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from sparsetrain.training import compiled, session
from sparsetrain.training.check import resolve
from sparsetrain.training.config import RunConfig
from sparsetrain.training.errors import BadInput, RunFailed
from sparsetrain.training.nonfinite import Guard
from sparsetrain.training.session import build_session
from sparsetrain.training.settings import build
from tests.training_tools import ART, TINY, fake_load, run, tiny_dataset

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own

CPU, GPU = torch.device("cpu"), torch.device("cuda")
# 48 training images in batches of 20, 20 and 8; 16 held out: two sizes that come often, one odd.
SETTINGS = {"batch_size": 20}


@pytest.fixture(autouse=True)
def _no_code_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    monkeypatch.setattr(session.data, "load", fake_load)


def _both(folder: Path, **settings: Any) -> list[dict[str, Any]]:
    return [
        run(folder / mode, compile=mode, **SETTINGS, **settings) for mode in ("none", "default")
    ]


@pytest.mark.parametrize("options", [ART, {"method": "granet", "update_every": 2}])
def test_a_compiled_run_has_the_plain_one_s_weights_keys_and_accuracy(tmp_path, options):
    plain, made = _both(tmp_path, **options)
    assert counters["stats"]["unique_graphs"] > 0
    assert (plain["compiled"], made["compiled"]) == (None, "default")
    assert made["test_accuracy"] == pytest.approx(plain["test_accuracy"], abs=0.05)
    files = [load_file(tmp_path / mode / "model.safetensors") for mode in ("none", "default")]
    assert files[0].keys() == files[1].keys()
    for name, tensor in files[0].items():
        torch.testing.assert_close(files[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_mask_updates_rates_epochs_and_odd_batches_compile_nothing_anew(tmp_path):
    run(tmp_path, compile="default", method="granet", update_every=1, epochs=6, **SETTINGS)
    # Training on 20 images, and evaluation of the 16 held out; batches of 8 run as they are.
    assert counters["stats"]["unique_graphs"] == 2


def test_arts_pruned_evaluation_takes_one_graph_for_all_its_epochs(tmp_path):
    run(tmp_path, compile="default", epochs=7, **SETTINGS, **(ART | {"max_regularize_epochs": 4}))
    assert counters["stats"]["unique_graphs"] == 3


def test_five_runs_in_one_process_are_all_compiled(tmp_path):
    for seed in range(5):
        run(tmp_path / str(seed), compile="default", method="dense", epochs=1, seed=seed)
    assert counters["stats"]["unique_graphs"] == 10  # torch stops at 8 of one function


def test_a_run_may_be_continued_with_another_mode(tmp_path):
    first = run(tmp_path, method="dense", epochs=1)
    assert run(tmp_path, method="dense", epochs=1, compile="default") == first


def test_auto_compiles_on_a_gpu_only_and_not_where_bits_must_repeat():
    def mode(device: torch.device, parallel: str = "none", **options: Any) -> str | None:
        return compiled.compile_mode(RunConfig(compile="auto", **options), device, parallel)

    assert mode(GPU) == mode(GPU, "ddp") == "default"
    assert mode(CPU) is mode(GPU, "fsdp") is mode(GPU, deterministic=True) is None
    assert compiled.compile_mode(RunConfig(), GPU, "none") is None
    assert compiled.compile_mode(RunConfig(compile="default"), CPU, "none") == "default"
    with pytest.raises(BadInput, match="fsdp"):
        compiled.compile_mode(RunConfig(compile="default"), GPU, "fsdp")


def test_the_layer_that_made_a_nan_is_named_in_a_compiled_network_too():
    config = resolve(build(TINY | {"compile": "default", "method": "dense"}))
    made = build_session(config, dataset=tiny_dataset())
    images = next(iter(made.train.batches(0)))[0]
    made.place.forward(made.model, images)
    assert counters["stats"]["unique_graphs"] == 1
    layers = [m for m in made.model.modules() if isinstance(m, torch.nn.Linear)]
    with torch.no_grad():
        for layer in layers[:2]:  # finite weights, infinite products
            layer.weight.fill_(3e38)
    with pytest.raises(RunFailed, match="output of"):
        Guard(made.model).step(made.optimizer, made.model(images).sum() * torch.nan, images)


@pytest.mark.slow
def test_inductor_s_run_equals_the_plain_one_to_rounding(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    plain, made = _both(tmp_path, model="resnet8", method="granet", update_every=2, epochs=2)
    assert made["kept_weights"] == plain["kept_weights"]
    files = [load_file(tmp_path / mode / "model.safetensors") for mode in ("none", "default")]
    assert files[0].keys() == files[1].keys()
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / mode / "metrics.jsonl").open()]
        for mode in ("none", "default")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
