"""The strengths that ART needs in a budget: the source's course, pressed."""

from __future__ import annotations

import pytest

import sparsetrain as st

# The source at 99 % zeros: 64 epochs of 782 steps, from 5e-6 on, each 1.05 times the one before.
SOURCE = [5e-6 * 1.05**epoch for epoch in range(64)]


def course(sparsity: float, *, epochs: int, steps: int, **given: float) -> list[float]:
    first, factor = st.art_strengths(sparsity, epochs=epochs, steps_per_epoch=steps, **given)
    return [first * factor**epoch for epoch in range(epochs)]


def test_the_source_s_own_budget_gives_the_source_s_own_strengths() -> None:
    assert course(0.99, epochs=64, steps=782) == pytest.approx(SOURCE)


@pytest.mark.parametrize("epochs", [2, 7, 15, 200])
@pytest.mark.parametrize(
    ("sparsity", "more"), [(0.9, 0.1), (0.99, 1.0), (0.9975, 4.0), (0.0, 0.01)]
)
def test_any_budget_pulls_as_much_in_total_and_more_at_higher_sparsity(
    epochs: int, sparsity: float, more: float
) -> None:
    found = course(sparsity, epochs=epochs, steps=100)
    assert sum(found) * 100 == pytest.approx(sum(SOURCE) * 782 * more**0.5)
    assert found[-1] / found[0] == pytest.approx(SOURCE[-1] / SOURCE[0])


def test_one_epoch_has_all_of_the_pull() -> None:
    (only,) = course(0.99, epochs=1, steps=782)
    assert only == pytest.approx(sum(SOURCE))


def test_what_is_given_stays_and_the_other_goes_by_it() -> None:
    both = st.art_strengths(0.9, epochs=7, steps_per_epoch=50, strength=1e-3, strength_factor=1.25)
    assert both == (1e-3, 1.25)
    factor = course(0.99, epochs=7, steps=50, strength_factor=2.0)
    assert sum(factor) * 50 == pytest.approx(sum(SOURCE) * 782)
    assert course(0.99, epochs=7, steps=50, strength=1e-3)[-1] == pytest.approx(1e-3 * 1.05**63)


@pytest.mark.parametrize(
    ("sparsity", "epochs", "steps", "sentence"),
    [
        (1.0, 7, 50, "No weight would be left"),
        (0.9, 0, 50, "epochs must be at least 1, got 0"),
        (0.9, 7, 0, "steps_per_epoch must be at least 1, got 0"),
    ],
)
def test_mistakes_are_one_sentence(sparsity: float, epochs: int, steps: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        st.art_strengths(sparsity, epochs=epochs, steps_per_epoch=steps)
