"""The study of pruning plasticity: its masks, its numbers, and going on after a break."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from sparsetrain import cli
from sparsetrain.experiments.measure import Pace
from sparsetrain.experiments.plasticity import study
from sparsetrain.experiments.plasticity.variants import Variant, masks_for
from sparsetrain.masks import kept
from sparsetrain.optimizers import same_shaped_state
from sparsetrain.report.figures.plasticity import columns, plasticity_figures
from sparsetrain.report.standalone import sheet
from sparsetrain.report.study import read_curves
from tests.sweep_tools import make_runs_quick
from tests.training_tools import run


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    make_runs_quick(monkeypatch, tmp_path)


def _net() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10))
    gradients = {n: torch.randn_like(p) for n, p in model.named_parameters() if p.ndim > 1}
    return model, gradients


@pytest.mark.parametrize("structure", ["global", "layer"])
@pytest.mark.parametrize("regrow", ["none", "gradient", "random"])
def test_regrowth_keeps_the_count_and_new_weights_are_zero(structure, regrow):
    model, gradients = _net()
    masks, grown = masks_for(
        Variant(1, 0.8, structure, regrow), model, gradients, share=0.25, seed=0
    )
    sizes = {n: p.numel() for n, p in model.named_parameters() if p.ndim > 1}
    count = {n: int(m.sum()) for n, m in masks.items()}
    if structure == "layer":
        assert count == {n: kept(size, 0.8) for n, size in sizes.items()}
    assert sum(count.values()) == kept(sum(sizes.values()), 0.8)
    for name, weight in model.named_parameters():
        if name not in masks:
            continue
        assert not weight[~masks[name]].any()
        new = masks[name] & (weight == 0)
        assert int(new.sum()) == (0 if regrow == "none" else round(0.25 * count[name]))
        assert regrow == "none" or torch.equal(grown[name], new)


def test_regrowth_by_gradient_takes_the_largest_of_what_was_pruned():
    model, gradients = _net()
    dense = copy.deepcopy(model)
    none, _ = masks_for(Variant(1, 0.8, "global", "none"), dense, gradients, share=0.25, seed=0)
    masks, _ = masks_for(
        Variant(1, 0.8, "global", "gradient"), model, gradients, share=0.25, seed=0
    )
    for name, mask in masks.items():
        came = mask & ~none[name]
        stayed_away = ~mask & ~none[name]
        assert gradients[name][came].abs().min() >= gradients[name][stayed_away].abs().max()


@pytest.mark.parametrize("regrow", ["none", "gradient", "random"])
def test_structured_pruning_takes_whole_filters(regrow):
    model, gradients = _net()
    masks, _ = masks_for(Variant(1, 0.5, "channel", regrow), model, gradients, share=0.25, seed=0)
    rows = masks["0.weight"].flatten(1)
    assert torch.equal(rows.any(1), rows.all(1))
    assert not rows.all()


def test_a_fraction_that_whole_filters_cannot_reach_is_left_out_and_told(capsys):
    words = [*WORDS[:-1], "0.5", "0.999", "--structures", "channel", "--regrows", "none"]
    assert cli.main([*words, "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert [row["fraction"] for row in csv.DictReader(io.StringIO(out))] == ["0.5", "0.5"]
    assert err.count("left out: structure channel at 0.999, for whole filters of this network") == 1
    assert cli.main([*WORDS[:-1], "0.999", "--structures", "channel"]) == 2
    assert "lower them, or take other structures." in capsys.readouterr().err


WORDS = ["plasticity", "--epochs", "2", "--every", "1", "--fractions", "0.5"]


def test_every_variant_runs_and_the_numbers_add_up(capsys):
    assert cli.main([*WORDS, "--to-end", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2 * 3 * 3
    for row in rows:
        assert row["plasticity"] == pytest.approx(row["recovered"] - row["before"])
    unstructured = [row["sparsity"] for row in rows if row["structure"] != "channel"]
    assert unstructured == pytest.approx([0.5] * len(unstructured), abs=1e-3)
    # "before" is the dense run's own accuracy on held-out images after that epoch.
    lines = Path("runs/plasticity-smoke/dense/metrics.jsonl").read_text().splitlines()
    dense = {line["epoch"]: line["val_accuracy"] for line in map(json.loads, lines)}
    assert all(row["before"] == dense[row["epoch"]] for row in rows)
    # The frozen rate is that of the epoch behind the pruning; here an epoch is one step.
    rates = {line["epoch"]: line["lr"] for line in map(json.loads, lines)}
    assert all(row["lr"] == rates[row["epoch"]] for row in rows) and rates[1] > rates[2]
    # At the end of the schedule nothing is left to train on: the pruned network is the end.
    assert all(row["end"] == row["pruned"] for row in rows if row["epoch"] == 2)
    # The second measure is against the dense network's end, on the same images.
    assert all(row["gap"] == row["end"] - dense[2] for row in rows)
    curves = Path("runs/plasticity-smoke/curves.csv").read_text()
    assert [int(row["epoch"]) for row in csv.DictReader(io.StringIO(curves))] == [1] * 9 + [2] * 9


def test_what_is_done_is_not_done_again(capsys, monkeypatch):
    few = [*WORDS, "--structures", "global", "--regrows", "none"]
    assert cli.main(few) == 0
    out, err = capsys.readouterr()
    assert "[2/2] epoch 2" in err
    results = Path("runs/plasticity-smoke/results.jsonl")
    results.write_text(results.read_text() + '{"epoch": 2, "fra')  # killed in the middle of a line
    assert cli.main(few) == 0
    again, err = capsys.readouterr()
    assert "[1/2]" not in err and again == out
    assert len(results.read_text().splitlines()) == 2
    # Another way to recover is another measurement.
    assert cli.main([*few, "--recover", "2"]) == 0
    assert "[2/2] epoch 2" in capsys.readouterr().err


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_grown_weights_have_the_optimizer_state_of_new_ones(monkeypatch, optimizer):
    # DESIGN: grown weights start at 0 with fresh state; those that stayed go on with theirs.
    run(Path("mine"), method="dense", epochs=2, keep=2, optimizer=optimizer)
    real, seen = study.train_epoch, []

    def train_epoch(model: nn.Module, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        weights = [p for p in model.parameters() if p.ndim > 1]
        for weight in weights:
            for state in same_shaped_state(optimizer, weight).values():
                assert not state[weight == 0].any() and state[weight != 0].any()
                seen.append(1)
        return real(model, optimizer, *args, **kwargs)

    monkeypatch.setattr(study, "train_epoch", train_epoch)
    words = ["--every", "1", "--fractions", "0.5", "--structures", "global", "channel"]
    assert cli.main(["plasticity", "mine", *words, "--share", "0.5"]) == 0
    assert seen


@pytest.mark.parametrize("structure", ["global", "layer", "channel"])
def test_what_a_run_s_settings_leave_dense_is_not_pruned(monkeypatch, structure):
    run(Path("mine"), method="dense", epochs=2, keep=2, exclude=("fc1.weight",))
    real, seen = study.train_epoch, []

    def train_epoch(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        zeros = {n: bool((p == 0).any()) for n, p in model.named_parameters() if p.ndim > 1}
        assert not zeros.pop("fc1.weight") and any(zeros.values())
        seen.append(1)
        return real(model, *args, **kwargs)

    monkeypatch.setattr(study, "train_epoch", train_epoch)
    words = ["--every", "1", "--fractions", "0.5", "--structures", structure]
    assert cli.main(["plasticity", "mine", *words]) == 0
    assert seen


def test_an_interrupted_study_has_curves_and_another_call_leaves_what_they_have(monkeypatch):
    few = [*WORDS, "--structures", "global", "--regrows", "none"]
    real, calls = study.train_epoch, []

    def train_epoch(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    folder = Path("runs/plasticity-smoke")
    with monkeypatch.context() as patch:
        patch.setattr(study, "train_epoch", train_epoch)
        assert cli.main(few) == 130
    assert [row["epoch"] for row in read_curves(folder / "curves.csv")] == [1]
    assert (folder / "plasticity.svg").is_file()
    assert cli.main([*few[:-5], "0.8", *few[-4:]]) == 0
    rows = read_curves(folder / "curves.csv")
    assert [(row["epoch"], row["fraction"]) for row in rows] == [(1, 0.5), (1, 0.8), (2, 0.8)]
    # What was measured in another way has curves of its own.
    assert cli.main([*few, "--recover", "0"]) == 0
    assert {row["recover"] for row in read_curves(folder / "curves.csv")} == {0.0}
    assert cli.main(few) == 0
    assert len(read_curves(folder / "curves.csv")) == 4


def test_a_run_that_is_there_is_pruned_with_its_own_settings(capsys):
    own = {"epochs": 5, "lr": 0.02, "schedule": "constant", "seed": 3, "accumulate": 2}
    folder = Path("mine")
    run(folder, method="dense", keep=5, **own)
    words = ["--fractions", "0.5", "--structures", "layer", "--regrows", "random", "--to-end"]
    before = sorted(p.name for p in folder.iterdir())
    assert cli.main(["plasticity", "mine", *words, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "plasticity: 5 prunings, 0 finished, 5 to do -> mine"
    # One epoch to recover each, and 4 + 3 + 2 + 1 + 0 to the end.
    assert lines[1] == "epochs to train: 0 of the dense network, 15 after prunings"
    assert lines[2].startswith("estimated cost on this machine: ")
    assert lines[2].endswith(" s (by finished runs like them).")
    assert sorted(p.name for p in folder.iterdir()) == before
    assert cli.main(["plasticity", "mine", *words, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    dense = {line["epoch"]: line for line in map(json.loads, lines)}
    assert [row["before"] for row in rows] == [dense[e]["val_accuracy"] for e in range(1, 6)]
    assert {row["lr"] for row in rows} == {0.02}
    assert (folder / "curves.csv").is_file() and (folder / "plasticity-end.svg").is_file()
    assert cli.main(["report", "mine", "--out", "page.html"]) == 0
    assert '<section id="plasticity"' in Path("page.html").read_text()
    assert cli.main(["plasticity", "mine", *words, "--every", "2", "--dry-run"]) == 0
    assert "2 prunings, 2 finished, 0 to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "words", "sentence"),
    [
        ({}, [], "mine has no checkpoint of epoch 1, 2; give an --every that passes over"),
        ({}, [], "train it again with --checkpoint-every 1ep --keep 4 and another --out."),
        ({"keep": 4}, ["--epochs", "4"], "epochs is that of mine; leave it out."),
        ({"keep": 4}, ["--scale", "small"], "scale is that of mine; leave it out."),
        ({"keep": 4, "validation": 0.0}, [], "mine held out no images to compare by"),
        ({"keep": 4, "ema": 0.9}, [], "was judged by an average of its weights"),
        ({"keep": 4, "method": "static"}, [], "mine is a run of static, and a dense training is"),
    ],
)
def test_a_run_that_cannot_be_studied_is_refused_in_a_sentence(capsys, settings, words, sentence):
    run(Path("mine"), **({"method": "dense", "epochs": 4, "validation": 0.25} | settings))
    assert cli.main(["plasticity", "mine", *words]) == 2
    assert sentence in capsys.readouterr().err
    (Path("mine") / "record.json").unlink()
    if not words and settings.get("method") != "static":
        assert cli.main(["plasticity", "mine"]) == 2
        assert "mine is not finished; `sparsetrain train --config" in capsys.readouterr().err


def test_a_dry_run_of_a_scale_needs_no_images(capsys, monkeypatch):
    def absent(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("sparsetrain.data.load", absent)
    monkeypatch.setattr("sparsetrain.experiments.cost.measure", lambda _: Pace(0.0, 0.0))
    words = ["--scale", "full", "--data-dir", "there", "--device", "cpu", "--dry-run"]
    assert cli.main(["plasticity", *words, "--structures", "global", "layer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # 16 epochs, 4 fractions, 2 structures, 3 ways to regrow; 30 epochs each.
    assert lines[0].startswith("plasticity: 384 prunings, 0 finished, 384 to do")
    assert lines[1] == "epochs to train: 160 of the dense network, 11520 after prunings"
    assert lines[2] == "estimated cost on this machine: 0 s (by a few measured steps)."
    assert not Path("runs").exists()


def _row(structure: str, regrow: str, fraction: float, epoch: int) -> dict[str, Any]:
    about = Variant(epoch, fraction, structure, regrow).about()
    return about | {"plasticity": -fraction * epoch / 100, "recover": 4, "share": 0.1}


def test_the_curves_are_drawn_a_panel_a_way_to_prune_and_a_line_a_fraction():
    rows = [
        _row(structure, regrow, fraction, epoch)
        for epoch in (2, 4, 6)
        for fraction in (0.5, 0.9)
        for structure in ("global", "channel")
        for regrow in ("none", "random")
        if (structure, fraction) != ("channel", 0.9)
    ]
    (figure,) = plasticity_figures(rows)
    panels = {chart.title: chart for chart in figure.charts}
    assert list(panels) == [
        *("all layers together, no regrowth", "all layers together, random regrowth"),
        *("whole filters, no regrowth", "whole filters, random regrowth"),
    ]
    level, half, most = panels["all layers together, no regrowth"].series
    assert (level.name, level.y, level.dashed, level.level) == ("no change", (0,), True, True)
    assert (half.name, half.x, half.y) == ("50 % pruned", [2, 4, 6], [-1.0, -2.0, -3.0])
    assert (most.name, most.y) == ("90 % pruned", pytest.approx([-1.8, -3.6, -5.4]))
    assert [s.name for s in panels["whole filters, no regrowth"].series] == [
        *("no change", "50 % pruned"),
    ]
    drawn = sheet(figure, columns=columns(rows))
    assert ElementTree.fromstring(drawn).get("width") == str(2 * 376)
    assert all(f">{title}</text>" in drawn for title in panels)
    assert drawn.count(">90 % pruned</text>") == 1  # one legend for all
    both = plasticity_figures([row | {"gap": -0.25} for row in rows])
    assert [figure.key for figure in both] == ["plasticity", "plasticity-end"]
    assert both[1].charts[0].series[0].name == "dense network"
    assert both[1].charts[0].series[1].y == [-25.0] * 3


def test_a_study_s_pictures_lie_beside_its_curves_and_are_in_its_report(capsys):
    assert cli.main([*WORDS, "--structures", "global", "--to-end"]) == 0
    folder, said = Path("runs/plasticity-smoke"), capsys.readouterr().err
    for name in ("plasticity", "plasticity-end"):
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
        assert str(folder / f"{name}.svg") in said
    page = Path("page.html")
    assert cli.main(["report", str(folder), "--out", str(page)]) == 0
    sections = page.read_text().split("<section id=")
    (shown,) = [s for s in sections if s.startswith('"plasticity"')]
    assert shown.count('<figure class="panel">') == 3 and "regrowth by gradient" in shown
    assert any(s.startswith('"plasticity-end"') for s in sections)
    # Read from the file, not from the command that wrote it.
    rows = read_curves(folder / "curves.csv")
    assert {row["gap"] for row in rows} != {0.0}
    (folder / "curves.csv").write_text("epoch,fraction\n1,0.5\n")
    capsys.readouterr()
    assert cli.main(["report", str(folder), "--out", str(page)]) == 0
    assert f"left out: {folder.resolve()}: cannot read {folder}" in capsys.readouterr().out
    assert '<section id="plasticity' not in page.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_ends_a_pruning_in_a_sentence_and_the_command_goes_on(monkeypatch, capsys):
    few = [*WORDS, "--structures", "global", "--regrows", "none"]
    real, calls = study.train_epoch, []

    def train_epoch(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:  # of the second pruning
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(study, "train_epoch", train_epoch)
        assert cli.main(few) == 143
    said = "stopped with 1 of 2 prunings; the same command continues."
    assert said in capsys.readouterr().err
    assert cli.main(few) == 0
    err = capsys.readouterr().err
    assert "[1/2]" not in err and "[2/2] epoch 2" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--fractions", "1.5"], "fractions must be in (0, 1), got 1.5."),
        (["--share", "0"], "share must be in (0, 1), got 0."),
        (["--every", "-1"], "every must be at least 1, got -1."),
        (["--epochs", "0"], "epochs must be at least 1, got 0."),
        (["--epochs", "2", "--every", "5"], "every must be at most epochs, 2, got 5"),
    ],
)
def test_bad_options_are_one_sentence(words, sentence, capsys):
    assert cli.main(["plasticity", *words]) == 2
    assert sentence in capsys.readouterr().err
