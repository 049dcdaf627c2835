"""The recipes of the comparison at equal budgets, and a recipe that goes on with the best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sparsetrain import cli, methods
from sparsetrain.experiments.best import with_best
from sparsetrain.experiments.expand import expand
from sparsetrain.experiments.recipe import load
from sparsetrain.training.errors import BadInput, Diverged
from tests.sweep_tools import make_runs_quick, run_sweep, write_recipe

FOLDER = Path(__file__).parents[1] / "recipes" / "equal-budget"


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    make_runs_quick(monkeypatch, tmp_path)


def _runs(name: str):
    recipe = load(FOLDER / f"{name}.yaml")
    if recipe.best is not None:  # as if stage A had chosen these
        chosen = ("gmp", "granet", "rigl", "imp", "snip")
        recipe = replace(recipe, grids=tuple({"method": chosen, **g} for g in recipe.grids))
    return expand(recipe)


@pytest.mark.parametrize("name", ["stage-a", "stage-b", "stage-c", "revival"])
def test_every_run_of_a_stage_has_the_same_budget(name):
    # Data, optimizer and epochs; of ART and IMP, 20 epochs are all phases together.
    runs = _runs(name)
    assert {run.config.optim for run in runs} == {runs[0].config.optim}
    assert {run.config.data for run in runs} == {runs[0].config.data}
    assert {run.config.model for run in runs} == {runs[0].config.model}
    assert (runs[0].config.optim.epochs, runs[0].config.data.dataset) == (20, "fashion-mnist")
    assert all(getattr(r.config.options, "finetune_epochs", None) is None for r in runs)
    assert all(getattr(r.config.options, "epochs_per_round", None) is None for r in runs)
    assert {r.config.sparse.compat for r in runs} == {"none"}


def test_stage_a_has_every_method_once_at_each_sparsity():
    about = [(r.about["method"], r.about["sparsity"]) for r in _runs("stage-a")]
    assert len(about) == len(set(about)) == 1 + 2 * (len(methods.names()) - 1)
    assert {method for method, _ in about} == set(methods.names())


def test_stage_b_has_three_seeds_of_five_and_of_art_s_three():
    runs = _runs("stage-b")
    assert len(runs) == 3 * (5 * 2 + 3 * 2 + 1)


def test_revival_is_tried_on_runs_that_are_stage_c_s_but_for_it():
    of_c, runs = {run.key for run in _runs("stage-c")}, _runs("revival")
    assert {run.key in of_c for run in runs if run.config.options.revive} == {True}
    assert {run.key in of_c for run in runs if not run.config.options.revive} == {False}
    assert len(runs) == 2 * sum(run.config.options.revive for run in runs)


def _swept() -> Path:
    """A finished sweep of three methods whose order on held-out images is known from its rows."""
    path = write_recipe({"method": ["static", "rigl", "gmp", "dense"], "seed": [0, 1]})
    return path.rename("first.yaml")


def _second(**best) -> Path:
    parts = yaml.safe_load(Path("first.yaml").read_text())
    parts["grid"] = {"seed": [5]}
    parts["best"] = {"of": "first.yaml", **best}
    Path("second.yaml").write_text(yaml.safe_dump(parts))
    return Path("second.yaml")


def test_the_best_by_held_out_images_go_on():
    swept = run_sweep(_swept())
    means = {
        method: sum(r["val_accuracy"] for r in swept.rows if r["method"] == method)
        for method in ("static", "rigl", "gmp")
    }
    expected = sorted(means, key=lambda method: -means[method])[:2]
    recipe = with_best(load(_second(count=2, **{"not": ["dense"]})), {})
    assert list(recipe.grids[0]["method"]) == expected
    rows = run_sweep(Path("second.yaml")).rows
    assert [row["method"] for row in rows] == expected
    # A third goes on with the better of the two, by the second's own runs.
    better = max(rows, key=lambda row: row["val_accuracy"])["method"]
    assert with_best(load(_third()), {}).grids[0]["method"] == (better,)


def _third() -> Path:
    parts = yaml.safe_load(Path("second.yaml").read_text())
    parts["best"] = {"of": "second.yaml", "count": 1}
    Path("third.yaml").write_text(yaml.safe_dump(parts))
    return Path("third.yaml")


@pytest.mark.parametrize("of", ["second.yaml", "third.yaml"])
def test_recipes_that_go_on_with_each_other_in_a_circle_are_refused(of, capsys):
    _swept()
    _second(of=of)
    assert cli.main(["sweep", str(_third())]) == 2
    assert f"best goes round in a circle: {of} leads back to itself." in capsys.readouterr().err


def test_a_field_that_is_no_number_chooses_nobody():
    run_sweep(_swept())
    with pytest.raises(BadInput, match=r"by seconds is no number in the records of first\.yaml"):
        with_best(load(_second(by="seconds")), {})


def test_an_unfinished_sweep_has_no_best(capsys):
    _swept()
    assert cli.main(["sweep", str(_second())]) == 2
    assert "8 are not finished. Run `sparsetrain sweep first.yaml` first" in capsys.readouterr().err


def _write(grid: dict, **parts) -> None:
    write_recipe(grid, **parts).rename("first.yaml")


def test_a_method_that_becomes_nan_is_passed_over_until_it_is_mended(capsys):
    grid = {"method": ["static", "rigl", "gmp"], "seed": [0, 1]}
    _write(grid, per_method={"rigl": {"lr": 1e30}})
    swept = run_sweep(Path("first.yaml"))
    assert len(swept.failed) == 2 and all("became nan" in error for error in swept.failed.values())
    assert cli.main(["sweep", str(_second(count=3)), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "best of first.yaml passes over rigl: 2 of its 2 runs failed: epoch 1: " in err
    assert "rigl" not in out and "2 runs" in out
    # The sweep tells them, and tries them again; other settings are other runs.
    assert cli.main(["sweep", "first.yaml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "6 runs, 4 finished, 2 failed, 2 to do" in out and "failed: epoch 1: " in out
    _write(grid, per_method={"rigl": {"lr": 0.05}})
    assert cli.main(["sweep", "second.yaml", "--dry-run"]) == 2
    assert "of which 2 are not finished" in capsys.readouterr().err
    run_sweep(Path("first.yaml"))
    assert set(with_best(load(_second(count=3)), {}).grids[0]["method"]) == set(grid["method"])


def test_a_run_that_failed_is_forgotten_once_it_is_through(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("sparsetrain.experiments.worker.train", _diverge)
        assert len(run_sweep(_swept()).failed) == 8
    with pytest.raises(BadInput, match=r"best finds no method in first\.yaml"):
        with_best(load(_second()), {})
    assert run_sweep(Path("first.yaml")).failed == {}
    assert not list(Path("runs").rglob("*.failed"))
    assert len(with_best(load(_second(count=4)), {}).grids[0]["method"]) == 4


def _diverge(*_, **__):
    raise Diverged("a weight is NaN.")


def test_methods_that_do_not_count_need_not_be_finished():
    _write({"method": ["static", "gmp"], "seed": [0]})
    run_sweep(Path("first.yaml"))
    _write({"method": ["static", "gmp", "rigl"], "seed": [0]})
    with pytest.raises(BadInput, match="of which 1 are not finished"):
        with_best(load(_second()), {})
    chosen = with_best(load(_second(**{"not": ["rigl"]})), {}).grids[0]["method"]
    assert set(chosen) == {"static", "gmp"}


@pytest.mark.parametrize(
    ("best", "sentence"),
    [
        ({"by": "test_accuracy"}, "must not be of the test set"),
        ({"count": 0}, "at least 1, got 0"),
        ({"by": 3}, "by must be the name of a field, as val_accuracy, got 3"),
        ({"not": "art"}, "not must be a list of methods, got 'art'"),
        ({"not": ["arr"]}, "Did you mean 'art'?"),
        ({"top": 3}, "unknown part of best 'top'"),
    ],
)
def test_mistakes_in_best_are_one_sentence(best, sentence, capsys):
    _swept()
    assert cli.main(["sweep", str(_second(**best))]) == 2
    assert sentence in capsys.readouterr().err


def test_best_without_a_grid_for_it_is_refused(capsys):
    _swept()
    parts = yaml.safe_load(_second().read_text())
    parts["grid"] = {"method": ["static"]}
    Path("second.yaml").write_text(yaml.safe_dump(parts))
    assert cli.main(["sweep", "second.yaml"]) == 2
    assert "best has no effect" in capsys.readouterr().err


@pytest.mark.slow
def test_every_run_of_the_three_stages_gets_through_on_small_data():
    for stage in "abc":
        parts = yaml.safe_load((FOLDER / f"stage-{stage}.yaml").read_text())
        parts["defaults"] |= {"dataset": "digits", "epochs": 4, "batch_size": 16}
        if "best" in parts:
            parts["best"]["of"] = "stage-a.yaml"
        Path(f"stage-{stage}.yaml").write_text(yaml.safe_dump(parts))
        swept = run_sweep(Path(f"stage-{stage}.yaml"))
        assert swept.failed == {}
