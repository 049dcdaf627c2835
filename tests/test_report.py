"""`sparsetrain report`: every figure, the tables' numbers, the forms, and what is refused."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from dataclasses import replace
from statistics import mean, stdev
from urllib.parse import unquote

import pytest

from sparsetrain.cli import main
from sparsetrain.report.chart import data_csv
from sparsetrain.report.figures.every import figures
from sparsetrain.report.page import page as page_of
from sparsetrain.report.runs import Found, find, line_names
from sparsetrain.report.table import Cell, Table, as_csv, every_run, summary
from tests.report_tools import RUNS, make_runs
from tests.training_tools import ART, fake_load, run, tiny_dataset

EVERY = (
    *("accuracy", "order", "cost", "art", "strength", "stop", "magnitudes", "overlap", "classes"),
    *("sparsity", "layers", "moving", "exploration", "churn", "survival", "dead", "gradients"),
    *("epochcost", "layercost", "epochs", "convergence"),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparsetrain.data.load", fake_load)
        make_runs(folder)
    return folder


@pytest.fixture(scope="module")
def page(runs):
    out = runs.parent / "page.html"
    assert main(["report", str(runs), "--out", str(out)]) == 0
    return out.read_text()


def _records(runs):
    return [json.loads(p.read_text()) for p in sorted(runs.glob("*/record.json"))]


def _data(figure):
    return list(csv.DictReader(io.StringIO(data_csv(figure))))


def test_every_figure_is_there_and_gives_its_data(runs, page):
    found = {figure.key: figure for figure in figures(find([runs]).runs)}
    assert tuple(found) == EVERY
    for key, figure in found.items():
        assert f'<section id="{key}">' in page
        shown = sum(len(s.x) for chart in figure.charts for s in chart.series)
        shown += sum(len(chart.marks) for chart in figure.charts)
        assert len(_data(figure)) == shown > 0 and not figure.more
        start = page.index(f'download="{key}.csv" href="data:text/csv;charset=utf-8,')
        address = page[start:].split('href="', 1)[1].split('"', 1)[0]
        assert unquote(address).split(",", 1)[1] == data_csv(figure)


def test_marks_levels_and_rings_are_in_the_data(runs):
    found = {figure.key: figure for figure in figures(find([runs]).runs)}
    records = [r for r in _records(runs) if r["method"] == "art"]
    chosen = [row for row in _data(found["art"]) if row["drawn as"] == "mark"]
    expected = [r["dense_epochs"] + r["chosen_regularize_epoch"] for r in records]
    assert sorted(float(row["x"]) for row in chosen) == sorted(expected) and len(expected) == 3
    assert all(row["line"].startswith("chosen") and not row["y"] for row in chosen)
    rings = {row["line"] for row in _data(found["stop"]) if row["drawn as"] == "ring"}
    capped = {f"art {r['options']['regularizer']}" for r in records if r["outcome"] != "converged"}
    assert rings == capped != set()
    dense = mean(100 * r["test_accuracy"] for r in _records(runs) if r["method"] == "dense")
    (level,) = [row for row in _data(found["accuracy"]) if row["drawn as"] == "level"]
    assert (level["line"], level["x"]) == ("dense", "")
    assert float(level["y"]) == pytest.approx(dense, rel=1e-6)
    (mark,) = [row for row in _data(found["order"]) if row["drawn as"] == "mark"]
    assert float(mark["x"]) == pytest.approx(dense, rel=1e-6)
    layers = {row["line"] for row in _data(found["moving"])}
    weights = find([runs]).runs[-1].record["sparsity"]["per_layer"]
    assert layers == {name.removesuffix(".weight") for name in weights}


def test_what_there_is_no_room_for_is_said_and_is_in_the_data(runs):
    """Fourteen ART runs; of those with two panels each, six are drawn."""
    (one,) = [r for r in find([runs]).runs if r.line == "art l1"]
    many = [replace(one, line=f"art {place}") for place in range(14)]
    found = {figure.key: figure for figure in figures(many)}
    text = page_of(Found(tuple(many)), list(found.values()), title="")
    for key, more in (("art", 2), ("magnitudes", 16), ("classes", 2), ("moving", 2)):
        assert (len(found[key].charts), len(found[key].more)) == (12, more)
        section = text.split(f'<section id="{key}">')[1].split("</section>")[0]
        assert f"… and {more} more panels: see the data." in section
        named = {row["panel"].split(",")[0] for row in _data(found[key])}
        assert named == {run.line for run in many}
    assert text.count('<p class="more">') == 4


def test_the_page_needs_nothing_from_outside(page):
    outside = [part for part in ("http://", "https://", "src=", "@import", "url(") if part in page]
    assert not outside


def test_the_summary_has_the_means_of_the_records(runs):
    table = summary(find([runs]).runs)
    rows = {(row[0].text, row[1].value): row for row in table.rows}
    records = [r for r in _records(runs) if (r["method"], r["sparsity"]["target"]) == ("rigl", 0.9)]
    accuracies = [100 * r["test_accuracy"] for r in records]
    assert len(accuracies) == 2
    assert rows["rigl", 0.9][3].text == f"{mean(accuracies):.2f} ± {stdev(accuracies):.2f}"
    assert rows["rigl", 0.8][3].value == next(
        100 * r["test_accuracy"] for r in _records(runs) if r["sparsity"]["target"] == 0.8
    )
    assert {row[0].text for row in table.rows if row[0].text.startswith("art")} == {
        "art hypersparse",
        "art l1",
        "art l2",
    }


def test_the_accuracy_figure_shows_what_the_table_says(runs):
    found = find([runs]).runs
    (accuracy,) = [f for f in figures(found) if f.key == "accuracy"]
    shown = {
        (series.name, x): y
        for series in accuracy.charts[0].series
        if not series.dashed
        for x, y in zip(series.x, series.y, strict=True)
    }
    table = {(r[0].text, r[1].value): r[3].value for r in summary(found).rows if r[1].value}
    assert shown == table


def test_methods_stand_in_the_order_of_their_means(runs):
    found = find([runs]).runs
    (order,) = [f for f in figures(found) if f.key == "order"]
    (chart,) = order.charts  # at 80 % there is one method: no order
    assert chart.title == "90 % zeros"
    table = summary(found).rows
    means = {row[0].text: row[3].value for row in table if row[1].value == 0.9}
    assert list(chart.rows) == sorted(means, key=lambda name: -means[name])
    assert [(s.name, *s.x, *s.y) for s in chart.series] == [
        (name, means[name], place) for place, name in enumerate(chart.rows)
    ]
    (spread,) = [s.spread for s in chart.series if s.name == "rigl"]
    values = [r.accuracy for r in found if r.line == "rigl" and r.sparsity == 0.9]
    assert spread == pytest.approx([stdev(values)])
    (dense,) = chart.marks
    assert dense.x == pytest.approx(mean(r.accuracy for r in found if not r.sparsity))


def test_csv_has_a_row_a_run_with_whole_numbers(runs, tmp_path):
    assert main(["report", str(runs), "--format", "csv", "--out", str(tmp_path / "x")]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x").read_text())))
    assert len(rows) == len(RUNS)
    kept = {row["folder"]: float(row["kept weights"]) for row in rows}
    for path in runs.glob("*/record.json"):
        assert kept[path.parent.name] == json.loads(path.read_text())["kept_weights"]
    assert as_csv(every_run(find([runs]).runs)) == (tmp_path / "x").read_text()


def test_csv_does_not_round():
    third = 100 / 3
    row = (Cell("20,035,018", 20_035_018), Cell("33.33", third), Cell("", None), Cell("a", "a"))
    head, line = as_csv(Table(("kept", "accuracy", "none", "name"), (row,))).splitlines()
    assert head == "kept,accuracy,none,name"
    assert line.split(",")[0] == "20035018" and line.endswith(",,a")
    assert float(line.split(",")[1]) == third


def test_markdown_has_a_row_a_method_and_sparsity(runs, tmp_path, capsys):
    out = tmp_path / "a.md"
    assert main(["report", str(runs / "run-00"), str(runs / "run-02"), "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == ["| method", "| dense", "| rigl"]
    assert "2 finished runs, of mlp" in capsys.readouterr().out


def test_a_single_dense_run_makes_a_page_too(runs, tmp_path):
    out = tmp_path / "dense.html"
    assert main(["report", str(runs / "run-00"), "--out", str(out)]) == 0
    assert "1 finished run, of mlp" in out.read_text()


def test_runs_without_a_trace_lose_the_figures_that_need_one(runs, tmp_path):
    for path in (runs / "run-02").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    keys = {figure.key for figure in figures(find([tmp_path]).runs)}
    assert keys >= {"accuracy", "cost", "layers", "dead", "epochs"}
    assert not keys & {"overlap", "exploration", "moving", "epochcost", "classes"}


def test_lines_are_named_by_what_differs_within_a_method():
    def record(method, **settings):
        return {"method": method, "settings": {"method": method, "model": "a", **settings}}

    records = [
        record("art", regularizer="l1", seed=0),
        record("art", regularizer="l2", seed=1),
        record("gmp", epochs=5),
    ]
    assert line_names(records) == ["art l1", "art l2", "gmp"]
    other = record("gmp", epochs=5) | {"settings": {"method": "gmp", "model": "b", "epochs": 5}}
    assert line_names([*records, other]) == ["art a l1", "art a l2", "gmp a", "gmp b"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name at least one run folder"),
        (["nowhere"], "nowhere is no run folder and holds none"),
        (["{runs}", "--out", "a.pdf"], "--out a.pdf must end in .html, .md or .csv"),
        (["{runs}", "--out", "{runs}/none/a.html"], "cannot write"),
        (["{runs}", "--format", "pdf"], "format"),
    ],
)
def test_what_cannot_be_reported_is_refused_in_a_sentence(runs, capsys, words, said):
    assert main(["report", *(word.format(runs=runs) for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_an_unfinished_run_is_left_out_and_said_so(runs, tmp_path, capsys):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text("method: dense\n")
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "a.html")]) == 2
    assert "is finished; continue one" in capsys.readouterr().err
    words = ["report", str(tmp_path), str(runs / "run-00"), "--out", str(tmp_path / "a.html")]
    assert main(words) == 0
    assert "1 unfinished left out" in capsys.readouterr().out


def test_an_unfinished_folder_of_a_run_whose_record_is_given_is_not_missing(runs, tmp_path, capsys):
    shutil.copytree(runs / "run-00", tmp_path / "half")
    (tmp_path / "half" / "record.json").rename(tmp_path / "elsewhere.json")
    (tmp_path / "of_another").mkdir()
    (tmp_path / "of_another" / "config.yaml").write_text("seed: 77\n")
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "a.html")]) == 0
    out = capsys.readouterr().out
    assert "1 finished run" in out and "1 unfinished left out" in out


def _copied(runs, folder, *names):
    for name, source in names:
        shutil.copytree(runs / source, folder / name)
    return ["report", str(folder), "--out", str(folder / "a.md")]


def test_a_copy_of_a_run_is_no_further_seed(runs, tmp_path, capsys):
    # run-00 and run-01 are seeds 0 and 1 of dense.
    words = _copied(runs, tmp_path, ("a", "run-00"), ("b", "run-01"), ("c", "run-00"))
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "2 finished runs" in out and "1 copy left out" in out
    assert f"left out: {tmp_path / 'c'}: a copy of {tmp_path / 'a'}\n" in out
    (row,) = [x for x in (tmp_path / "a.md").read_text().splitlines() if x.startswith("| dense")]
    assert row.split(" | ")[2] == "2"


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("record.json", '{"test_acc', "cannot read"),
        ("record.json", "[]", "has no fields"),
        ("record.json", None, "has no test_accuracy"),
        ("metrics.jsonl", '{"epoch": 1}\n{"epo', "cannot read"),
        ("metrics.jsonl", "[]\n", "is empty, or has lines that are no epochs"),
    ],
)
def test_a_damaged_run_is_left_out_and_named(runs, tmp_path, capsys, file, text, why):
    words = _copied(runs, tmp_path, ("a", "run-00"), ("b", "run-01"))
    if text is None:
        record = json.loads((tmp_path / "b" / file).read_text())
        text = json.dumps(record | {"test_accuracy": None})
    (tmp_path / "b" / file).write_text(text)
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"left out: {tmp_path / 'b'}: ") and why in lines[0]
    assert "1 finished run," in lines[1] and "1 damaged left out" in lines[1]
    assert main(["report", str(tmp_path / "b")]) == 2
    assert "no run can be reported: " in capsys.readouterr().err


def test_a_damaged_trace_is_told(runs, tmp_path, caplog):
    _copied(runs, tmp_path, ("a", "run-02"), ("b", "run-03"))
    (tmp_path / "a" / "trace" / "epoch-00001.npz").write_bytes(b"")
    whole = (tmp_path / "a" / "trace" / "epoch-00002.npz").read_bytes()
    (tmp_path / "a" / "trace" / "epoch-00002.npz").write_bytes(whole[:-40])
    (tmp_path / "b" / "trace" / "layers.json").write_text("[]")
    first, second = find([tmp_path]).runs
    assert first.trace is not None and {1, 2}.isdisjoint(first.trace.epochs.tolist())
    assert second.trace is None
    said = [record.message for record in caplog.records]
    assert "cannot read epoch-00001.npz, epoch-00002.npz in" in said[0]
    assert "layers.json; the trace is left out." in said[1]


@pytest.mark.parametrize("left", [b"version https://git-lfs.github.com/spec/v1\n", None])
def test_damaged_weights_are_told_and_the_other_runs_are_drawn(runs, tmp_path, caplog, left):
    _copied(runs, tmp_path, ("a", "run-02"), ("b", "run-05"))
    file = tmp_path / "a" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40] if left is None else left)
    found = {figure.key: figure for figure in figures(find([tmp_path]).runs)}
    assert {s.name for chart in found["dead"].charts for s in chart.series} == {"gmp"}
    said = [record.message for record in caplog.records]
    assert said == [f"cannot read {file}; the run's dead units are left out."]


def test_magnitudes_are_shown_on_both_sides_of_the_border(runs):
    found = [one for one in find([runs]).runs if one.line == "art l1"]
    high = [
        replace(one, record=one.record | {"sparsity": one.record["sparsity"] | {"target": s}})
        for one in found
        for s in (0.9, 0.998)
    ]
    for one in high:
        (shown,) = [f for f in figures([one]) if f.key == "magnitudes"]
        for chart in shown.charts:
            (border,) = chart.marks
            for series in chart.series:
                kept = [x for x in series.x if x > border.x]
                assert len(kept) > 5 and max(kept) < 1


def test_art_without_a_pull_has_no_strength_to_draw(tmp_path, monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)
    run(tmp_path / "a", **ART, strength=0, sparsity=0.9)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "a.html")]) == 0
    assert "strength" not in {f.key for f in figures(find([tmp_path]).runs)}
    run(tmp_path / "b", **ART, sparsity=0.9)
    (strength,) = [f for f in figures(find([tmp_path]).runs) if f.key == "strength"]
    (series,) = strength.charts[0].series
    assert min(series.y) > 0


def test_art_without_fine_tuning_is_sparse_in_the_end_alone(tmp_path, monkeypatch):
    """Its metrics are of dense networks; an earlier version's trace ends with one, too."""
    monkeypatch.setattr("sparsetrain.data.load", fake_load)
    run(tmp_path, **ART, finetune_epochs=0, sparsity=0.9)
    (one,) = find([tmp_path]).runs
    assert [line["sparsity"] for line in one.metrics] == [0, 0, 0]
    found = {figure.key: figure for figure in figures([one])}
    assert "convergence" not in found and "epochs" in found
    ends = {key: found[key].charts[0].series[0].y[-1] for key in ("sparsity", "overlap")}
    assert ends == {"sparsity": pytest.approx(90, abs=0.1), "overlap": 100}
    trace = one.trace
    assert trace is not None
    before = trace.active.copy()
    before[-1] = before[0]
    older = replace(trace, active=before, masks=(*trace.masks[:-1], trace.masks[0]))
    keys = {figure.key for figure in figures([replace(one, trace=older)])}
    course = {"sparsity", "overlap", "exploration", "churn", "survival"}
    assert set(found) - keys == course | {"moving", "layercost"}


