"""Sets of connections compared with naive loops over positions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsetrain import analysis

SHAPES = {"a": (4, 3, 2, 2), "b": (5, 4)}


def masks_of(seed: int, density: float = 0.4) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {n: torch.rand(shape, generator=draws) < density for n, shape in SHAPES.items()}


def positions(masks: dict[str, torch.Tensor]) -> set[tuple[str, int]]:
    return {(name, i) for name, mask in masks.items() for i, on in enumerate(mask.flatten()) if on}


def cosine(steps: int, every: int, first: float = 0.5, last: float = 0.005) -> list[float]:
    """The published drop fractions: a cosine that ends at 0.005."""
    times = range(every, steps + 1, every)
    return [last + (first - last) / 2 * (1 + math.cos(math.pi * t / steps)) for t in times]


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_churn_and_overlap_count_what_sets_of_positions_count(first, second):
    before, after = masks_of(first), masks_of(second)
    old, new = positions(before), positions(after)
    found = analysis.churn(before, after)
    assert found == (len(old - new), len(new - old), len(old & new))
    assert found.rate == (len(old - new) / len(old) if old else 0)
    assert analysis.overlap(before, after) == (len(old & new) / len(new) if new else 1)


def test_survival_is_measured_against_the_last_masks():
    history = [masks_of(seed) for seed in range(4)]
    last = positions(history[-1])
    expected = [len(positions(masks) & last) / len(positions(masks)) for masks in history]
    assert analysis.survival(history) == expected
    assert expected[-1] == 1


def test_masks_of_other_layers_are_refused_by_name():
    with pytest.raises(ValueError, match="not in both: b"):
        analysis.churn(masks_of(0), {"a": masks_of(0)["a"]})


def test_exploration_is_the_union_so_far_and_changes_no_mask():
    history = [masks_of(seed, 0.1) for seed in range(5)]
    copies = [{n: m.clone() for n, m in masks.items()} for masks in history]
    seen: set[tuple[str, int]] = set()
    expected = []
    for masks in history:
        seen |= positions(masks)
        expected.append(len(seen) / 68)
    assert analysis.exploration_rate(iter(history)) == expected
    for masks, copy in zip(history, copies, strict=True):
        assert all(torch.equal(masks[n], copy[n]) for n in masks)


@pytest.mark.parametrize(
    ("density", "steps", "every", "rate"),
    [
        (0.1, 56_320, 1000, 0.803419),
        (0.05, 56_320, 1000, 0.541392),
        (0.05, 88_000, 1500, 0.555298),
        (0.05, 88_000, 4000, 0.279616),
    ],
)
def test_expected_exploration_has_the_values_worked_out_by_hand(density, steps, every, rate):
    found = analysis.expected_exploration(density, cosine(steps, every))
    assert found[0] == density
    assert found[-1] == pytest.approx(rate, abs=5e-7)


def test_random_growth_explores_as_expected():
    draws, n, density = torch.Generator().manual_seed(0), 40_000, 0.1
    fractions = cosine(12, 1)
    mask = torch.zeros(n, dtype=torch.bool)
    mask[torch.randperm(n, generator=draws)[: int(density * n)]] = True
    history = [{"w": mask.clone()}]
    for fraction in fractions:
        active = mask.nonzero().squeeze(1)
        count = round(fraction * len(active))
        mask[active[torch.randperm(len(active), generator=draws)[:count]]] = False
        free = (~mask).nonzero().squeeze(1)
        mask[free[torch.randperm(len(free), generator=draws)[:count]]] = True
        history.append({"w": mask.clone()})
    found = analysis.exploration_rate(history)
    # Binomial: the standard deviation of the share is below sqrt(0.25 / n) = 0.0025.
    assert found == pytest.approx(analysis.expected_exploration(density, fractions), abs=0.01)


def test_density_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\], got 0"):
        analysis.expected_exploration(0, [0.5])


@given(st.integers(0, 10**6), st.sampled_from([1, 2]))
def test_dead_units_are_those_that_a_loop_finds(seed, groups):
    draws = torch.Generator().manual_seed(seed)
    mask = torch.rand((6, 4 // groups, 2, 2), generator=draws) < 0.12
    dead = sum(not any(map(bool, mask[o].flatten())) for o in range(6))
    unread = 0
    for channel in range(4):
        group, place = divmod(channel, 4 // groups)
        outputs = range(group * 6 // groups, (group + 1) * 6 // groups)
        unread += not any(bool(mask[o, place].any()) for o in outputs)
    found = analysis.dead_units({"w": mask}, groups={"w": groups})["w"]
    assert found == (dead, 6, unread, 4)


def test_layers_have_their_counts_and_sparsity():
    found = analysis.layers({"a": torch.tensor([[True, False], [False, False]])})
    assert found["a"] == (1, 4)
    assert found["a"].sparsity == 0.75
