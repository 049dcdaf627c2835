"""What a sweep will cost, the commands of its runs, and the table of the runs under way."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sparsetrain import cli
from sparsetrain.experiments.cost import Estimate, cost_line, estimates
from sparsetrain.experiments.expand import expand
from sparsetrain.experiments.live import Board
from sparsetrain.experiments.measure import Pace, _decoding, _images, measure
from sparsetrain.experiments.recipe import load
from sparsetrain.experiments.survey import survey
from sparsetrain.experiments.sweep import SweepOptions, sweep
from sparsetrain.training.check import resolve
from sparsetrain.training.progress import Reporter
from sparsetrain.training.settings import build
from tests.sweep_tools import GRID, make_runs_quick, results, run_sweep, write_recipe
from tests.training_tools import TINY


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    make_runs_quick(monkeypatch, tmp_path)


def _places(recipe: Path):
    return survey(expand(load(recipe)), Path("runs/r"), {})


def test_finished_runs_like_it_give_a_run_s_cost():
    (row,) = run_sweep(write_recipe({"method": ["static"], "seed": [0]})).rows
    row = row | {"seconds": {**row["seconds"], "total": 30.0}}  # 2 epochs
    others = [row, row | {"device": "cuda: another"}, row | {"precision": "bf16"}]
    places = _places(write_recipe({"method": ["static"], "seed": [1]}, epochs=6))
    assert estimates(places, others) == [Estimate(90.0, "records")]
    # Of another method where there is none of its own.
    places = _places(write_recipe({"method": ["rigl"]}, epochs=6))
    assert estimates(places, others) == [Estimate(90.0, "records")]
    # Another batch size is another kind of run.
    places = _places(write_recipe({"method": ["static"]}, batch_size=32))
    assert estimates(places, others)[0] != Estimate(90.0, "records")


def test_steps_are_measured_once_for_each_network(monkeypatch):
    asked = []

    def fake(config):
        asked.append(config.model.model)
        return Pace(image=0.01, regularizer=0.5)

    monkeypatch.setattr("sparsetrain.experiments.cost.measure", fake)
    grid = {"method": ["static"], "model": ["mlp", "resnet8"], "seed": [0, 1, 2]}
    found = estimates(_places(write_recipe(grid)), [])
    assert sorted(asked) == ["mlp", "resnet8"]
    # 1,437 digits, a quarter held out; a pass without gradients is a third of a step.
    expected = 2 * 0.01 * (1078 + 359 / 3) + 0.01 * 360 / 3
    assert [e.seconds for e in found] == pytest.approx([expected] * 6)


def test_art_costs_its_regulariser_and_its_judging_too():
    settings = TINY | {"epochs": 10, "dense_epochs": 2, "max_regularize_epochs": 4}
    pace = Pace(image=0.01, regularizer=0.5)
    art = pace.seconds(resolve(build(settings | {"method": "art"})))
    dense = pace.seconds(resolve(build(TINY | {"epochs": 10, "method": "dense"})))
    assert art - dense == pytest.approx(4 * (1078 / 16 * 0.5 + 0.01 * 1437 / 3))


def test_a_measured_pace_is_that_of_this_machine():
    config = resolve(build(TINY | {"model": "resnet8", "method": "static"}))
    started = time.perf_counter()
    pace = measure(config)
    spent = time.perf_counter() - started
    assert 0 < 16 * pace.image < spent  # a step is a part of what was done
    assert 0 < pace.regularizer < spent


def test_a_run_on_imagenet_costs_what_its_steps_and_its_decoding_cost(monkeypatch):
    monkeypatch.setattr("sparsetrain.experiments.measure._decoding", lambda _: 2.0)
    small = {"model": "resnet18-imagenet", "image_size": 32, "warmup": 2.0, "batch_size": 128}
    config = resolve(
        build(TINY | small | {"dataset": "imagenet", "method": "granet", "accumulate": 64})
    )
    pace = measure(config)
    assert 2 < pace.image < 4  # on a CPU in turn
    trained, held = 1_281_167 * 0.75, 1_281_167 * 0.25
    expected = pace.image * (4 * (trained + held / 3) + 50_000 / 3)
    assert pace.seconds(config) == pytest.approx(expected, rel=1e-5)


def test_decoding_is_timed_on_a_photograph_and_shared_by_the_workers():
    settings = TINY | {"dataset": "imagenet", "method": "static", "model": "resnet18-imagenet"}
    one, ten = (
        min(_decoding(resolve(build(settings | {"workers": n}))) for _ in range(3)) for n in (1, 10)
    )
    assert 0 < ten < one < 1
    assert _decoding(resolve(build(TINY | {"method": "static"}))) == 0


def test_larger_images_are_fewer_in_a_measured_step():
    settings = TINY | {"method": "static", "batch_size": 128, "model": "resnet18-imagenet"}
    sizes = [
        _images(resolve(build(settings | extra)))
        for extra in (
            {"dataset": "cifar10"},
            {"dataset": "imagenet"},
            {"dataset": "imagenet", "image_size": 96},
            {"dataset": "imagenet", "batch_size": 4},
        )
    ]
    assert sizes == [64, 16, 28, 4]


def test_a_run_that_was_broken_off_costs_what_is_left(monkeypatch):
    monkeypatch.setattr(
        "sparsetrain.experiments.cost.measure", lambda _: Pace(image=0.01, regularizer=0.0)
    )
    places = _places(write_recipe({"method": ["static"]}, epochs=4))
    (whole,) = estimates(places, [])
    places[0].folder.mkdir(parents=True)
    (places[0].folder / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    (rest,) = estimates(places, [])
    assert rest.seconds == pytest.approx(whole.seconds / 2)


def test_a_folder_of_images_has_no_known_cost(tmp_path):
    places = _places(write_recipe({"method": ["static"]}, dataset=str(tmp_path)))
    found = estimates(places, [])
    assert found == [Estimate(0.0, "unknown")]
    assert cost_line(found).endswith(": 0 s (1 of unknown cost).")


def test_a_run_on_a_gpu_can_be_planned_without_one(monkeypatch, capsys):
    (row,) = run_sweep(write_recipe({"method": ["static"], "seed": [0]})).rows
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    recipe = write_recipe({"method": ["static"], "seed": [1]}, device="cuda")
    assert estimates(_places(recipe), [row]) == [Estimate(0.0, "unknown")]
    assert cli.main(["sweep", str(recipe), "--dry-run"]) == 0
    assert "0 s (1 of unknown cost)." in capsys.readouterr().out


def test_the_plan_names_the_cost_of_each_run_and_of_all(capsys):
    recipe = write_recipe(GRID)
    run_sweep(write_recipe({"method": ["dense"], "seed": [0]}))
    recipe = write_recipe(GRID)
    assert cli.main(["sweep", str(recipe), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["finished", "dense", "seed", "0", "-"]
    assert re.match(r"new +dense seed 1 +\d+ s ", lines[1])
    said = r"estimated cost on this machine, one run after the other: \d+ s "
    assert re.fullmatch(said + r"\(5 by finished runs like them\)\.", lines[-1])


def test_commands_are_those_of_the_runs_that_are_left(capsys):
    run_sweep(write_recipe({"method": ["dense"], "seed": [0]}))
    capsys.readouterr()
    recipe = write_recipe(GRID, keep=1, checkpoint_every="2it")
    assert cli.main(["sweep", str(recipe), "--commands"]) == 0
    out, err = capsys.readouterr()
    assert err == "sweep r: 6 runs, 1 finished, 5 to do -> runs/r\n"
    commands = out.splitlines()
    assert len(commands) == 5
    assert all("--keep 1" in c and "--checkpoint-every 2it" in c for c in commands)
    for command in commands:
        assert cli.main([*shlex.split(command)[1:], "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    swept = run_sweep(recipe)  # finds them all
    assert [row["seed"] for row in swept.rows][1:] == [row["seed"] for row in rows]
    assert results(swept.rows)[1]["settings"] == rows[0]["settings"]


def test_the_board_shows_the_runs_under_way():
    places = _places(write_recipe({"method": ["static"], "seed": [0, 1, 2]}, epochs=4))
    board = Board(places)
    for place in places[:2]:
        place.folder.mkdir(parents=True)
        (place.folder / "config.yaml").write_text("")
    line = {"epoch": 3, "phase": "train", "train_accuracy": 0.5, "val_accuracy": 0.25}
    line |= {"sparsity": 0.9, "seconds": 20.0}
    (places[0].folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (places[1].folder / "record.json").write_text("{}")
    console = Console(file=io.StringIO(), width=120)
    console.print(board.draw())
    text = console.file.getvalue().splitlines()
    assert text[2].split() == [
        *("static", "0.9", "seed", "0", "3/4", "train"),
        *("50.0", "%", "25.0", "%", "0.900", "20", "s"),
    ]
    assert text[-1] == "1 of 3 finished, 1 running"


class _Watching(Reporter):
    """Draws the board whenever something is said below it."""

    def __init__(self):
        super().__init__(io.StringIO())
        self.draw, self.seen = None, []

    @contextlib.contextmanager
    def live(self, draw):
        self.draw = draw
        yield
        self.draw = None

    def say(self, text):
        if self.draw is not None:
            console = Console(file=io.StringIO(), width=120)
            console.print(self.draw())
            self.seen.append(console.file.getvalue())


def test_a_run_that_failed_leaves_the_board():
    grid = [{"method": ["dense"], "lr": [1e30]}, {"method": ["dense", "static"]}]
    reporter = _Watching()
    sweep(SweepOptions(write_recipe(grid)), reporter=reporter)
    assert [text.splitlines()[-1] for text in reporter.seen] == [
        "0 of 3 finished, 1 failed, 0 running",
        "1 of 3 finished, 1 failed, 0 running",
        "2 of 3 finished, 1 failed, 0 running",
    ]
    assert not any("lr=1e+30" in text for text in reporter.seen)


def test_the_board_leaves_out_what_an_earlier_sweep_left(monkeypatch):
    places = _places(write_recipe({"method": ["static"]}))
    places[0].folder.mkdir(parents=True)
    (places[0].folder / "config.yaml").write_text("")
    monkeypatch.setattr("time.time", lambda: 4e9)
    console = Console(file=io.StringIO(), width=120)
    console.print(Board([replace(place) for place in places]).draw())
    assert console.file.getvalue().splitlines()[-1] == "0 of 1 finished, 0 running"
