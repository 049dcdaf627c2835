"""A handful of tiny runs for reports, of every kind that a figure asks for."""

from __future__ import annotations

from pathlib import Path

from tests.training_tools import ART, run

RUNS = (
    *({"method": "dense", "seed": seed} for seed in (0, 1)),
    *({"method": "rigl", "update_every": 2, "sparsity": s} for s in (0.8, 0.9)),
    *({"method": "rigl", "update_every": 2, "sparsity": 0.9, "seed": seed} for seed in (1,)),
    {"method": "gmp", "update_every": 2, "sparsity": 0.9},
    {"method": "imp", "rounds": 2, "sparsity": 0.9},
    *(ART | {"regularizer": name, "sparsity": 0.9} for name in ("hypersparse", "l1", "l2")),
)


def make_runs(folder: Path) -> None:
    """Train them all into folders beside each other."""
    for index, settings in enumerate(RUNS):
        run(folder / f"run-{index:02d}", **settings)
