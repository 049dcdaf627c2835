"""Recipes and sweeps in the current folder, for the tests of sweeps."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from sparsetrain.experiments.sweep import SweepOptions, Swept, sweep
from sparsetrain.training.progress import Reporter
from tests.training_tools import TINY, fake_load

# Six runs: dense has no sparsities.
GRID: dict[str, Any] = {"method": ["dense", "static"], "sparsity": [0.9, 0.95], "seed": [0, 1]}


def make_runs_quick(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Runs in this process take tiny data and draw no picture; `folder` is the current one."""
    monkeypatch.setattr("sparsetrain.data.load", fake_load)
    monkeypatch.setattr("sparsetrain.training.finish.plot_history", lambda *_: None)
    monkeypatch.chdir(folder)


def write_recipe(grid: Any = None, per_method: Any = None, **defaults: Any) -> Path:
    """A recipe of tiny runs as r.yaml; returns its path."""
    parts = {"defaults": {**TINY, "epochs": 2, **defaults}, "grid": grid, "per_method": per_method}
    path = Path("r.yaml")
    path.write_text(json.dumps(parts))  # JSON is YAML
    return path


def run_sweep(recipe: Path, **options: Any) -> Swept:
    """`sparsetrain sweep` without its words."""
    return sweep(SweepOptions(recipe, **options), reporter=Reporter(io.StringIO()))


def results(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What must be equal in two runs with the same settings."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
