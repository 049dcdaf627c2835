"""The ART transition against hand-made sequences and the facts of two published logs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sparsetrain.art_rule import ArtRule, ArtState, Candidate, start, transition

RULE = ArtRule(dense_epochs=2, finetune_epochs=3, max_regularize_epochs=100)


def regularizing(rule: ArtRule = RULE, peak: float = 90.0) -> ArtState:
    return replace(start(rule), phase="regularize", dense_peak=peak)


def feed(rule: ArtRule, state: ArtState, rows: list[tuple[float, float]]) -> ArtState:
    for dense, pruned in rows:
        state = transition(rule, state, dense, pruned)
    return state


def test_dense_epochs_are_counted_then_regularising_begins() -> None:
    state = transition(RULE, start(RULE), 50.0)
    assert (state.phase, state.epoch) == ("dense", 1)
    state = transition(RULE, state, 60.0)
    assert (state.phase, state.epoch) == ("regularize", 0)


def test_no_dense_epochs_start_with_regularising() -> None:
    assert start(replace(RULE, dense_epochs=0)).phase == "regularize"


def test_finetune_epochs_are_counted_then_done() -> None:
    state = replace(regularizing(), phase="finetune")
    for _ in range(3):
        assert state.phase == "finetune"
        state = transition(RULE, state, 90.0)
    assert state.phase == "done"
    with pytest.raises(ValueError, match="done"):
        transition(RULE, state, 90.0)


def test_the_mean_of_the_window_decides_and_its_centre_is_chosen() -> None:
    rows = [(90, 80), (90, 95), (90, 94)]  # mean 89.67: not yet
    state = feed(RULE, regularizing(), rows)
    assert state.phase == "regularize"
    state = transition(RULE, state, 90.0, 92.0)  # mean 93.67
    assert (state.phase, state.outcome, state.chosen) == ("finetune", "converged", 3)


def test_one_lucky_epoch_does_not_stop() -> None:
    state = feed(RULE, regularizing(), [(90, 10), (90, 99), (90, 10), (90, 99)])
    assert state.phase == "regularize"


def test_equal_means_are_good_enough() -> None:
    state = feed(RULE, regularizing(peak=1.0), [(1.0, 1.0)] * 3)
    assert state.outcome == "converged"


def test_a_stale_best_does_not_stop_against_a_sinking_dense_network() -> None:
    # The published rule compares a stored best with today's dense value (spec section 7, item 2).
    rows = [(90, 80), (90, 80), (90, 80), (90, 40), (90, 40), (90, 40), (70, 40)]
    assert feed(RULE, regularizing(), rows).phase == "regularize"
    paper = replace(RULE, compat="paper")
    assert feed(paper, regularizing(paper), rows).outcome == "converged"


def test_means_are_compared_with_means_when_the_best_is_kept() -> None:
    # Spec section 7, item 1: a single 80.47 with mean 76.76 blocked the higher mean 80.26.
    best = Candidate(epoch=5, accuracy=80.47, mean=76.76)
    state = replace(regularizing(), epoch=6, best=best, window=((5, 80.47), (6, 79.0)))
    pruned = 3 * 80.26 - 80.47 - 79.0
    assert transition(RULE, state, 95.0, pruned).best == Candidate(6, 79.0, pytest.approx(80.26))
    paper = replace(RULE, compat="paper")
    assert transition(paper, state, 95.0, pruned).best == best


def test_paper_replaces_a_best_by_a_lower_mean_above_its_single_value() -> None:
    # The published log, ART epoch 35: mean 14.19 was replaced by mean 14.14 with single 12.11.
    paper = replace(RULE, compat="paper")
    best = Candidate(epoch=33, accuracy=13.0, mean=14.19)
    state = replace(regularizing(paper), epoch=34, best=best, window=((33, 15.0), (34, 12.11)))
    pruned = 3 * 14.14 - 15.0 - 12.11
    assert transition(paper, state, 90.0, pruned).best == Candidate(34, 12.11, pytest.approx(14.14))
    ours = transition(RULE, state, 90.0, pruned).best
    assert ours == best


def test_paper_stops_where_the_published_log_stopped() -> None:
    # Log 1: stop after ART epoch 64, chosen epoch 63 with accuracy 86.45 and window mean 87.06;
    # the last pruned accuracy is 88.4 and the dense one 84.93. A single epoch would stop at 62.
    paper = replace(RULE, compat="paper")
    first = 3 * 87.06 - 86.45 - 88.4
    state = replace(regularizing(paper, peak=92.56), epoch=60, best=Candidate(58, 80.47, 76.76))
    state = replace(state, window=((59, 75.0), (60, 73.6)))
    state = transition(paper, state, 84.9, 80.0)
    state = transition(paper, state, 84.9, first)
    assert first > 84.9
    assert state.phase == "regularize"
    state = transition(paper, state, 84.9, 86.45)
    assert state.phase == "regularize"
    state = transition(paper, state, 84.93, 88.4)
    assert (state.phase, state.chosen) == ("finetune", 63)
    assert state.best == Candidate(63, 86.45, pytest.approx(87.06))


def test_paper_sparsity_zero_control_stops_after_two_epochs() -> None:
    # Log 3: stops because the dense accuracy fell to 88.32 below the epoch-1 value 89.26.
    paper = replace(RULE, compat="paper")
    state = feed(paper, regularizing(paper, peak=91.42), [(91.42, 89.26), (88.32, 88.0)])
    assert (state.phase, state.outcome) == ("finetune", "converged")


@pytest.mark.parametrize(
    ("pruned", "chosen"),
    [
        # Windows end at 3 to 6 with means 30, 43.3, 43.3 and 26.7: the first best has centre 3.
        ((10, 20, 60, 50, 20, 10), 3),
        ((10, 20, 30, 40, 60, 80), 6),  # rising: the last, not the middle of its window
        ((10, 80, 80, 10, 10, 80), 2),  # of equal ones the earliest; the best window is 1 to 3
        ((10, 70, 75, 70, 10, 90), 6),  # the last window is worse, its last copy is not
    ],
)
def test_the_cap_takes_the_most_accurate_copy_that_is_held(
    pruned: tuple[float, ...], chosen: int
) -> None:
    rule = replace(RULE, max_regularize_epochs=6)
    state = feed(rule, regularizing(rule), [(95, accuracy) for accuracy in pruned])
    assert (state.outcome, state.chosen, state.phase) == ("cap", chosen, "finetune")


def test_the_cap_under_published_decisions_takes_the_stored_copy() -> None:
    rule = replace(RULE, max_regularize_epochs=4, compat="paper")
    state = feed(rule, regularizing(rule), [(95, 10), (95, 20), (95, 60), (95, 80)])
    assert (state.outcome, state.chosen) == ("cap", 3)


def test_a_cap_below_the_window_still_chooses_an_epoch() -> None:
    rule = replace(RULE, max_regularize_epochs=1)
    state = transition(rule, regularizing(rule), 90.0, 10.0)
    assert (state.outcome, state.chosen) == ("cap", 1)


def test_dense_collapse_is_no_convergence() -> None:
    rows = [(90, 60), (90, 61), (90, 62), (10, 62)]
    state = feed(RULE, regularizing(), rows)
    assert (state.outcome, state.phase) == ("collapsed", "finetune")
    assert state.chosen in (2, 3)


@pytest.mark.parametrize(
    "rows",
    [
        [(0.94, 0.5), (0.94, 0.5), (0.94, 0.5), (0.50, 0.5)],  # two classes: chance is half
        [(0.94, 0.1), (0.90, 0.5), (0.80, 0.52), (0.50, 0.52)],
    ],
)
def test_a_dense_network_that_comes_down_to_the_pruned_one_is_a_collapse(
    rows: list[tuple[float, float]],
) -> None:
    assert feed(RULE, regularizing(peak=0.95), rows).outcome == "collapsed"


def test_a_pruned_copy_that_comes_up_converges_even_at_a_low_dense_accuracy() -> None:
    # As at 99.8 %, where the regulariser costs the dense network much: it came up further.
    rows = [(0.90, 0.1), (0.80, 0.3), (0.75, 0.69), (0.70, 0.72), (0.69, 0.72)]
    state = feed(RULE, regularizing(peak=0.95), rows)
    assert (state.outcome, state.chosen) == ("converged", 4)


def test_a_collapse_chooses_the_best_window_not_the_last() -> None:
    rows = [(90, 70), (90, 75), (90, 70), (90, 20), (90, 20), (20, 20)]
    assert feed(RULE, regularizing(), rows).chosen == 2


def test_a_cap_below_the_window_takes_the_better_of_what_there_is() -> None:
    rule = replace(RULE, max_regularize_epochs=2)
    assert feed(rule, regularizing(rule), [(95, 90), (95, 10)]).chosen == 1


def test_nothing_to_finetune_ends_at_once() -> None:
    rule = replace(RULE, finetune_epochs=0)
    assert feed(rule, regularizing(rule), [(50, 60)] * 3).phase == "done"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_accuracy_that_is_not_finite_stops_the_run(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        transition(RULE, start(RULE), bad)
    with pytest.raises(ValueError, match="finite"):
        transition(RULE, regularizing(), 90.0, bad)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window", 2),
        ("window", 0),
        ("max_regularize_epochs", 0),
        ("dense_epochs", -1),
        ("finetune_epochs", -1),
        ("dense_epochs", 1.5),
        ("compat", "exact"),
    ],
)
def test_bad_constants_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        replace(RULE, **{field: value})


def test_transition_changes_no_argument() -> None:
    state = regularizing()
    before = replace(state)
    transition(RULE, state, 90.0, 50.0)
    assert state == before


def test_a_score_below_zero_is_refused_before_it_is_taken_for_a_collapse() -> None:
    with pytest.raises(ValueError, match=r"train_accuracy must be at least 0, got -1.5: .*exp"):
        transition(RULE, start(RULE), -1.5)
    with pytest.raises(ValueError, match="the pruned copy's accuracy must be at least 0"):
        transition(RULE, regularizing(), 90.0, -0.1)
