"""Which runs of a report make one line, and what keeps lines apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparsetrain.experiments.results import cells, make_row
from sparsetrain.report.runs import find

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
    (path,) = RECORDS.glob(f"*-{method}-{sparsity:g}-s0-*.json")
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
