"""Records of sweeps, and the arithmetic of their tables."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sparsetrain import cli
from sparsetrain.experiments import saved, worker
from sparsetrain.experiments.results import cells
from sparsetrain.experiments.table import markdown_table, text_table
from sparsetrain.training.errors import RunFailed
from sparsetrain.training.progress import duration
from tests.sweep_tools import GRID, make_runs_quick, run_sweep, write_recipe


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    make_runs_quick(monkeypatch, tmp_path)


def test_a_saved_file_gives_back_every_row_and_names_no_folder(tmp_path):
    swept = run_sweep(
        write_recipe(GRID, per_method={"static": {"distribution": "er"}}), save=Path("s.json")
    )
    text = Path("s.json").read_text()
    assert str(tmp_path) not in text and "runs/" not in text and "per_layer" not in text
    found = saved.loads(text)
    assert list(found.rows) == list(json.loads(json.dumps(swept.rows)))
    assert (found.recipe, found.axes) == ("r", ())
    assert found.command == "sparsetrain sweep r.yaml"
    assert found.rows[2]["options"] == {"distribution": "er"}
    data = json.loads(text)
    assert data["shared"]["settings"]["epochs"] == 2
    assert data["methods"]["static"]["distribution"] == "er"
    assert data["runs"][0]["settings"] == {"seed": 0}
    assert len(text.splitlines()) == 7 + len(data["methods"]) + 1 + len(data["runs"]) + 3


def test_a_record_has_the_facts_that_matter():
    (row,) = run_sweep(write_recipe({"method": ["rigl"], "drop_fraction": [0.2]})).rows
    promised = (
        "key method options model dataset images seed sparsity kept_weights prunable_weights "
        "epochs steps test_accuracy val_accuracy flops seconds versions device threads commit "
        "precision settings"
    )
    assert set(promised.split()) <= set(row)
    assert row["options"] == {"drop_fraction": 0.2}
    assert set(row["sparsity"]) == {"target", "achieved"}
    assert not {"command", "per_layer"} & set(row)


def test_runs_whose_record_is_committed_are_not_made_again(capsys):
    whole = run_sweep(write_recipe(GRID), save=Path("s.json"))
    Path("records").mkdir()
    Path("s.json").rename("records/s.json")
    Path("records/other.json").write_text('{"results": []}')
    Path("records/broken.json").write_text("{")
    assert cli.main(["sweep", "r.yaml", "--out", "b", "--records", "records"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "sweep r: 6 runs, 6 recorded, 0 to do -> b",
        "6 of the table's 6 runs are taken from records and have no finished folder in b.",
    ]
    assert not Path("b").exists()
    swept = run_sweep(Path("r.yaml"), out=Path("b"), records=Path("records"), save=Path("t.json"))
    assert swept.text == whole.text
    assert Path("t.json").read_text() == Path("records/s.json").read_text()


def test_a_single_run_s_record_counts_too(capsys):
    run_sweep(write_recipe({"method": ["dense"], "seed": [0]}))
    (record,) = Path("runs").rglob("record.json")
    Path("records").mkdir()
    record.rename("records/a.json")
    swept = run_sweep(write_recipe(GRID), out=Path("b"), records=Path("records"), dry_run=True)
    assert [line.split()[0] for line in swept.text.splitlines()[:-2]] == ["recorded"] + ["new"] * 5
    assert cli.main(["sweep", "r.yaml", "--out", "b", "--records", "records"]) == 0
    said = "1 of the table's 6 runs is taken from records and has no finished folder in b."
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert cli.main(["sweep", "r.yaml", "--out", "b"]) == 0
    assert "taken from" not in capsys.readouterr().err


def _row(method, sparsity, seed, accuracy, **settings):
    return {
        "settings": {"method": method, "seed": seed, **settings},
        "sparsity": {"target": sparsity},
        "test_accuracy": accuracy,
    }


def test_mean_and_standard_deviation_are_those_computed_by_hand():
    # 96, 98, 99: mean 97.666…, squared distances 2.777… + 0.111… + 1.777… = 4.666…,
    # over n - 1 = 2 it is 2.333…, whose root is 1.5275.
    rows = [_row("set", 0.9, seed, a) for seed, a in enumerate((0.96, 0.98, 0.99))]
    cell = cells(rows)["set"][0.9]
    assert cell.n == 3
    assert cell.mean == pytest.approx(0.976667, abs=1e-6)
    assert cell.sd == pytest.approx(0.015275, abs=1e-6)


def test_the_table_has_a_column_a_sparsity_and_shows_n_where_seeds_are_missing():
    rows = [
        *(_row("dense", 0.0, seed, a) for seed, a in enumerate((0.98, 0.98))),
        *(_row("set", 0.9, seed, a) for seed, a in enumerate((0.90, 0.94))),
        _row("set", 0.98, 0, 0.5),
    ]
    # 90 and 94: mean 92, squared distances 4 + 4 over 1, the root of 8 is 2.83.
    assert text_table(cells(rows), seeds=2).splitlines() == [
        "zeros  0 %           90 %          98 %",
        "dense  98.00 ± 0.00",
        "set                  92.00 ± 2.83  50.00 (n=1)",
    ]
    assert markdown_table(cells(rows), seeds=2).splitlines() == [
        "| zeros | 0 % | 90 % | 98 % |",
        "|---|---|---|---|",
        "| dense | 98.00 ± 0.00 |  |  |",
        "| set |  | 92.00 ± 2.83 | 50.00 (n=1) |",
    ]


def test_other_settings_of_the_grid_make_lines_of_their_own():
    rows = [_row("art", 0.9, 0, a, regularizer=r) for a, r in ((0.9, "l1"), (0.8, "l2"))]
    assert list(cells(rows, ("regularizer",))) == ["art regularizer=l1", "art regularizer=l2"]
    assert list(cells(rows)) == ["art"]


def test_a_failed_run_is_missing_from_its_cell(monkeypatch):
    real = worker.train

    def train(config, **rest):
        if (config.sparse.method, config.run.seed) == ("static", 1):
            raise RunFailed("a storm.")
        return real(config, **rest)

    monkeypatch.setattr(worker, "train", train)
    swept = run_sweep(write_recipe(GRID | {"sparsity": [0.9]}))
    dense, static = swept.text.splitlines()[1:]
    assert "(n=" not in dense and static.endswith("(n=1)")
    assert swept.failed == {"static 0.9 seed 1": "a storm."}


# The page.


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    return importlib.import_module("sweep_tables")


def test_the_page_is_written_from_the_saved_file_alone(pages):
    swept = run_sweep(write_recipe(GRID | {"sparsity": [0.9]}), save=Path("s.json"))
    text = pages.block(Path("s.json"))
    accuracies, costs = (part.splitlines() for part in text.split("\n\n") if part[0] == "|")
    assert accuracies == markdown_table(cells(swept.rows), seeds=2).splitlines()
    dense, static = [row for row in swept.rows if row["seed"] == 0]
    share = static["flops"]["inference_sparse"] / static["flops"]["inference_dense"]
    assert costs[0] == "| method | infer 90 % | train 90 % | CPU seconds |"
    assert costs[3].startswith(f"| static | {share:.3f} | {share:.3f} | ")
    assert "mean ± standard deviation (n − 1) over 2 seeds, by" in text
    used = duration(sum(row["seconds"]["processor"] for row in swept.rows))
    assert f"`sparsetrain sweep r.yaml`: 4 runs, {used} of CPU time in all, on " in text
    assert "`epochs` 2" in text and "82,944 prunable weights" in text
    assert f"torch {dense['versions']['torch']}" in text


def test_the_page_says_equal_only_of_what_is_equal(pages):
    grid = {"method": ["dense"], "lr": [0.05, 0.1], "seed": [0]}
    run_sweep(write_recipe(grid), save=Path("s.json"))
    text = pages.block(Path("s.json"))
    assert "`lr` " not in text.split("Equal in all runs")[1]
    assert "| dense lr=0.05 |" in text
    assert "Test accuracy of the last epoch in percent, one seed, by the fraction of zeros:" in text


def test_nothing_is_written_of_a_sweep_that_has_not_been_run(pages):
    assert pages.block(Path("nowhere.json")) == pages.picture(Path("nowhere.json")) == ""


def test_the_picture_has_a_panel_a_sparsity_and_the_best_on_top(pages):
    run_sweep(write_recipe(GRID | {"sparsity": [0.9, 0.98]}), save=Path("s.json"))
    drawn = pages.picture(Path("s.json"))
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert re.findall(r">(\S+ % zeros)<", drawn) == ["90 % zeros", "98 % zeros"]
    assert drawn.count(">dense</text>") == 2  # the mark of each panel, not a row
    assert drawn.count("<circle") == 2  # one method with zeros, a row in each
