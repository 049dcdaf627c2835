"""Whole steps are timed both ways, on the training's own steps, and the faster way is kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain.compute import pace
from sparsetrain.compute.pace import Pace
from tests.kernel_tools import built

COSTS = {"sparse": 1.0, "dense": 2.0}


class Clock:
    """A clock that stands still unless a step is taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(pace.time, "perf_counter", lambda: self.now)


def taken(timed: Pace, clock: Clock, costs: dict[str, float], steps: int, kind: str) -> list[str]:
    """The ways of so many steps; the first of each costs a hundred more."""
    ways: list[str] = []
    for _ in range(steps):
        timed.end()
        how = timed.begin(kind)
        clock.now += costs[how] + (100 if how not in ways else 0)
        ways.append(how)
    timed.end()
    return ways


@pytest.mark.parametrize("faster", ["sparse", "dense"])
def test_the_faster_way_is_found_in_twelve_steps_and_kept(monkeypatch, faster) -> None:
    known: dict[str, str] = {}
    clock, timed = Clock(monkeypatch), Pace(known)
    slower = "dense" if faster == "sparse" else "sparse"
    costs = {faster: 1.0, slower: 1.1}
    assert taken(timed, clock, costs, 12, "step d3") == ["sparse", "dense"] * 6
    assert known == {"step d3": faster}
    assert set(taken(timed, clock, costs, 3, "step d3")) == {faster}
    assert taken(timed, clock, costs, 2, "step d4") == ["sparse", "dense"]  # another density


def test_a_pause_among_the_steps_does_not_decide(monkeypatch) -> None:
    known: dict[str, str] = {}
    clock, timed = Clock(monkeypatch), Pace(known)
    for number in range(12):
        how = timed.begin("step d3")
        pause = 1000 if number in (4, 8) else 0  # two evaluations, both behind sparse steps
        clock.now += COSTS[how] + pause
        timed.end()
    assert known == {"step d3": "sparse"}


def test_a_step_that_fails_is_not_timed(monkeypatch) -> None:
    clock, timed = Clock(monkeypatch), Pace({})
    assert timed.begin("step d3") == "sparse"
    clock.now += 1
    timed.drop()
    timed.end()
    assert timed.begin("step d3") == "sparse"


def attached() -> tuple[nn.Module, torch.optim.Optimizer, st.Sparsifier]:
    torch.manual_seed(0)
    model = st.models.create("resnet8", num_classes=5, in_channels=3, image_size=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer, st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.9))


def ran_sparse(model: nn.Module, sparsifier: st.Sparsifier, compute: st.SparseCompute) -> bool:
    """Of one step: whether pruned weights are without a gradient everywhere."""
    model.zero_grad()
    with compute:
        loss = F.cross_entropy(model(torch.randn(20, 3, 8, 8)), torch.zeros(20, dtype=torch.int64))
    loss.backward()
    masks = sparsifier.masks
    grads = [(w.grad, masks[name]) for name, w in sparsifier.weights.items()]
    return not any(grad is not None and grad[~mask].any() for grad, mask in grads)


@built
@pytest.mark.parametrize("faster", ["sparse", "dense"])
def test_steps_run_the_way_that_is_faster_as_a_whole(monkeypatch, faster) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr("sparsetrain.compute.choice.measured", lambda *_: "sparse")
    model, _, sparsifier = attached()
    compute = st.SparseCompute(sparsifier)
    seen = []
    for _ in range(15):
        seen.append(ran_sparse(model, sparsifier, compute))
        clock.now += 1.0 if seen[-1] == (faster == "sparse") else 1.5
    assert seen == [True, False] * 6 + [faster == "sparse"] * 3
    (kept,) = (how for key, how in compute.choices.items() if key.startswith("step "))
    assert kept == faster

    other = st.SparseCompute(sparsifier, known=compute.choices)  # another process goes on so
    assert ran_sparse(model, sparsifier, other) == (faster == "sparse")


@built
@pytest.mark.parametrize("mode", ["fixed", "sparse"])
def test_other_modes_look_at_no_clock(monkeypatch, mode) -> None:
    monkeypatch.setattr(Pace, "begin", None)
    model, _, sparsifier = attached()
    compute = st.SparseCompute(sparsifier, mode=mode)
    assert ran_sparse(model, sparsifier, compute) == (mode == "sparse")
    assert not any(key.startswith("step ") for key in compute.choices)
