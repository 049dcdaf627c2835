"""Sweeps in several processes, and killed ones: on the real digits, for they cannot be patched."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsetrain.experiments import saved
from tests.sweep_tools import results, write_recipe

pytestmark = pytest.mark.slow
REAL = {"epochs": 20, "validation": 0.1, "batch_size": 64}
GRID = {"method": ["dense", "rigl"], "seed": [0, 1]}


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_recipe(GRID, **REAL)


def _start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sparsetrain", "sweep", "r.yaml", *words]
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's & has its commands ignore Ctrl-C, and they pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=200)
    return process.returncode, err


def _rows(name: str) -> list[dict]:
    return results(saved.loads(Path(name).read_text()).rows)


def _wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def _workers(process: subprocess.Popen[str]) -> list[int]:
    tasks = Path(f"/proc/{process.pid}/task")
    children = [c for task in tasks.iterdir() for c in (task / "children").read_text().split()]
    return [pid for pid in map(int, children) if b"spawn_main" in _argv(pid)]


def _argv(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _free() -> bool:
    """Whether no process holds a run folder."""
    for path in Path("runs").rglob(".lock"):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
    return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The rows of one process, not interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        write_recipe(GRID, **REAL)
        assert _finish(_start("--save", "whole.json"))[0] == 0
        return _rows("whole.json")


def test_two_processes_give_what_one_gives(undisturbed: list[dict]) -> None:
    code, err = _finish(_start("--jobs", "2", "--save", "two.json"))
    assert (code, err.splitlines()[0]) == (0, "sweep r: 4 runs, 4 to do -> runs/r")
    assert sorted(line[:6] for line in err.splitlines()[1:]) == [f"[{i}/4] " for i in range(1, 5)]
    assert _rows("two.json") == undisturbed


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_sweep_goes_on_where_it_was(
    jobs: str, number: signal.Signals, undisturbed: list[dict]
) -> None:
    process = _start("--jobs", jobs)
    _wait_until(lambda: any(Path("runs").rglob("*.pt")))
    workers = _workers(process) if jobs == "2" else []
    assert len(workers) == (2 if jobs == "2" else 0)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    code, err = _finish(process)
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 128 + number
        assert "Traceback" not in err
        assert err.splitlines()[-1].endswith("runs finished; the same command continues.")
        # Its workers have ended before it, with their checkpoints.
        assert _free() and not any(map(_argv, workers))
    _wait_until(lambda: _free() and not any(map(_argv, workers)))
    code, err = _finish(_start("--jobs", jobs, "--save", "broken.json"))
    assert code == 0, err
    # A process that is killed may leave a file half-written; the next one of the run takes it away.
    assert not list(Path("runs").rglob("*.part"))
    assert "broken off" in err.splitlines()[0]
    assert _rows("broken.json") == undisturbed


def test_a_supervisor_that_signals_all_and_kills_the_rest_costs_no_epoch() -> None:
    # As of a container: SIGTERM to the whole group, and SIGKILL once the main process has ended.
    write_recipe(GRID, **REAL, checkpoint_every="20ep")
    process = _start("--jobs", "2")
    _wait_until(lambda: sum(len(_lines(p)) > 1 for p in Path("runs").rglob("metrics.jsonl")) == 2)
    os.killpg(process.pid, signal.SIGTERM)
    code, err = _finish(process)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert code == 143, err
    before = {p: _lines(p) for p in Path("runs").rglob("metrics.jsonl")}
    assert _finish(_start("--jobs", "2"))[0] == 0
    # Seconds, too: no epoch was trained again.
    assert all(_lines(path)[: len(lines)] == lines for path, lines in before.items())


def _lines(metrics: Path) -> list[str]:
    return metrics.read_text().splitlines()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_killing_a_sweep_loses_at_most_one_checkpoint_interval(jobs: str) -> None:
    # The wall-clock seconds in an epoch's line tell an epoch that was trained again.
    write_recipe(GRID, **REAL, checkpoint_every="1ep")
    process = _start("--jobs", jobs)
    _wait_until(lambda: any(Path("runs").rglob("epoch-00007.pt")))
    os.killpg(process.pid, signal.SIGKILL)
    _finish(process)
    _wait_until(_free)
    under_way = [p for p in Path("runs").rglob("metrics.jsonl") if not _recorded(p)]
    assert under_way
    before = {path: path.read_text().splitlines() for path in under_way}
    assert _finish(_start("--jobs", jobs))[0] == 0
    for path, lines in before.items():
        after = path.read_text().splitlines()
        kept = sum(line in after for line in lines)
        assert kept >= len(lines) - 1
        assert len(after) == REAL["epochs"]


def _recorded(metrics: Path) -> bool:
    return (metrics.parent / "record.json").exists()


def test_a_process_that_dies_costs_its_run_alone() -> None:
    process = _start("--jobs", "2")
    _wait_until(lambda: any(Path("runs").rglob("*.pt")))
    os.kill(_workers(process)[0], signal.SIGKILL)
    code, err = _finish(process)
    assert code == 1
    assert "failed: its process was killed by SIGKILL" in err
    assert "1 of 4 runs failed" in err
    assert _finish(_start("--jobs", "2"))[0] == 0
