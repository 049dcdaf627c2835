"""The strengths that a run chooses for ART where nobody does: the source's course, pressed."""

from __future__ import annotations

import pytest

from sparsetrain.training.config import ArtOptions
from sparsetrain.training.plans.art import strengths

# The source at 99 % zeros: 64 epochs of 782 steps, from 5e-6 on, each 1.05 times the one before.
SOURCE = [5e-6 * 1.05**epoch for epoch in range(64)]


def course(options: ArtOptions, sparsity: float, steps: int) -> list[float]:
    first, factor = strengths(options, sparsity, steps=steps)
    return [first * factor**epoch for epoch in range(options.max_regularize_epochs or 1)]


def test_the_source_s_own_budget_gives_the_source_s_own_strengths() -> None:
    assert course(ArtOptions(max_regularize_epochs=64), 0.99, 782) == pytest.approx(SOURCE)


@pytest.mark.parametrize("epochs", [2, 7, 15, 200])
@pytest.mark.parametrize(
    ("sparsity", "more"), [(0.9, 0.1), (0.99, 1.0), (0.9975, 4.0), (0.0, 0.01)]
)
def test_any_budget_pulls_as_much_in_total_and_more_at_higher_sparsity(
    epochs: int, sparsity: float, more: float
) -> None:
    found = course(ArtOptions(max_regularize_epochs=epochs), sparsity, 100)
    assert sum(found) * 100 == pytest.approx(sum(SOURCE) * 782 * more**0.5)
    assert found[-1] / found[0] == pytest.approx(SOURCE[-1] / SOURCE[0])


def test_one_epoch_has_all_of_the_pull() -> None:
    (only,) = course(ArtOptions(max_regularize_epochs=1), 0.99, 782)
    assert only == pytest.approx(sum(SOURCE))


def test_what_is_given_stays_and_the_other_goes_by_it() -> None:
    given = ArtOptions(max_regularize_epochs=7, strength=1e-3, strength_factor=1.25)
    assert strengths(given, 0.9, steps=50) == (1e-3, 1.25)
    factor = ArtOptions(max_regularize_epochs=7, strength_factor=2.0)
    assert sum(course(factor, 0.99, 50)) * 50 == pytest.approx(sum(SOURCE) * 782)
    first = ArtOptions(max_regularize_epochs=7, strength=1e-3)
    assert course(first, 0.99, 50)[-1] == pytest.approx(1e-3 * 1.05**63)
