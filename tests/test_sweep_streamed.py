"""Several runs at a time whose images are decoded by processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparsetrain.experiments import pool
from sparsetrain.experiments.worker import Bench, Job
from tests.jpegs import write_folder
from tests.sweep_tools import write_recipe
from tests.training_tools import TINY

STREAMED = {"dataset": "imagenet", "image_size": 8, "batch_size": 8, "workers": 1}


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def _settings(**more: object) -> dict[str, object]:
    root = write_folder(Path("images").resolve(), classes=2, train=8, val=2)
    return STREAMED | {"data_dir": str(root)} | more


def test_a_process_of_a_sweep_trains_on_images_that_others_decode():
    settings = TINY | _settings(method="static", epochs=1, out="a")
    (outcome,) = pool.run_all([Job(0, settings, "")], workers=2, bench=Bench())
    assert outcome.error == ""
    assert outcome.record is not None and outcome.record["images"]["train"] == 12


def test_a_process_that_was_never_started_can_be_stopped():
    # As Ctrl-C may find it, between being noted and being started.
    worker = pool._Worker(pool.multiprocessing.get_context("spawn"), 1, None)
    worker.stop()
    worker.join()


def _descendants(pid: int) -> set[int]:
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = {int(c) for c in (task / "children").read_text().split()}
        found |= children.union(*map(_descendants, children))
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_sweep_of_streamed_data_leaves_no_process(number):
    more = {"epochs": 200, "checkpoint_every": "1ep"}
    write_recipe({"method": ["static"], "seed": [0, 1]}, **_settings(**more))
    command = [sys.executable, "-m", "sparsetrain", "sweep", "r.yaml", "--jobs", "2"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while not any(Path("runs").rglob("*.pt")):
        assert time.monotonic() < end
        time.sleep(0.01)
    family = _descendants(process.pid)
    assert len(family) >= 3  # two runs, and what decodes for one of them at least
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=100)
    ends = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == ends[number], err
    assert "Traceback" not in err
    end = time.monotonic() + 30  # a decoder looks for its parent every 5 seconds
    while any(map(_alive, family)):
        assert time.monotonic() < end
        time.sleep(0.05)
