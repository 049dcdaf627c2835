"""Profiles, classes, convergence and the front, against loops and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sparsetrain
from sparsetrain import analysis


def test_ranks_run_from_the_smallest_to_the_largest_and_closely_at_the_end():
    ranks = analysis.relative_ranks()
    assert (ranks[0], ranks[-1]) == (0, 1)
    assert (np.diff(ranks) > 0).all()
    assert (ranks > 0.999).sum() >= 10


def test_a_profile_is_the_sorted_magnitudes():
    weights = np.random.default_rng(0).normal(size=(7, 11))
    ranks = np.linspace(0, 1, 77)
    found = analysis.magnitude_profile(weights, ranks)
    assert found.tolist() == sorted(abs(w) for w in weights.flatten())


def test_the_mean_by_rank_is_that_of_a_loop_over_the_sorted_weights():
    draws = np.random.default_rng(0)
    weights, values = draws.normal(size=50), draws.normal(size=50)
    ranks = np.array([0.0, 0.3, 0.31, 0.8, 1.0])
    order = sorted(range(50), key=lambda i: abs(weights[i]))
    places = [round(rank * 49) for rank in ranks]
    places[-1] += 1  # the last mean ends with the largest weight's
    expected = [
        np.mean([abs(values[order[i]]) for i in range(low, max(high, low + 1))])
        for low, high in itertools.pairwise(places)
    ]
    assert analysis.mean_by_rank(values, weights, ranks) == pytest.approx(expected)


@pytest.mark.parametrize("count", [4, 33, 50])
def test_the_mean_by_share_is_that_of_a_loop_over_the_sorted_weights(count):
    draws = np.random.default_rng(0)
    weights, values = draws.normal(size=count), draws.normal(size=count)
    order = sorted(range(count), key=lambda i: abs(weights[i]))
    sizes = [count // 10 + (i < count % 10) for i in range(10)]
    expected, first = [], 0
    for size in sizes:
        own = [abs(values[i]) for i in order[first : first + size]]
        expected.append(sum(own) / size if size else np.nan)
        first += size
    assert first == count
    found = analysis.mean_by_share(values, weights)
    np.testing.assert_allclose(found, expected)


def test_hypersparse_s_gradient_by_rank_falls_and_is_two_thirds_at_the_border():
    """Spec: |g| falls with |w|, and at the border it is 2/3 of its largest value."""
    weights = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    gradient = sparsetrain.HyperSparse(0.9).grad([weights])[0]
    ranks = np.linspace(0, 1, 201)
    found = analysis.mean_by_rank(gradient.numpy(), weights.numpy(), ranks)
    assert (np.diff(found) <= 1e-6).all()
    border = np.searchsorted(ranks, 0.9)
    assert found[border - 1] > 2 / 3 * found[0] - 0.01 > found[border] - 0.02


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_point_beats(points):
    found = analysis.front(points)
    beaten = {
        i
        for i, (cost, good) in enumerate(points)
        if any(c <= cost and g >= good and (c, g) != (cost, good) for c, g in points)
    }
    assert {points[i] for i in found} == {p for i, p in enumerate(points) if i not in beaten}
    assert [points[i][0] for i in found] == sorted({points[i][0] for i in found})


def test_an_accuracy_is_reached_at_its_first_time():
    times, accuracies = [1, 2, 3, 4], [0.2, 0.6, 0.5, 0.9]
    assert analysis.reached(times, accuracies, 0.55) == 2
    assert analysis.reached(times, accuracies, 0.95) is None
    assert analysis.reached_at_each(times, accuracies) == ([0.2, 0.6, 0.9], [1, 2, 4])


def test_classes_are_counted_as_a_loop_counts_them():
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 5, generator=draws)
    labels = torch.randint(0, 4, (60,), generator=draws)  # class 4 has no image
    counts = analysis.class_counts(logits, labels, 5)
    for label in range(5):
        of = [int(logits[i].argmax()) == label for i in range(60) if labels[i] == label]
        assert counts[:, label].tolist() == [sum(of), len(of)]
    accuracy = analysis.class_accuracy(counts.numpy())
    assert accuracy[:4] == pytest.approx((counts[0, :4] / counts[1, :4]).numpy())
    assert np.isnan(accuracy[4])
