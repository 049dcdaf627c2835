"""Benchmarks run, at a toy size, and write a record that says on what it was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel_tools import built

FOLDER = Path(__file__).parents[1] / "benchmarks"
TOY = {
    "art_epoch": ["--smoke"],
    "augmentation": ["--smoke"],
    "files": ["--smoke"],
    "gpu": ["--smoke"],
    "imagenet_loader": ["--smoke"],
    "install": ["--smoke"],
    "linear": ["--smoke"],
    "mask_update": ["--smoke"],
    "own_choices": ["--smoke"],
    "regularizer": ["--repeats", "1"],
    "runtime": ["--smoke"],
    "scale": ["--smoke"],
    "sparse_conv": ["--smoke"],
    "sparse_training": ["--smoke"],
    "vision_transformer": ["--smoke"],
}
# Several networks, under two trainers or compiled; a wheel built.
SLOW = {"art_epoch", "gpu", "install", "runtime", "scale"}
NATIVE = {"linear", "own_choices", "runtime"}  # time the C++ kernels, and refuse to time the twins


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] * (name in SLOW) + [built] * (name in NATIVE)


def test_every_benchmark_is_run_here() -> None:
    assert {*TOY, "scaling"} == {p.stem for p in FOLDER.glob("*.py") if "__main__" in p.read_text()}


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in TOY])
def test_a_benchmark_runs_at_toy_size_and_writes_its_record(name: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    command = [sys.executable, f"{FOLDER / name}.py", *TOY[name]]
    ran = subprocess.run(
        [*command, "--out", str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    # 1 is a missed gate, which times at this size say nothing about; an error writes no record.
    assert ran.returncode in (0, 1), ran.stderr
    record = json.loads(path.read_text())
    assert record["device"]
    assert record["threads"] == 1
    assert set(record["versions"]) == {"python", "torch", "numpy", "sparsetrain"}
    assert record["results"]


@pytest.mark.slow
def test_the_scaling_benchmark_runs_at_toy_size() -> None:
    command = [sys.executable, f"{FOLDER / 'scaling'}.py", "--smoke"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("images/s") == 3


def test_rows_of_a_record_replace_their_like_and_leave_the_others(tmp_path: Path) -> None:
    sys.path.insert(0, str(FOLDER))
    try:
        import runtime_table as table
    finally:
        sys.path.remove(str(FOLDER))
    path = tmp_path / "record.json"
    key = {"network": "a", "batch": 1, "threads": 1}
    old = [{**key, "sparsity": 0.9, "x": 1}, {**key, "sparsity": 0.95, "x": 2}]
    path.write_text(json.dumps({"results": old}))
    new = [{**key, "sparsity": 0.95, "x": 3}, {**key, "threads": 2, "sparsity": 0.5, "x": 4}]
    assert [row["x"] for row in table.merged(path, new, table.KEY)] == [1, 3, 4]
    assert table.gate("vgg19", 64, 1, 0.998) == 42
    assert table.gate("vgg19", 64, 2, 0.998) is None
    assert not table.met({"gate": 42, "speedup": 41.9})
