"""A sweep makes each of its runs once, whatever happens, and says so in plain lines."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path

import pytest

from sparsetrain import cli
from sparsetrain.experiments import saved, turns, worker
from sparsetrain.experiments.command import train_command
from sparsetrain.experiments.expand import expand
from sparsetrain.experiments.recipe import load
from sparsetrain.experiments.results import make_row
from sparsetrain.training import lock
from sparsetrain.training.errors import Interrupted
from sparsetrain.training.progress import Reporter
from tests.sweep_tools import GRID, make_runs_quick, results, run_sweep, write_recipe
from tests.training_tools import fake_load


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    make_runs_quick(monkeypatch, tmp_path)


def _interrupt_after(monkeypatch, batches):
    """Ctrl-C in the middle of an epoch."""
    left = iter(range(batches))

    def advance(_):
        if next(left, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "advance", advance)


def test_every_run_is_made_once_and_then_skipped(capsys):
    assert cli.main(["sweep", str(write_recipe(GRID))]) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[0] == "sweep r: 6 runs, 6 to do -> runs/r"
    assert [line[:6] for line in lines[1:]] == [f"[{i}/6] " for i in range(1, 7)]
    assert lines[1].startswith("[1/6] dense seed 0        test")
    assert lines[3].startswith("[3/6] static 0.9 seed 0   test")
    assert "eta" in lines[1] and "eta" not in lines[-1]
    assert out.splitlines()[0].split() == ["zeros", "0", "%", "90", "%", "95", "%"]
    before = {p: p.stat().st_mtime_ns for p in Path("runs").rglob("*")}
    assert cli.main(["sweep", "r.yaml"]) == 0
    again, err = capsys.readouterr()
    assert err == "sweep r: 6 runs, 6 finished, 0 to do -> runs/r\n"
    assert again == out
    assert before == {p: p.stat().st_mtime_ns for p in Path("runs").rglob("*")}


def test_the_runs_are_those_that_train_makes_alone(capsys):
    (row,) = run_sweep(write_recipe({"method": ["static"], "seed": [3]})).rows
    (folder,) = Path("runs/r").iterdir()
    command = json.loads((folder / "record.json").read_text())["command"]
    assert cli.main([*shlex.split(command)[1:], "--out", "alone", "--json"]) == 0
    alone = make_row(json.loads(capsys.readouterr().out))
    assert results([alone]) == results([row])


def test_data_are_loaded_once(monkeypatch):
    loaded = []
    monkeypatch.setattr("sparsetrain.data.load", lambda *a, **k: loaded.append(a) or fake_load())
    run_sweep(write_recipe(GRID))
    assert len(loaded) == 1


def test_more_of_a_grid_makes_only_the_new_runs():
    run_sweep(write_recipe({"method": ["static"], "seed": [0]}))
    swept = run_sweep(write_recipe({"method": ["static"], "seed": [0, 1]}), dry_run=True)
    starts = [line.split()[0] for line in swept.text.splitlines()]
    assert starts == ["finished", "new", "sweep", "estimated"]


def test_a_failed_run_is_told_and_the_others_go_on(capsys):
    grid = {"method": ["dense"], "lr": [1e30, 0.05], "seed": [0, 1]}
    assert cli.main(["sweep", str(write_recipe(grid))]) == 1
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert "dense lr=1e+30 seed 0  failed: epoch 1: " in lines[1]
    assert lines[3].startswith("[3/4] dense lr=0.05 seed 0 ")
    assert lines[5] == "2 of 4 runs failed; the same command tries them again:"
    assert lines[6].startswith("  dense lr=1e+30 seed 0: epoch 1: ")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["dense", "lr=0.05"]]
    assert cli.main(["sweep", "r.yaml"]) == 1
    assert capsys.readouterr().err.startswith("sweep r: 4 runs, 2 finished, 2 failed, 2 to do")


def test_a_bug_in_one_run_is_not_the_end_of_the_others(monkeypatch):
    real = worker.train

    def train(config, **rest):
        if config.run.seed == 0:
            raise TypeError("unfit")
        return real(config, **rest)

    monkeypatch.setattr(worker, "train", train)
    swept = run_sweep(write_recipe({"method": ["static"], "seed": [0, 1]}))
    assert [row["seed"] for row in swept.rows] == [1]
    assert swept.failed["static 0.9 seed 0"].startswith("TypeError: unfit (train, line ")


def test_a_folder_of_other_settings_is_a_failed_run_and_stays(monkeypatch):
    (run,) = expand(load(write_recipe({"method": ["static"]})))
    cli.main(shlex.split(train_command(run.config, out=Path("runs/r") / run.folder))[1:])
    config = Path("runs/r") / run.folder / "config.yaml"
    config.write_text(config.read_text().replace("lr: 0.05", "lr: 0.5"))
    swept = run_sweep(Path("r.yaml"))
    assert swept.rows == ()
    assert "lr 0.5 there and 0.05 here" in swept.failed["static 0.9 seed 0"]


def test_a_run_under_way_in_another_process_is_waited_for(monkeypatch, capsys):
    recipe = write_recipe({"method": ["static"], "seed": [0, 1]})
    first = Path("runs/r") / expand(load(recipe))[0].folder
    first.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock.locked(first))  # as the other process does
        monkeypatch.setattr(turns.time, "sleep", lambda _: stack.close())
        assert cli.main(["sweep", str(recipe)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "[1/2] static 0.9 seed 1",
        "1 run under way in another process; waiting for static 0.9 seed 0.",
        "[2/2] static 0.9 seed 0",
    ]


def test_a_folder_that_cannot_be_used_is_said_to_be_so_by_the_plan_too(capsys):
    recipe = write_recipe({"method": ["static"], "seed": [0, 1]})
    run_sweep(recipe)
    record = Path("runs/r") / expand(load(recipe))[0].folder / "record.json"
    record.write_text('{"meth')
    assert cli.main(["sweep", str(recipe), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("unusable  static 0.9 seed 0")
    assert lines[2] == f"unusable: cannot read {record}; remove it to run again."
    assert "1 finished, 1 unusable, 1 to do" in lines[3]
    failed = run_sweep(recipe).failed
    assert failed == {"static 0.9 seed 0": f"cannot read {record}; remove it to run again."}
    record.unlink()
    assert not run_sweep(recipe).failed


def test_ctrl_c_before_the_first_run_is_told_of_the_sweep(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsetrain.experiments.sweep.survey", stop)
    assert cli.main(["sweep", str(write_recipe(GRID))]) == 130
    assert "stopped between two runs; the same command continues." in capsys.readouterr().err


@pytest.mark.parametrize("batches", [0, 2, 8, 13])
def test_ctrl_c_stops_in_one_sentence_and_the_same_command_continues(capsys, monkeypatch, batches):
    # A run has 2 epochs of 3 batches.
    run_sweep(write_recipe(GRID), out=Path("whole"), save=Path("whole.json"))
    with monkeypatch.context() as patch:
        _interrupt_after(patch, batches)
        assert cli.main(["sweep", "r.yaml", "--save", "broken.json"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"sparsetrain: stopped with {batches // 6} of 6 runs finished; the same command continues."
    )
    assert not Path("broken.json").exists()
    assert cli.main(["sweep", "r.yaml", "--save", "broken.json"]) == 0
    whole, broken = (saved.loads(Path(f"{n}.json").read_text()) for n in ("whole", "broken"))
    assert results(whole.rows) == results(broken.rows)
    text = capsys.readouterr().err
    assert (f"{batches // 6} finished" in text) == (batches >= 6)


def test_ctrl_c_between_two_runs_is_the_same(monkeypatch):
    def line(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsetrain.experiments.words.Progress.line", line)
    with pytest.raises(Interrupted, match="stopped with 0 of 6 runs finished") as stop:
        run_sweep(write_recipe(GRID))
    assert stop.value.code == 130


def test_dry_run_prints_the_plan_and_writes_nothing(capsys, tmp_path):
    assert cli.main(["sweep", str(write_recipe(GRID)), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0].split()[:4] == ["new", "dense", "seed", "0"]
    assert out.splitlines()[-2] == "sweep r: 6 runs, 6 to do -> runs/r"
    assert [p.name for p in tmp_path.iterdir()] == ["r.yaml"]


def test_json_prints_a_line_a_run_on_stdout_and_the_table_on_stderr(capsys):
    assert cli.main(["sweep", str(write_recipe(GRID)), "--json"]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["method"] for row in rows] == ["dense"] * 2 + ["static"] * 4
    assert "static" in err.splitlines()[-1]
