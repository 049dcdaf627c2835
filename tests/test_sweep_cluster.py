"""Runs as tasks of a real Ray cluster on this machine, where Ray is installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparsetrain import cli
from sparsetrain.experiments import cluster, saved
from tests.sweep_tools import results, run_sweep, write_recipe

GRID = {"method": ["dense", "rigl"], "seed": [0, 1]}
LONG = {"epochs": 60, "validation": 0.1, "batch_size": 64, "checkpoint_every": "1ep"}


def test_without_ray_the_sentence_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(cluster, "import_module", absent)
    assert cli.main(["sweep", str(write_recipe(GRID)), "--ray"]) == 2
    assert "pip install 'sparsetrain[ray]'" in capsys.readouterr().err


def _ray(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sparsetrain", "sweep", "r.yaml", *words]
    return subprocess.Popen(
        [*command, "--ray", "--ray-address", "local"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _tasks(folder: Path) -> list[int]:
    """Processes of the cluster that hold a run folder of this test open."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(link.startswith(str(folder)) for link in links):
            found.append(int(process.name))
    return found


@pytest.mark.slow
def test_a_run_whose_process_is_lost_continues_in_another(monkeypatch, tmp_path):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    write_recipe(GRID, **LONG)
    process = _ray("--save", "ray.json")
    end = time.monotonic() + 150
    # Past its fifth epoch: what is lost must not be the whole run.
    while not (late := list(Path("runs").rglob("epoch-00005.pt"))) and time.monotonic() < end:
        time.sleep(0.01)
    assert late
    held = _tasks(tmp_path / "runs")
    assert held
    os.kill(held[0], signal.SIGKILL)
    _, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    lost = saved.loads(Path("ray.json").read_text()).rows
    whole = run_sweep(Path("r.yaml"), out=Path("whole")).rows
    assert results(lost) == results(whole)
