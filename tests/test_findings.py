"""What docs/results.md says in words is what the records hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsetrain.experiments import saved
from sparsetrain.experiments.results import cells

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
TEXT = " ".join((ROOT / "docs" / "results.md").read_text().split())
STAGE_A = saved.loads((RECORDS / "equal-budget-a.json").read_text())


def table(kind: str) -> dict[str, dict[float, float]]:
    """Method -> zeros -> percent of test accuracy, or share of the dense training."""
    rows = [
        {**row, "of": 100 * row["test_accuracy"] if kind == "accuracy" else share(row)}
        for row in STAGE_A.rows
    ]
    lines = cells(rows, STAGE_A.axes, of="of")
    return {name: {s: cell.mean for s, cell in line.items()} for name, line in lines.items()}


def share(row: dict) -> float:
    flops = row["flops"]
    return (flops["train_sparse"] + flops["train_growth"]) / flops["train_dense"]


ACCURACY, COST = table("accuracy"), table("cost")
DENSE = ACCURACY["dense"][0]


def at(sparsity: float, *names: str) -> list[float]:
    chosen = names or [name for name in ACCURACY if name != "dense"]
    return [ACCURACY[name][sparsity] for name in chosen]


def best(sparsity: float) -> str:
    return max(set(ACCURACY) - {"dense"}, key=lambda name: ACCURACY[name][sparsity])


def worst(sparsity: float) -> str:
    return min(set(ACCURACY) - {"dense"}, key=lambda name: ACCURACY[name][sparsity])


def behind_gmp(name: str, sparsity: float) -> float:
    return ACCURACY["gmp"][sparsity] - ACCURACY[name][sparsity]


BEGIN_SPARSE = ("static", "set", "snfs", "rigl", "itop", "smart_ratio", "snip", "grasp", "synflow")

CLAIMS: dict[str, Callable[[], bool]] = {
    "From the worst to the best are less than two points": lambda: max(at(0.9)) - min(at(0.9)) < 2,
    "the worst is a random mask that never moves": lambda: worst(0.9) == "static",
    "ART and GMP come within a point of the dense network": lambda: (
        min(at(0.9, "art", "gmp")) > DENSE - 1
    ),
    "**At 98 % ART with HyperSparse is the best**, half a point ahead of GraNet": lambda: (
        best(0.98) == "art" and 0.4 < ACCURACY["art"][0.98] - ACCURACY["granet"][0.98] < 0.6
    ),
    "more than a point ahead of GMP": lambda: behind_gmp("art", 0.98) < -1,
    "**GraNet** is second at 98 %": lambda: sorted(at(0.98))[-2] == ACCURACY["granet"][0.98],
    "fewer operations than any other method that does not begin as sparse as it ends": lambda: all(
        COST["granet"][s] < COST[name][s]
        for name in set(COST) - {"dense", "granet", *BEGIN_SPARSE}
        for s in (0.9, 0.98)
    ),
    "At 90 % it is behind GMP and ART": lambda: (
        ACCURACY["granet"][0.9] < min(at(0.9, "gmp", "art"))
    ),
    "At 90 % it is level with GMP": lambda: abs(behind_gmp("art", 0.9)) < 0.25,
    "two to three times GMP's operations": lambda: all(
        2 < COST["art"][s] / COST["gmp"][s] < 3 for s in (0.9, 0.98)
    ),
    "twelve of its 20 epochs go by before it prunes": lambda: all(
        (row["dense_epochs"] + row["regularize_epochs"], row["epochs"]) == (12, 20)
        for row in STAGE_A.rows
        if row["method"] == "art"
    ),
    "SET, RigL and SynFlow's mask keep within three points of ART at 98 %": lambda: (
        min(at(0.98, "set", "rigl", "synflow")) > ACCURACY["art"][0.98] - 3
    ),
    "for 3 to 6 % of the dense network's operations": lambda: all(
        0.03 < COST[name][0.98] < 0.06 for name in ("set", "rigl", "synflow")
    ),
    "SNIP, one-shot magnitude, and IMP with its three short rounds are about as good": lambda: all(
        abs(a - ACCURACY["static"][0.98]) < 0.5 for a in at(0.98, "snip", "magnitude", "imp")
    ),
    "ITOP, GraSP and SNFS are worse": lambda: (
        max(at(0.98, "itop", "grasp", "snfs")) < ACCURACY["static"][0.98] - 2
    ),
}


@pytest.mark.parametrize("words", CLAIMS)
def test_what_is_said_is_said_of_the_records(words: str) -> None:
    assert words in TEXT
    assert CLAIMS[words]()


def test_the_sweep_s_file_holds_the_committed_records() -> None:
    folder = RECORDS / "equal-budget"
    one_by_one = {}
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text())
        one_by_one[path.stem.rsplit("-", 1)[1]] = record["test_accuracy"]
    for row in STAGE_A.rows:
        assert one_by_one[row["key"]] == row["test_accuracy"]
