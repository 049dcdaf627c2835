"""Two runs of one configuration are equal to the bit on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sparsetrain.training import session
from tests.training_tools import ART, run, tiny_dataset

# Enough channels that torch shares out a convolution's work among threads.
IMAGES = {"classes": 4, "size": 16, "channels": 3, "train": 128}
GRANET = {"method": "granet", "update_every": 2, "epochs": 2}
TIMES = {"seconds"}


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.data, "load", lambda *_, **__: tiny_dataset(**IMAGES))


def _result(folder: Path, **settings: Any) -> tuple[Any, ...]:
    """What must repeat: the lines of metrics without times, and every tensor's bytes."""
    record = run(folder, **settings)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    tensors = load_file(folder / "model.safetensors")
    held = {n: t.contiguous().numpy().tobytes() for n, t in tensors.items()}
    return record["threads"], metrics, held


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_runs_are_equal_to_the_bit(tmp_path, precision, threads):
    settings = {"model": "resnet8", "precision": precision, "threads": threads, **GRANET}
    first, second = (_result(tmp_path / name, **settings) for name in "ab")
    assert first == second
    assert first[0] == threads
    assert torch.get_num_threads() == 1  # as it was before the runs


def test_another_seed_gives_another_run(tmp_path):
    first, second = (_result(tmp_path / str(seed), **GRANET, seed=seed) for seed in (0, 1))
    assert first[2] != second[2]


def test_deterministic_changes_nothing_on_the_cpu_and_is_put_back(tmp_path):
    settings = {"model": "resnet8", **ART}
    plain = _result(tmp_path / "a", **settings)
    strict = _result(tmp_path / "b", deterministic=True, **settings)
    assert plain == strict
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_was_drawn_before_the_run_does_not_matter(tmp_path):
    first = _result(tmp_path / "a", **GRANET)
    torch.randn(7)
    assert _result(tmp_path / "b", **GRANET) == first
