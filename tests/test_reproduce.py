"""Published tables: their numbers, their plans at every scale, and what is printed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from sparsetrain import cli, data
from sparsetrain.experiments import worker
from sparsetrain.experiments.reproduce.outcome import outcomes
from sparsetrain.experiments.reproduce.plan import plan
from sparsetrain.experiments.reproduce.published import Wanted, find, numbers
from sparsetrain.experiments.reproduce.show import markdown, text
from sparsetrain.experiments.reproduce.tables import names, table
from sparsetrain.experiments.words import run_name
from sparsetrain.training.check import resolve
from sparsetrain.training.errors import RunFailed
from sparsetrain.training.settings import build, identity, read
from tests.sweep_tools import make_runs_quick


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    make_runs_quick(monkeypatch, tmp_path)


def test_no_number_is_from_memory_and_each_has_a_source():
    assert {n.evidence for n in numbers()} == {"read", "second-hand"}
    assert all(n.source and 0 < n.top1 < 100 for n in numbers())


def test_the_readme_s_numbers_are_found():
    # spec: hypersparse-art.md 8.1 and granet.md 7a.
    wanted = Wanted("art", ("HS",), "HyperSparse README.md")
    (number,) = find(wanted, model="resnet32-w2", dataset="cifar100", sparsity=0.98)
    assert number.top1 == 70.08
    wanted = Wanted("granet", ("s_i=0",))
    (number,) = find(wanted, model="vgg19", dataset="cifar100", sparsity=0.98)
    assert (number.top1, number.sd) == (72.35, 0.26)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("scale", ["full", "small", "smoke"])
def test_every_cell_can_be_run_or_says_why_not(name, scale):
    cells = plan(table(name), scale)
    assert cells
    for cell in cells:
        assert cell.runs or cell.note
        assert all(run.config.data.dataset in data.names() for run in cell.runs)
    if scale != "full":
        assert {c.line for c in cells if not c.runs} == {
            line.name for line in table(name).lines if line.missing
        }


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("scale", ["full", "small", "smoke"])
def test_no_two_runs_of_a_table_have_the_same_name(name, scale):
    called = {run.key: run_name(run.about) for c in plan(table(name), scale) for run in c.runs}
    assert len(set(called.values())) == len(called)


def test_each_failed_run_is_told_and_counted(monkeypatch, capsys):
    def fail(*_, **__):
        raise RunFailed("a storm.")

    monkeypatch.setattr(worker, "train", fail)
    words = ["reproduce", "hypersparse", "--scale", "small", "--epochs", "4"]
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert "10 of 10 runs failed; the same command tries them again:" in err
    ends = err.splitlines()[-10:]
    assert len(set(ends)) == 10 and all(line.endswith(": a storm.") for line in ends)
    assert "10 cells: 10 failed." in out


@pytest.mark.parametrize("name", names())
def test_every_published_line_has_a_number_somewhere(name):
    cells = plan(table(name), "full")
    for line in table(name).lines:
        found = [cell.published for cell in cells if cell.line == line.name]
        assert any(found) == (line.published is not None), line.name


def test_the_full_scale_is_the_source_s():
    cells = plan(table("hypersparse"), "full")
    (cell,) = [c for c in cells if c.sparsity == 0.98 and c.problem.startswith("VGG-19, Tiny")]
    config = cell.runs[0].config
    assert (config.optim.batch_size, config.optim.weight_decay, config.optim.lr) == (64, 1e-4, 0.1)
    assert (config.options.dense_epochs, config.options.finetune_epochs) == (60, 160)
    assert (config.sparse.compat, config.data.validation) == ("paper", 0.0)
    # GraNet trains on 45,000 images of CIFAR-10 and on all of CIFAR-100, three seeds each.
    for cell in plan(table("granet"), "full"):
        assert len(cell.runs) == 3
        share = cell.runs[0].config.data.validation
        assert share == (0.1 if cell.problem.endswith("CIFAR-10") else 0.0)


@pytest.mark.parametrize(
    ("line", "recipe"),
    [
        ("GraNet from half", "granet"),
        ("GraNet from dense", "granet-dense-start"),
        ("GMP", "gmp"),
        ("RigL-ITOP", "itop"),
    ],
)
def test_the_lines_of_imagenet_are_the_source_s_command_lines(line, recipe):
    cells = plan(table("granet-imagenet"), "full")
    (cell,) = [c for c in cells if c.line == line and c.sparsity == 0.8]
    path = Path(__file__).parents[1] / "recipes" / "granet-imagenet" / f"{recipe}.yaml"
    assert identity(cell.runs[0].config) == identity(resolve(build(read(path))))


def test_a_longer_line_of_imagenet_stretches_its_whole_schedule():
    for name, longer, times in (("rigl-imagenet", "RigL, ERK, five times as long", 5),):
        cells = {c.line: c.runs[0].config for c in plan(table(name), "full") if c.sparsity == 0.8}
        short, long = cells["RigL, ERK"], cells[longer]
        assert long.optim.epochs == times * short.optim.epochs
        assert long.optim.warmup == times * short.optim.warmup
        assert long.optim.milestones == short.optim.milestones  # fractions of the epochs
        assert long.options == short.options
    # 32,000 steps of 4,096 images; drops at epochs 30, 70 and 90; in parts of 128.
    optim = short.optim
    assert optim.epochs == pytest.approx(32_000 * 4096 / 1_281_167, abs=0.5)
    assert [m * optim.epochs for m in optim.milestones] == pytest.approx([30, 70, 90], abs=1e-3)
    assert optim.batch_size / optim.accumulate == 128


def _rows(cells, accuracies):
    """A row for each first run, its accuracy from a list."""
    return {
        cell.runs[0].key: {"test_accuracy_best": a, "test_accuracy": 0.5}
        for cell, a in zip(cells, accuracies, strict=True)
    }


def test_the_difference_at_full_scale_is_that_of_the_accuracies():
    cells = [c for c in plan(table("hypersparse"), "full") if "VGG-19, CIFAR-100" in c.problem][:2]
    found = outcomes(cells, _rows(cells, [0.74, 0.75]), set(), "full")
    # 72.88 dense and 73.23 at 90 % are published.
    assert [o.difference for o in found] == pytest.approx([1.12, 1.77])
    assert [o.ours.statistic for o in found] == ["test_accuracy_best"] * 2


def test_the_difference_at_a_smaller_scale_is_that_of_what_sparsity_costs():
    cells = plan(table("hypersparse"), "smoke")[:3]
    found = outcomes(cells, _rows(cells, [0.99, 0.97, 0.90]), set(), "smoke")
    # 94.70 dense, 94.22 at 90 %, 92.69 at 98 % are published.
    expected = [None, -2 - (94.22 - 94.70), -9 - (92.69 - 94.70)]
    assert [o.difference for o in found] == pytest.approx(expected)


def test_what_sparsity_costs_is_against_the_dense_network_of_the_number_s_own_text():
    # spec: published_results.md, "never mix families"; methods.md C2 has the dense networks.
    cells = plan(table("hypersparse-comparison"), "small")
    accuracies = [0.9 if cell.dense else 0.85 for cell in cells]
    found = outcomes(cells, _rows(cells, accuracies), set(), "small")
    there = {(o.cell.instead, o.cell.line): o.difference for o in found if o.cell.sparsity == 0.9}
    vgg, resnet = "VGG-19, CIFAR-10", "ResNet-32 of double width, CIFAR-10"
    assert there[vgg, "LTH"] == pytest.approx(-5 - (93.51 - 94.23))
    assert there[vgg, "ART, HyperSparse"] == pytest.approx(-5 - (93.93 - 93.84))
    assert there[resnet, "ART, HyperSparse"] == pytest.approx(-5 - (94.22 - 94.70))
    # Of two texts nobody knows which; of GraSP's ResNet-32 nobody has the dense number.
    for cell in ((vgg, "SNIP"), (vgg, "GraSP"), (resnet, "SNIP"), (resnet, "RigL")):
        assert there[cell] is None
    said = text(table("hypersparse-comparison"), found, "small")
    assert "The dense network of LTH: 94.23 [5], VGG-19, CIFAR-10." in said
    assert "[5] HaroonKhawaja/BaCP docs/published_comparators.md (quoting arXiv 2002.07376)" in said
    assert f"({resnet}: SNIP, LTH, RigL; {vgg}: SNIP, GraSP)." in said


@pytest.mark.parametrize("name", names())
def test_no_number_is_beside_the_dense_network_of_another_text(name):
    # Named by the table itself, for which see there.
    by_hand = {"hypersparse-logs", "itop-imagenet", "rigl-imagenet"}
    for cell in plan(table(name), "full"):
        if cell.control is not None and name not in by_hand:
            assert cell.control.texts == cell.published[0].texts and len(cell.control.texts) == 1


@pytest.mark.parametrize("write", [text, markdown])
def test_the_table_says_which_accuracy_ours_is(write):
    cells = plan(table("hypersparse"), "full")[:2]
    best = {"test_accuracy_best": 0.74, "test_accuracy": 0.5}
    last = {"test_accuracy": 0.61}
    rows = dict(zip((c.runs[0].key for c in cells), (best, last), strict=True))
    said = write(table("hypersparse"), outcomes(cells, rows, set(), "full"), "full")
    assert "74.00 †" in said and "61.00" in said and "61.00 †" not in said
    assert "† ours: test accuracy of the best epoch, which the test set itself chose" in said
    assert "ours: test accuracy after the last epoch." in said
    del rows[cells[0].runs[0].key]
    said = write(table("hypersparse"), outcomes(cells, rows, set(), "full"), "full")
    assert "†" not in said and "ours: test accuracy after the last epoch." in said


def test_some_of_the_seeds_are_part_of_a_cell():
    cells = plan(table("granet"), "full")[:1]
    keys = [run.key for run in cells[0].runs]
    rows = {key: {"test_accuracy": 0.9} for key in keys}
    assert outcomes(cells, rows, set(), "full")[0].state == "run"
    del rows[keys[0]]
    (partly,) = outcomes(cells, rows, set(), "full")
    assert (partly.state, partly.ours.n, partly.ours.sd) == ("partly", 2, 0.0)
    assert outcomes(cells, {}, {keys[0]}, "full")[0].state == "failed"
    assert outcomes(cells, {}, set(), "full")[0].state == "not run"


def test_a_table_is_run_once_and_printed_in_every_form(capsys):
    words = ["reproduce", "hypersparse", "--epochs", "4"]
    assert cli.main([*words, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "5 cells: 5 not run." in out
    assert err.startswith("reproduce hypersparse: 5 runs, 5 to do -> runs/reproduce-smoke")
    assert "estimated cost" in err
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert "ResNet-8, digits (in place of ResNet-32 of double width, CIFAR-10)" in out
    assert "5 cells: 5 run." in out
    assert cli.main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "5 finished, 0 to do" in err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["published"] for row in rows] == [[94.70], [94.22], [92.69], [89.35], []]
    assert all(row["ours"] is not None and row["state"] == "run" for row in rows)
    assert cli.main([*words, "--format", "csv"]) == 0
    again = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(row["ours"]) for row in again] == [row["ours"] for row in rows]
    assert cli.main([*words, "--format", "md"]) == 0
    assert "| ART, HyperSparse | 98 % | 92.69 [1] |" in capsys.readouterr().out


def test_tables_share_their_runs(capsys):
    assert cli.main(["reproduce", "hypersparse-tuned", "--epochs", "4"]) == 0
    capsys.readouterr()
    assert cli.main(["reproduce", "hypersparse", "--epochs", "4", "--dry-run"]) == 0
    assert "5 runs, 4 finished, 1 to do" in capsys.readouterr().err


def test_granet_s_table_runs(capsys):
    assert cli.main(["reproduce", "granet", "--epochs", "4"]) == 0
    assert "25 cells: 25 run." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_every_table_runs(name, capsys):
    code = cli.main(["reproduce", name, "--epochs", "4", "--json"])
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    failed = {(r["method"], r["sparsity"]) for r in rows if r["state"] == "failed"}
    assert code == bool(failed), err
    # What the note of that cell says.
    assert failed <= {("random tickets (SmartRatio)", 0.998)}
    assert {r["state"] for r in rows} <= {"run", "cannot run", "failed"}


def test_the_tables_are_listed_and_a_mistyped_one_is_named(capsys):
    assert cli.main(["reproduce"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in names())
    assert cli.main(["reproduce", "hypersparce"]) == 2
    assert "Did you mean 'hypersparse'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--scale", "full", "--epochs", "5"], "epochs is for the smaller scales"),
        (["--epochs", "0"], "epochs must be at least 1, got 0."),
        (["--jobs", "0"], "jobs must be at least 1"),
        (["--cpus", "0"], "cpus must be at least 1"),
        (["--save", "nowhere/a.json"], "cannot write nowhere/a.json: there is no folder nowhere."),
        (["--save", "."], "cannot write .: it is a folder; give a file."),
    ],
)
def test_bad_options_are_one_sentence(words, sentence, capsys):
    assert cli.main(["reproduce", "hypersparse", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_imp_needs_an_epoch_for_each_of_its_trainings(capsys):
    words = ["--epochs", "3", "--dry-run"]
    assert cli.main(["reproduce", "hypersparse-comparison", *words]) == 2
    assert "epochs must be at least 4, one for each training of IMP" in capsys.readouterr().err
    plan(table("rigl"), "smoke", 1)  # a table without it does not


def test_cells_without_a_published_dense_accuracy_say_why_they_have_no_difference():
    cells = plan(table("rigl"), "smoke")
    found = outcomes(cells, _rows(cells, [0.9] * len(cells)), set(), "smoke")
    assert all(o.difference is None for o in found)
    said = [line for line in text(table("rigl"), found, "smoke").splitlines() if "No diff" in line]
    assert len(said) == 1 and cells[0].instead in said[0]
    whole = plan(table("hypersparse"), "smoke")
    found = outcomes(whole, _rows(whole, [0.9] * len(whole)), set(), "smoke")
    assert "No diff" not in text(table("hypersparse"), found, "smoke")


def test_full_scale_says_first_what_is_missing_and_what_it_costs(capsys, monkeypatch):
    def absent(name, **options):
        assert options["download"] is False
        raise data.DataError(f"{name}.tar is missing and downloading is off. Put it there.")

    monkeypatch.setattr(data, "load", absent)
    monkeypatch.setattr("sparsetrain.experiments.cost.measure", lambda _: _Fixed())
    assert cli.main(["reproduce", "hypersparse-logs", "--scale", "full", "--dry-run"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == (
        "missing data: cifar10.tar is missing; it is downloaded when the runs begin."
    )
    assert lines[2].startswith("estimated cost on this machine, one run after the other: 5 days")


def test_imagenet_is_planned_and_is_never_downloaded(capsys, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sparsetrain.experiments.cost.measure", lambda _: _Fixed())
    words = ["reproduce", "granet-imagenet", "--scale", "full", "--data-dir", str(tmp_path)]
    assert cli.main([*words, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "21 cells: 17 not run, 4 cannot run." in out
    lines = err.splitlines()
    assert lines[0].startswith("reproduce granet-imagenet: 17 runs, 17 to do")
    assert lines[1] == (
        f"missing data: {tmp_path} does not hold train/ and val/; give --data-dir FOLDER where "
        "train/CLASS/*.JPEG and val/CLASS/*.JPEG lie (ImageNet itself is to be had from "
        "image-net.org alone)."
    )
    assert lines[2].startswith("estimated cost on this machine, one run after the other: 42 days")
    assert cli.main(words) == 2  # and nothing is run
    assert "does not hold train/ and val/" in capsys.readouterr().err.splitlines()[-1]


class _Fixed:
    def seconds(self, config) -> float:
        return 2.5 * 86400
