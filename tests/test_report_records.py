"""`sparsetrain report` of records: the same tables, each run once, and what they leave out."""

from __future__ import annotations

import csv
import json
from html import unescape
from pathlib import Path

import pytest

from sparsetrain.cli import main
from sparsetrain.experiments.results import cells, make_row
from sparsetrain.experiments.saved import Saved, dumps, loads
from sparsetrain.report.figures.every import figures
from sparsetrain.report.runs import find
from sparsetrain.report.table import summary
from tests.test_report_lines import RECORDS, _folder, _record

ALONE = "Runs that are known by their record alone are left out."
DIGITS = RECORDS.parent / "methods-digits.json"


def _file(path: Path, record: dict) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def test_records_make_the_tables_of_their_folders(tmp_path):
    for path in RECORDS.glob("*-s0-*.json"):
        record = json.loads(path.read_text())
        _folder(tmp_path / "runs" / path.stem, record)
        _file(tmp_path / "records" / path.name, record)
    folders, records = (find([tmp_path / name]) for name in ("runs", "records"))
    assert summary(records.runs) == summary(folders.runs)
    assert all(run.recorded for run in records.runs)
    drawn = {figure.key: figure for figure in figures(records.runs)}
    assert drawn.keys() == {"accuracy", "order", "cost", "stop", "layers"}
    of_folders = {figure.key: figure for figure in figures(folders.runs)}
    assert all(repr(drawn[key]) == repr(of_folders[key]) for key in drawn)  # NaN is not NaN


def test_a_sweep_s_file_makes_its_table(tmp_path, capsys):
    out = tmp_path / "a.csv"
    assert main(["report", str(DIGITS), "--out", str(out)]) == 0
    saved = loads(DIGITS.read_text())
    count = len(saved.rows)
    assert f"{count} finished runs, {count} of them known by the record alone," in (
        capsys.readouterr().out
    )
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == count and {row["folder"] for row in rows} == {DIGITS.name}
    expected = [cell.mean for line in cells(saved.rows).values() for cell in line.values()]
    table = [row[3].value for row in summary(find([DIGITS]).runs).rows]
    assert sorted(table) == pytest.approx(sorted(100 * mean for mean in expected))
    assert "layers" not in {figure.key for figure in figures(find([DIGITS]).runs)}


def test_a_run_with_a_folder_is_read_from_there_and_counts_once(tmp_path):
    record = _record("gmp")
    folder = _folder(tmp_path / "runs" / "a", record)
    same = _file(tmp_path / "records" / "a.json", record)
    row = make_row(record)
    (tmp_path / "records" / "all.json").write_text(dumps(Saved("r", "sweep", (), (row,))))
    for paths in ([tmp_path / "records", tmp_path / "runs"], [same, folder], [folder, same]):
        (run,) = find(paths).runs
        assert run.path == folder and not run.recorded
        assert not find(paths).copies
    _file(same, record | {"test_accuracy": 0.1})
    found = find([same, folder])
    assert [run.accuracy for run in found.runs] == [100 * record["test_accuracy"]]
    assert found.copies == {same: folder}  # named, as it says something else


def test_figures_of_a_course_say_that_they_leave_records_out(tmp_path):
    seed, other = _record("gmp"), _record("gmp", seed=1)
    _folder(tmp_path / "runs" / "b", other)
    _file(tmp_path / "records" / "a.json", seed)
    both = [tmp_path / "runs", tmp_path / "records"]
    found = {figure.key: figure for figure in figures(find(both).runs)}
    (accuracy,) = found["accuracy"].charts[0].series
    pair = [100 * r["test_accuracy"] for r in (seed, other)]
    assert accuracy.y == [pytest.approx(sum(pair) / 2)] and ALONE not in found["accuracy"].text
    assert found["epochs"].charts[0].series  # of the seed that has a folder
    assert found["epochs"].text.endswith(ALONE)
    alone = {figure.key: figure for figure in figures(find(both[:1]).runs)}
    assert ALONE not in alone["epochs"].text
    out = tmp_path / "a.html"
    assert main(["report", *map(str, both), "--out", str(out)]) == 0
    assert "2 finished runs, 1 of them known by the record alone," in out.read_text()


def test_a_page_of_records_of_every_method_is_made(tmp_path):
    out = tmp_path / "a.html"
    assert main(["report", str(RECORDS), str(DIGITS), "--out", str(out)]) == 0
    text = out.read_text()
    layers = text.split('<section id="layers">')[1].split("</section>")[0]
    assert "Runs that are known by a sweep's saved file alone are left out." in unescape(layers)
    assert text.count("alone are left out") == 1


def test_what_is_no_record_is_passed_over_in_a_folder_and_refused_by_name(tmp_path, capsys):
    other = _file(tmp_path / "records" / "speed.json", {"benchmark": "speed", "settings": {}})
    assert main(["report", str(tmp_path / "records")]) == 2
    assert "is no run folder and holds none, nor a record" in capsys.readouterr().err
    _file(tmp_path / "records" / "a.json", _record("gmp"))
    found = find([tmp_path / "records"])
    assert len(found.runs) == 1 and not found.damaged
    assert main(["report", str(other)]) == 2
    assert "speed.json is no record of a run, and no sweep saved it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"schema_version": 1', "cannot read"),
        ('{"schema_version": 1, "method": "gmp", "settings": {}}', "has no sparsity"),
        ('{"schema_version": 9, "recipe": "r", "runs": []}', "is damaged, or of another version"),
    ],
)
def test_a_damaged_record_is_left_out_and_named(tmp_path, capsys, text, why):
    _file(tmp_path / "a.json", _record("gmp"))
    (tmp_path / "b.json").write_text(text)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "a.md")]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"left out: {tmp_path / 'b.json'}: ") and why in first
    assert "1 damaged left out" in last
