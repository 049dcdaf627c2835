"""Which runs of a report make one line, which can be compared, and what tells them apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparsetrain.cli import main
from sparsetrain.experiments.results import cells, make_row
from sparsetrain.report.chart import Figure
from sparsetrain.report.facts import unequal
from sparsetrain.report.figures.every import figures
from sparsetrain.report.runs import find
from sparsetrain.report.svg import draw

RECORDS = Path(__file__).parents[1] / "benchmarks" / "records" / "equal-budget"
NEW = ("image_size", "reduced_decoding", "init", "accumulate", "ema", "sparse_eval")
"""Settings that the first records of the comparison do not have."""


def _folder(path: Path, record: dict[str, Any]) -> Path:
    """A run's folder with no more than a report reads."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("")
    (path / "record.json").write_text(json.dumps(record))
    line = {"epoch": 1, "phase": "train", "seconds": 1.0, "val_accuracy": 0.5}
    line |= {"train_accuracy": 0.5, "sparsity": record["sparsity"]["target"]}
    (path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return path


def _record(method: str = "static", sparsity: float = 0.9, **settings: Any) -> dict[str, Any]:
    """One of the comparison, with other settings."""
    # Of ART there is one for each regulariser.
    path = min(RECORDS.glob(f"*-resnet8-{method}-{sparsity:g}-s0-*.json"))
    record = json.loads(path.read_text())
    record["settings"] |= settings
    return record | {k: settings[k] for k in ("dataset", "model", "seed") if k in settings}


def test_a_setting_that_an_older_version_did_not_know_has_its_default(tmp_path):
    older, newer = _record(sparsity=0.9), _record(sparsity=0.98)
    assert set(NEW) <= set(newer["settings"]) and set(NEW).isdisjoint(older["settings"])
    other = _record(sparsity=0.98, seed=1, accumulate=2)
    for name, record in (("a", older), ("b", newer), ("c", other)):
        _folder(tmp_path / name, record)
    # A copy is one in whatever version.
    _folder(tmp_path / "d", older | {"settings": older["settings"] | {"accumulate": 1}})
    found = find([tmp_path])
    assert [(run.path.name, run.line) for run in found.runs] == [
        *(("a", "static accumulate=1"), ("b", "static accumulate=1")),
        ("c", "static accumulate=2"),
    ]
    assert list(found.copies) == [tmp_path / "d"]


def test_settings_that_this_version_does_not_know_are_kept_as_they_are(tmp_path):
    _folder(tmp_path / "a", _record())
    _folder(tmp_path / "b", _record(of_tomorrow=3, workers=4))
    _folder(tmp_path / "c", _record(of_tomorrow=3, workers=8))
    found = find([tmp_path])
    assert len(found.runs) == 2 and list(found.copies) == [tmp_path / "c"]
    assert "of_tomorrow=3" in found.runs[1].line


def test_the_records_of_the_comparison_make_the_lines_of_its_table(tmp_path):
    records = [json.loads(path.read_text()) for path in sorted(RECORDS.glob("*-resnet8-*.json"))]
    for place, record in enumerate(records):
        _folder(tmp_path / f"{place:03d}", record)
    lines = {run.line.removesuffix(" hypersparse") for run in find([tmp_path]).runs}
    table = cells([make_row(record) for record in records if record["method"] != "art"])
    assert {line for line in lines if not line.startswith("art")} == set(table)
    assert {line.split()[0] for line in lines} == {record["method"] for record in records}


def test_budgets_that_differ_between_methods_are_told(tmp_path):
    """Within a method they are in the lines' names; between methods they are in none."""
    _folder(tmp_path / "a", _record("gmp", lr=0.1, batch_size=128, ramp_end=0.5))
    granet = _record("granet", lr=0.01, batch_size=64) | {"epochs": 40, "precision": "fp32"}
    _folder(tmp_path / "b", granet)
    _folder(tmp_path / "c", _record("rigl", lr=0.1, batch_size=128))
    _folder(tmp_path / "d", _record("rigl", lr=0.1, batch_size=64))
    found = find([tmp_path])
    (said,) = unequal(found.runs)
    assert said == (
        "Not equal between the methods: epochs 20 (gmp, rigl), 40 (granet); "
        "batch_size 128 (gmp), 64 (granet), 64 or 128 (rigl); lr 0.1 (gmp, rigl), 0.01 (granet); "
        "precision bf16 (gmp, rigl), fp32 (granet)."
    )
    for form in ("html", "md"):
        out = tmp_path / f"a.{form}"
        assert main(["report", str(tmp_path), "--out", str(out)]) == 0
        assert said in out.read_text()


def test_what_all_methods_have_in_the_same_values_is_not_told_again(tmp_path):
    for method in ("gmp", "rigl"):
        for lr in (0.1, 0.2):
            _folder(tmp_path / f"{method}-{lr}", _record(method, lr=lr))
    found = find([tmp_path])
    assert {run.line for run in found.runs} == {
        f"{m} lr={x}" for m in ("gmp", "rigl") for x in (0.1, 0.2)
    }
    assert unequal(found.runs) == []


def test_budgets_are_compared_within_a_data_set(tmp_path):
    for task, lr in (("digits", 0.1), ("fashion-mnist", 0.3)):
        for method in ("gmp", "rigl"):
            _folder(tmp_path / task / method, _record(method, dataset=task, lr=lr))
    _folder(tmp_path / "digits" / "set", _record("set", dataset="digits", lr=0.2))
    said = unequal(find([tmp_path / t for t in ("digits", "fashion-mnist")]).runs)
    assert said == ["Not equal between the methods of digits: lr 0.1 (gmp, rigl), 0.2 (set)."]


def _figures(folder: Path) -> dict[str, Figure]:
    return {figure.key: figure for figure in figures(find([folder]).runs)}


def test_data_sets_and_networks_are_not_ranked_together(tmp_path):
    methods = ("static", "rigl", "gmp", "imp")
    for task in ("digits", "fashion-mnist"):
        record = _record("dense", 0, dataset=task)
        _folder(
            tmp_path / task / "dense", record | {"test_accuracy": 0.9 if task == "digits" else 0.8}
        )
        for method in methods:
            _folder(tmp_path / task / method, _record(method, 0.9, dataset=task))
    _folder(tmp_path / "digits" / "other", _record("static", 0.9, dataset="digits", model="mlp"))
    found = {
        f.key: f for f in figures(find([tmp_path / t for t in ("digits", "fashion-mnist")]).runs)
    }
    tasks = ["digits resnet8", "digits mlp", "fashion-mnist resnet8"]
    assert {c.title for c in found["accuracy"].charts} == set(tasks)
    assert {c.title for c in found["cost"].charts} == {
        f"{task}: {what}" for task in tasks for what in ("to infer", "to train")
    }
    order = {chart.title: chart for chart in found["order"].charts}
    assert {title: [mark.x for mark in chart.marks] for title, chart in order.items()} == {
        "digits resnet8: 90 % zeros": [90.0],
        "fashion-mnist resnet8: 90 % zeros": [80.0],
    }
    for title, chart in order.items():
        assert {" ".join(row.split()[1:]) for row in chart.rows} == {title.split(":")[0]}
        assert sorted(row.split()[0] for row in chart.rows) == sorted(methods)
    for chart in found["cost"].charts:
        (line,) = [s for s in chart.series if s.name == "not beaten"]
        own = {(x, y) for s in chart.series if s is not line for x, y in zip(s.x, s.y, strict=True)}
        assert set(zip(line.x, line.y, strict=True)) <= own


def test_of_several_dense_lines_none_is_the_mark(tmp_path):
    for method in ("static", "rigl", "gmp", "imp"):
        _folder(tmp_path / method, _record(method, 0.9))
    _folder(tmp_path / "dense", _record("dense", 0) | {"test_accuracy": 0.9})
    _folder(tmp_path / "again", _record("dense", 0, seed=1) | {"test_accuracy": 0.8})
    (mark,) = _figures(tmp_path)["order"].charts[0].marks
    assert mark.x == pytest.approx(85)
    _folder(tmp_path / "longer", _record("dense", 0, epochs=40))
    assert _figures(tmp_path)["order"].charts[0].marks == ()
    levels = [s.name for s in _figures(tmp_path)["accuracy"].charts[0].series if s.dashed]
    assert levels == ["dense epochs=20", "dense epochs=40"]


def test_the_dense_level_is_seen_beside_one_sparsity(tmp_path):
    _folder(tmp_path / "a", _record("dense", 0) | {"test_accuracy": 0.9})
    _folder(tmp_path / "b", _record("dense", 0, seed=1) | {"test_accuracy": 0.8})
    _folder(tmp_path / "c", _record("gmp", 0.9))
    (chart,) = _figures(tmp_path)["accuracy"].charts
    (level,) = [s for s in chart.series if s.name == "dense"]
    assert level.level and level.y == pytest.approx([85])
    (path,) = [p for p in draw(chart).split("<path ") if 'dasharray="5 4"' in p]
    ends = [float(part.split()[0]) for part in path.split('d="M')[1].split('"')[0].split("L")]
    assert ends == [44, 346]


def test_rows_whose_names_are_cut_have_a_legend_with_the_whole_names(tmp_path):
    for place, strength in enumerate((1e-4, 2e-4)):
        for factor in (1.05, 1.2):
            record = _record("art", 0.9, strength=strength, strength_factor=factor)
            _folder(tmp_path / "runs" / f"{place}-{factor}", record)
    out = tmp_path / "a.html"
    assert main(["report", str(tmp_path / "runs"), "--out", str(out)]) == 0
    order = out.read_text().split('<section id="order">')[1].split("</section>")[0]
    picture, legend = order.split("</svg>", 1)
    assert ">art 0.0001 1.05</text>" in picture and ">art 0.0002 1.2</text>" in picture
    assert "<span>art strength=0.0001 strength_factor=1.05</span>" in legend
    assert legend.count("<span>") == 4