def test_two_dense_networks_have_colours_of_their_own(runs, tmp_path):
    _copied(runs, tmp_path, ("a", "run-00"), ("b", "run-02"))
    record = json.loads((tmp_path / "a" / "record.json").read_text())
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    record["settings"]["epochs"] = 99
    (tmp_path / "c" / "record.json").write_text(json.dumps(record))
    (accuracy,) = [f for f in figures(find([tmp_path]).runs) if f.key == "accuracy"]
    dense = [series.color for series in accuracy.charts[0].series if series.dashed]
    assert len(dense) == len(set(dense)) == 2


def test_names_of_classes_and_titles_are_not_read_as_markup(runs, tmp_path):
    out = tmp_path / "a.html"
    words = ["report", str(runs / "run-00"), "--out", str(out), "--title", "<b>&</b>"]
    assert main(words) == 0
    assert "<h1>&lt;b&gt;&amp;&lt;/b&gt;</h1>" in out.read_text()


def test_classes_are_called_by_their_names_and_digits_are_called_classes(runs):
    def shown(found):
        (figure,) = [f for f in figures(found) if f.key == "classes"]
        return [series.name for series in figure.charts[0].series]

    found = [one for one in find([runs]).runs if one.trace is not None]
    assert shown(found) == ["a", "b", "c", "d"]
    for one in found:
        object.__setattr__(one.trace.layers, "classes", ("0", "1", "2", "3"))
    assert shown(found) == ["class 0", "class 1", "class 2", "class 3"]


def test_many_classes_are_shown_as_quantiles(tmp_path, monkeypatch):
    def many(*_, **__):
        return tiny_dataset(classes=14, size=28, train=140)

    monkeypatch.setattr("sparsetrain.data.load", many)
    run(tmp_path, **ART, sparsity=0.9)
    (shown,) = [f for f in figures(find([tmp_path]).runs) if f.key == "classes"]
    series = shown.charts[0].series
    names = ("worst", "lower quarter", "median", "upper quarter", "best")
    assert tuple(s.name for s in series) == names
    for lower, higher in itertools.pairwise(series):
        assert all(a <= b for a, b in zip(lower.y, higher.y, strict=True))
