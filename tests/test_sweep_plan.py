"""From a recipe's file to its runs, and every mistake in it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from sparsetrain import cli, methods
from sparsetrain.experiments.command import train_command
from sparsetrain.experiments.expand import Run, expand
from sparsetrain.experiments.recipe import load
from sparsetrain.training.errors import BadInput
from sparsetrain.training.flags import parse_train
from sparsetrain.training.folder import default_path
from sparsetrain.training.settings import build, fingerprint, identity
from tests.sweep_tools import GRID, make_runs_quick, run_sweep, write_recipe
from tests.training_tools import TINY

DIGITS = Path(__file__).parents[1] / "recipes" / "methods-digits.yaml"


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    make_runs_quick(monkeypatch, tmp_path)


def _expand(grid=None, per_method=None, **defaults) -> tuple[Run, ...]:
    return expand(load(write_recipe(grid, per_method, **defaults)))


def test_the_runs_are_the_product_with_dense_once_a_seed():
    about = [tuple(run.about.values()) for run in _expand(GRID)]
    assert about == [
        ("dense", 0.0, 0),
        ("dense", 0.0, 1),
        ("static", 0.9, 0),
        ("static", 0.9, 1),
        ("static", 0.95, 0),
        ("static", 0.95, 1),
    ]


def test_several_grids_are_a_union_and_what_two_of_them_ask_for_is_one_run():
    grids = [
        {"method": ["rigl"], "drop_fraction": [0.2, 0.3], "seed": [0]},
        {"method": ["rigl", "static"], "seed": [0, 1]},
    ]
    runs = _expand(grids)
    # rigl's own default is 0.3, so seed 0 of the second grid is there already.
    assert [(r.about["method"], r.about["seed"]) for r in runs] == [
        ("rigl", 0),
        ("rigl", 0),
        ("rigl", 1),
        ("static", 0),
        ("static", 1),
    ]
    assert [r.about.get("drop_fraction") for r in runs] == [0.2, 0.3, 0.3, None, None]
    assert {r.axes for r in runs} == {("drop_fraction",)}


def test_per_method_stands_over_the_defaults_and_under_the_grid():
    own = {"imp": {"rounds": 1, "epochs": 4, "lr": 0.2}}
    static, imp, slow = _expand(
        [{"method": ["static", "imp"]}, {"method": ["imp"], "lr": [0.3]}], own, lr=0.1
    )
    assert (static.config.optim.epochs, static.config.optim.lr) == (2, 0.1)
    assert (imp.config.optim.epochs, imp.config.optim.lr, imp.config.options.rounds) == (4, 0.2, 1)
    assert slow.config.optim.lr == 0.3


def test_a_recipe_without_a_grid_is_one_run():
    (run,) = _expand(method="static")
    assert run.about == {"method": "static", "sparsity": 0.9, "seed": 0}


def test_folders_are_named_by_the_hash_of_the_settings_that_are_not_defaults():
    run = _expand({"method": ["static"], "sparsity": [0.95]})[0]
    config = build({**TINY, "epochs": 2, "method": "static", "sparsity": 0.95})
    assert run.key == fingerprint(config)
    assert run.folder == default_path(config).name
    assert run.folder.endswith(f"-static-0.95-s0-{run.key}")


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "it is empty; give it a grid"),
        ({"defaults": None}, "it is empty; give it a grid"),
        ({"grdi": {}}, "unknown part 'grdi'. Did you mean 'grid'?"),
        ({"defaults": {"lrr": 1}}, "defaults: unknown setting 'lrr'. Did you mean 'lr'?"),
        ({"defaults": [1]}, "defaults must hold `name: value` lines."),
        ({"defaults": {"out": "x"}}, "defaults sets out; the sweep chooses each run's own"),
        ({"grid": {"seed": 3}}, "grid: seed must be a list of values, got 3."),
        ({"grid": {"seed": []}}, "grid: seed must be a list of values, got []."),
        ({"grid": []}, "grid is an empty list"),
        ({"grid": {"sede": [1]}}, "grid: unknown setting 'sede'. Did you mean 'seed'?"),
        ({"grid": {"method": ["rigel"]}}, "unknown method 'rigel'. Did you mean 'rigl'?"),
        ({"grid": {"sparsity": [90]}}, "sparsity must be in [0, 1), got 90. Did you mean 0.9?"),
        ({"grid": {"seed": ["one"]}}, "seed must be a whole number, got 'one'."),
        ({"grid": {"threads": [1, 2]}}, "grid: threads does not make runs differ"),
        (
            {"grid": {"method": ["dense", "rigl"], "drop_fraction": [0.1]}},
            "grid: method 'dense' has no setting 'drop_fraction'. Put it under per_method,",
        ),
        (
            {"defaults": {"drop_fraction": 0.1}, "grid": {"method": ["rigl", "art"]}},
            "defaults: method 'art' has no setting 'drop_fraction'.",
        ),
        ({"per_method": {"rigl": {}}}, "per_method names rigl, which no grid runs."),
        ({"per_method": {"ark": {}}}, "unknown method 'ark'. Did you mean 'art'?"),
        (
            {"per_method": {"art": {"windw": 3}}},
            "per_method: art: unknown setting 'windw'. Did you mean 'window'?",
        ),
        ({"per_method": {"art": {"method": "imp"}}}, "per_method: art sets method"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(parts, sentence, capsys, tmp_path):
    Path("r.yaml").write_text(json.dumps(parts))
    assert cli.main(["sweep", "r.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert err.startswith(f"sparsetrain: recipe r.yaml: {sentence}")
    assert [p.name for p in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("nowhere.yaml", "cannot read the settings file nowhere.yaml"),
        ("r.yaml --jobs 0", "jobs must be at least 1, got 0."),
        ("r.yaml --save no/r.json", "cannot write no/r.json: there is no folder no."),
        ("r.yaml --records no", "records no is no folder."),
        ("r.yaml --job 2", "unknown option '--job'. Did you mean '--jobs'?"),
    ],
)
def test_a_mistake_on_the_command_line_too(words, sentence, capsys, tmp_path):
    write_recipe(GRID)
    assert cli.main(["sweep", *words.split()]) == 2
    assert capsys.readouterr().err.startswith(f"sparsetrain: {sentence}")
    assert not (tmp_path / "runs").exists()


def test_a_missing_model_or_data_set_is_found_before_the_first_run(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="Did you mean 'resnet20'"):
        run_sweep(write_recipe({"model": ["mlp", "restnet20"]}, method="dense"))

    def fail(*_, **__):
        raise ValueError("There is no data set.")

    monkeypatch.setattr("sparsetrain.data.load", fail)
    with pytest.raises(BadInput, match="There is no data set"):
        run_sweep(write_recipe(GRID))
    assert not (tmp_path / "runs").exists()


def test_the_command_in_a_record_repeats_the_run():
    settings = {"flip": False, "milestones": [0.2, 0.8], "lr": 5e-6, "width": 3, "seed": 4}
    for method in methods.names():
        config = build({**TINY, "method": method, **settings})
        words = shlex.split(train_command(config, out=Path("a b")))
        assert words[:2] == ["sparsetrain", "train"]
        parsed = parse_train(words[2:]).settings
        assert identity(parsed) == identity(config)
        assert parsed.run.out == Path("a b")


def test_the_recipe_on_digits_has_every_method_three_seeds_and_equal_epochs():
    runs = expand(load(DIGITS))
    points = {(r.about["method"], r.about["sparsity"], r.about["seed"]) for r in runs}
    sparsities = {m: (0.0,) if m == "dense" else (0.9, 0.95, 0.98) for m in methods.names()}
    assert points == {(m, s, k) for m, of in sparsities.items() for s in of for k in (0, 1, 2)}
    assert len(runs) == len(points)
    assert len({r.config.optim.epochs for r in runs}) == 1
    assert len({r.config.model for r in runs}) == 1
    assert len({r.config.data for r in runs}) == 1
    assert {r.config.data.dataset for r in runs} == {"digits"}
    assert all(r.config.data.validation > 0 and r.config.sparse.compat == "none" for r in runs)
