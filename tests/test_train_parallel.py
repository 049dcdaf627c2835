"""The command on two processes that torchrun starts: one network, one writer, one resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sparsetrain import analysis
from tests.process_tools import free_port

TINY = ["--model", "mlp", "--batch-size", "128", "--epochs", "3", "--lr", "0.05"]
TINY += ["--precision", "fp32", "--device", "cpu"]


def command(out: Path, *words: str, processes: int = 1, restarts: int = 0) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        start += [f"--master-port={free_port()}", f"--max-restarts={restarts}"]
    return [*start, "-m", "sparsetrain", "train", *TINY, "--out", str(out), *words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def run(out: Path, *words: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(out, *words, processes=processes),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=environment(),
    )


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


def assert_same_run(one: Path, two: Path) -> None:
    weights, others = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    for name, weight in weights.items():
        assert torch.equal(weight == 0, others[name] == 0), name
        torch.testing.assert_close(weight, others[name], rtol=1e-4, atol=1e-6)
    for key in ("kept_weights", "steps", "test_accuracy", "val_accuracy", "train_accuracy"):
        assert record_of(one)[key] == record_of(two)[key], key
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (one, two)]
    assert len(lines[0]) == len(lines[1]) == record_of(two)["epochs"]  # written once each


def assert_same_trace(one: Path, two: Path) -> None:
    first, second = (analysis.load_trace(folder / "trace") for folder in (one, two))
    assert first is not None and second is not None
    for field in ("epochs", "steps", "active", "explored", "dropped", "grown", "updates"):
        assert np.array_equal(getattr(first, field), getattr(second, field)), field
    assert np.array_equal(first.classes, second.classes)
    for mask, other in zip(first.masks, second.masks, strict=True):
        assert mask is not None and other is not None and np.array_equal(mask, other)
    np.testing.assert_allclose(first.weight_profile, second.weight_profile, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = run(folder, "--method", "granet")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_the_network_of_one(parallel: str, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run(out, "--method", "granet", "--parallel", parallel, "--json", processes=2)
    assert done.returncode == 0, done.stderr
    assert_same_run(alone, out)
    assert json.loads(done.stdout) == record_of(out)  # one line: the other process is silent
    assert record_of(out)["processes"] == 2
    assert done.stderr.count("epoch 1/3") == 1
    if parallel == "ddp":
        assert_same_trace(alone, out)
    else:
        assert not (out / "trace").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["art", "imp", "snip", "snfs"])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_every_family_trains_on_two_processes(method: str, parallel: str, tmp_path: Path) -> None:
    words = ["--method", method, "--sparsity", "0.5"]
    words += ["--epochs-per-round", "1"] if method == "imp" else []
    assert run(tmp_path / "one", *words).returncode == 0
    done = run(tmp_path / "two", *words, "--parallel", parallel, processes=2)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_torchrun_without_the_flag_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path / "run", processes=2)
    assert done.returncode != 0
    assert "give --parallel ddp or --parallel fsdp" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_flag_without_torchrun_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--parallel", "ddp")
    assert done.returncode == 2
    assert "torchrun --nproc-per-node" in done.stderr


def stopped_in_the_middle(out: Path, *words: str, processes: int) -> None:
    """Start a run and send it SIGTERM once its first checkpoint lies there."""
    started = command(out, *words, "--checkpoint-every", "3it", processes=processes)
    with subprocess.Popen(
        started, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(out / "checkpoint", "*.pt")
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    assert not (out / "record.json").exists()


def wait_for(folder: Path, pattern: str, *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        assert time.monotonic() < end, f"no {pattern} in {folder}"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that it has started and that are not over, in that order."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_checkpoint(folder: Path, *, after: int, seconds: float = 120) -> int:
    """The nanosecond in which the newest checkpoint was written, once that is after another."""
    end = time.monotonic() + seconds
    while True:
        written = [path.stat().st_mtime_ns for path in folder.glob("*.pt") if path.exists()]
        if max(written, default=0) > after:
            return max(written)
        assert time.monotonic() < end, f"no new checkpoint in {folder}"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_checkpoint_continues_on_another_number_of_processes(
    parallel: str, before: int, after: int, tmp_path: Path
) -> None:
    words = ["--method", "rigl", "--epochs", "12"]
    assert run(tmp_path / "whole", *words).returncode == 0
    out = tmp_path / "run"

    def flags(processes: int) -> list[str]:
        return [*words, *(["--parallel", parallel] if processes > 1 else [])]

    stopped_in_the_middle(out, *flags(before), processes=before)
    done = run(out, *flags(after), "--checkpoint-every", "3it", processes=after)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stderr
    weights, others = (load_file(p / "model.safetensors") for p in (tmp_path / "whole", out))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-2, atol=1e-3)
    assert record_of(out)["steps"] == record_of(tmp_path / "whole")["steps"]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_torchrun_restarts_a_run_of_which_each_process_died_once(
    parallel: str, tmp_path: Path
) -> None:
    words = ["--method", "granet", "--parallel", parallel, "--epochs", "12"]
    words += ["--checkpoint-every", "5it"]
    assert run(tmp_path / "whole", *words, processes=2).returncode == 0
    out, seen = tmp_path / "run", 0
    with subprocess.Popen(
        command(out, *words, processes=2, restarts=3),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for victim in (1, 0):
            seen = wait_for_checkpoint(out / "checkpoint", after=seen)
            ranks = children(process.pid)
            os.kill(ranks[victim], signal.SIGKILL)
            while set(ranks) & set(children(process.pid)):
                time.sleep(0.02)
            seen = time.time_ns()
        try:
            _, said = process.communicate(timeout=200)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert said.count("continuing") == 2
    weights, others = (load_file(p / "model.safetensors") for p in (tmp_path / "whole", out))
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())
    if parallel == "ddp":
        assert_same_trace(tmp_path / "whole", out)
