"""Runs as tasks of a real Ray cluster on this machine, where Ray is installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparsetrain import cli
from sparsetrain.experiments import cluster, room, saved
from sparsetrain.experiments.worker import Job, Outcome
from sparsetrain.training.errors import BadInput
from tests.jpegs import write_folder
from tests.sweep_tools import results, run_sweep, write_recipe
from tests.training_tools import TINY

GRID = {"method": ["dense", "rigl"], "seed": [0, 1]}
LONG = {"epochs": 60, "validation": 0.1, "batch_size": 64, "checkpoint_every": "1ep"}


def test_without_ray_the_sentence_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(cluster, "import_module", absent)
    assert cli.main(["sweep", str(write_recipe(GRID)), "--ray"]) == 2
    assert "pip install 'sparsetrain[ray]'" in capsys.readouterr().err


def test_a_task_finds_a_data_set_beside_the_driver(monkeypatch, tmp_path):
    for name in ("driver", "task"):
        (tmp_path / name).mkdir()
    write_folder(tmp_path / "driver" / "pets", classes=2, train=8, val=2)
    settings = TINY | {"dataset": "./pets", "method": "static", "image_size": 8, "epochs": 1}
    monkeypatch.chdir(tmp_path / "driver")
    job = cluster._absolute(Job(0, settings | {"out": "a"}, ""))
    monkeypatch.chdir(tmp_path / "task")
    outcome = cluster._run(job, 1, str(tmp_path / "driver"))
    assert outcome.error == ""
    assert (tmp_path / "driver" / "a" / "record.json").exists()
    # A node that lacks the folder says what is missing.
    monkeypatch.chdir(tmp_path / "task")
    elsewhere = Job(0, job.settings | {"out": str(tmp_path / "b")}, "")
    assert "pets" in cluster._run(elsewhere, 1, str(tmp_path / "nowhere")).error


class _Ray:
    """What `_connect` asks of Ray: no cluster runs at the addresses of `dead`."""

    def __init__(self, *dead: str) -> None:
        self.dead, self.asked = dead, []

    def is_initialized(self) -> bool:
        return False

    def init(self, *, address: str, **_: object) -> None:
        self.asked.append(address)
        if address in self.dead:
            raise ConnectionError("nobody answers")


@pytest.mark.parametrize(
    ("given", "variable", "asked"),
    [
        ("head:6379", "other:6379", ["head:6379"]),
        ("auto", "other:6379", ["other:6379"]),
        ("auto", None, ["auto", "local"]),
        ("local", "other:6379", ["local"]),
    ],
)
def test_the_variable_stands_in_for_auto_alone(monkeypatch, given, variable, asked):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    ray = _Ray("auto")
    assert cluster._connect(ray, given)
    assert ray.asked == asked


@pytest.mark.parametrize(("given", "variable"), [("head:6379", None), ("auto", "head:6379")])
def test_a_named_cluster_that_does_not_answer_is_no_reason_to_start_one(
    monkeypatch, given, variable
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    ray = _Ray("head:6379")
    with pytest.raises(BadInput, match="there is no Ray cluster at head:6379: nobody answers"):
        cluster._connect(ray, given)


def test_reproduce_gives_each_run_the_cpus_and_gpus_it_is_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []

    def run_all(jobs, wanted, *, say):
        asked.append(wanted)
        raise BadInput("enough.")
        yield

    monkeypatch.setattr(cluster, "run_all", run_all)
    words = ["reproduce", "hypersparse", "--ray", "--cpus", "3", "--gpus", "0.5"]
    assert cli.main(words) == 2
    assert asked == [cluster.Cluster("auto", 3, 0.5)]


class _Cluster(_Ray):
    """A cluster of some nodes; a task ends when its outcome has been waited for twice."""

    def __init__(self, *nodes: dict, dead: tuple[str, ...] = ()) -> None:
        super().__init__(*dead)
        self._nodes, self._waited, self.left = nodes, 0, False
        self.exceptions = SimpleNamespace(RayError=OSError)

    def nodes(self) -> list[dict]:
        gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
        return [gone, *({"Alive": True, "Resources": node} for node in self._nodes)]

    def cluster_resources(self) -> dict:
        return {name: 1 for node in self._nodes for name in node}

    def remote(self, _) -> SimpleNamespace:
        return SimpleNamespace(
            options=lambda **_: SimpleNamespace(remote=lambda job, *_: job.index)
        )

    def wait(self, references: list, **_) -> tuple[list, list]:
        self._waited += 1
        return (references, []) if self._waited > 2 else ([], references)

    def get(self, reference: int) -> Outcome:
        return Outcome(reference, record={})

    def shutdown(self) -> None:
        self.left = True


def _made(monkeypatch, ray: _Cluster, wanted: cluster.Cluster, said: list[str]) -> list[Outcome]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "_import", lambda: ray)
    return list(cluster.run_all([Job(0, {"out": "a"}, "")], wanted, say=said.append))


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ((8, None), "a node of 8 CPUs, and Ray's cluster has none (2 CPUs)."),
        ((1, 1.0), "a node of 1 CPU and 1 GPU, and Ray's cluster has none (2 CPUs)."),
    ],
)
def test_a_cluster_started_here_that_is_too_small_is_refused(monkeypatch, wanted, sentence):
    ray = _Cluster({"CPU": 2.0}, dead=("auto",))
    with pytest.raises(BadInput) as told:
        _made(monkeypatch, ray, cluster.Cluster("auto", *wanted), [])
    assert str(told.value) == f"a run needs {sentence} Lower --cpus or --gpus."
    assert ray.left


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 3), (300.0, 1)])
def test_a_cluster_that_may_grow_is_waited_for_and_that_is_told(monkeypatch, seconds, times):
    monkeypatch.setattr(room, "_REMIND", seconds)
    said: list[str] = []
    ray = _Cluster({"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0})
    assert len(_made(monkeypatch, ray, cluster.Cluster("auto", 4), said)) == 1
    assert len(said) == times
    there = "(8 CPUs, 2 CPUs and 1 GPU). Waiting for one"
    assert said[0].startswith("a run needs a node of 4 CPUs and 1 GPU, and Ray's cluster has none")
    assert there in said[0]
    said.clear()
    _made(monkeypatch, ray, cluster.Cluster("auto", 2), said)
    assert said == []


@pytest.mark.slow
def test_ray_itself_tells_what_its_nodes_have(monkeypatch, tmp_path, capsys):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    words = ["--ray", "--ray-address", "local", "--cpus", "4096"]
    write_recipe(GRID, dataset="digits")
    assert cli.main(["sweep", "r.yaml", *words]) == 2
    assert "a run needs a node of 4096 CPUs, and" in capsys.readouterr().err


@pytest.mark.slow
def test_sigterm_ends_a_sweep_on_ray_in_a_sentence(monkeypatch, tmp_path):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    write_recipe(GRID, **LONG)
    process = _ray()
    end = time.monotonic() + 150
    while not any(Path("runs").rglob("epoch-00001.pt")) and time.monotonic() < end:
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=150)
    assert process.returncode == 143, err
    assert err.splitlines()[-1].endswith("runs finished; the same command continues.")


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
