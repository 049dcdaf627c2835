"""Options: what steps and fractions mean, which combinations are refused, how counts are shared."""

from __future__ import annotations

from typing import Literal, get_args, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

import sparsetrain as st
from sparsetrain import patterns
from sparsetrain.methods import apportion, regrow, start
from sparsetrain.methods.options import step_of
from sparsetrain.types import View

GROWING = ["set", "rigl", "itop", "snfs", "granet"]


@pytest.mark.parametrize(
    ("value", "step"),
    [(0, 0), (1, 1), (40, 40), (1.0, 100), (0.75, 75), (0.29, 29), (0.0, 0), (60.0, 60)],
)
def test_an_int_counts_steps_and_a_float_is_a_fraction(value: float, step: int) -> None:
    assert step_of("stop", value, 100) == step


@pytest.mark.parametrize("value", [101, -1, 1.5, -0.1, float("nan"), True, "half", None])
def test_what_is_neither_step_nor_fraction_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="stop must be an optimizer step in"):
        step_of("stop", value, 100)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("rigl", {"drop": "largest"}, "drop must be one of 'magnitude', 'set'"),
        ("rigl", {"growth": "momentun"}, "growth must be one of 'gradient', 'random'"),
        ("rigl", {"redistribution": "nonzero"}, "redistribution must be one of 'none'"),
        (
            "rigl",
            {"distribution": "ERK"},
            "distribution must be one of 'uniform', 'er', 'erk', 'smart_ratio'",
        ),
        ("rigl", {"start_mask": "dense"}, r"use|makes sense where weights are pruned in training"),
        ("rigl", {"drop_fraction": 1.5}, r"drop_fraction must be in \[0, 1\], got 1.5"),
        ("rigl", {"update_every": 0}, "update_every must be a number of steps >= 1, got 0"),
        ("rigl", {"start": 80, "stop": 40}, "stop must be at or after start"),
        ("rigl", {"drop": "threshold"}, "drop='threshold' needs a threshold"),
        ("rigl", {"threshold": 0.1}, "no other drop rule reads one"),
        ("rigl", {"drop": "threshold", "threshold": -1.0}, "threshold must be a number >= 0"),
        ("snfs", {"ema_decay": 2.0}, r"ema_decay must be in \[0, 1\], got 2.0"),
        ("granet", {"initial_sparsity": 0.95}, "initial_sparsity must not be above sparsity=0.9"),
        ("granet", {"initial_sparsity": 50}, r"initial_sparsity must be in \[0, 1\), got 50"),
        ("granet", {"scope": "row"}, "scope must be one of 'global', 'layer'"),
        ("granet", {"scope": "layer", "redistribution": "nonzeros"}, "makes no sense: one keeps"),
        ("granet", {"regrow_until": 0.1, "start": 0.5, "stop": 0.8}, "regrow_until must be at or"),
        ("gmp", {"initial_sparsity": 0.95}, "initial_sparsity must not be above sparsity=0.9"),
        ("gmp", {"classifier_sparsity": 0.8}, "needs scope='layer'"),
        ("gmp", {"scope": "layer", "classifier_sparsity": 8}, "classifier_sparsity must be in"),
        ("gmp", {"start_mask": "dense"}, "start_mask must be one of 'random', 'pruned'"),
        ("gmp", {"distribution": "srk"}, "distribution must be one of"),
        ("gmp", {"stop": 200}, r"stop must be an optimizer step in \[0, total_steps=100\]"),
    ],
)
def test_bad_options_and_combinations_are_refused_with_a_reason(
    name: str, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        st.methods.create(name, sparsity=0.9, total_steps=100, **options)


@pytest.mark.parametrize("name", [*GROWING, "gmp"])
def test_the_options_choices_are_those_of_the_parts(name: str) -> None:
    choices = {
        "drop": regrow.DropRule,
        "growth": regrow.GrowthRule,
        "redistribution": apportion.Redistribution,
        "start_mask": start.StartMask,
        "pattern": patterns.Pattern,
    }
    hints = get_type_hints(st.methods.get(name).make)
    for option, parts in choices.items():
        if option in hints:
            assert get_args(hints[option]) == get_args(parts)
            assert hints[option] == Literal[get_args(parts)]
    names, _function = get_args(hints["distribution"])
    assert names == start.DistributionName
    assert get_args(names) == tuple(start.DISTRIBUTIONS)


def test_granet_starts_at_half_or_at_a_target_below() -> None:
    assert st.methods.granet(0.9, 100).sparsity_at(0) == 0.5
    assert st.methods.granet(0.3, 100).sparsity_at(0) == 0.3
    assert st.methods.granet(0.9, 100, initial_sparsity=0.0).sparsity_at(0) == 0.0


def test_granet_stops_moving_weights_where_it_is_told() -> None:
    method = st.methods.granet(0.9, 100, update_every=10, stop=0.8, regrow_until=0.45)
    assert [s for s in range(101) if method.when(s)] == [0, 10, 20, 30, 40, 45, 50, 60, 70, 80]
    assert [s for s in (10, 40, 45, 50, 80) if method.fraction(s)] == [10, 40, 45]


def test_paper_compatibility_is_refused_for_parts_it_has_no_rule_for() -> None:
    with pytest.raises(ValueError, match="compat='paper' has no rule for 'global', 'set'"):
        st.methods.granet(0.9, 100, drop="set", compat="paper")


ROOMS = hs.lists(hs.tuples(hs.integers(0, 50), hs.floats(0, 10)), min_size=1, max_size=6)


@given(ROOMS, hs.floats(0, 1))
def test_shares_add_up_exactly_and_no_layer_overflows(
    layers: list[tuple[int, float]], part: float
) -> None:
    room = {str(i): size for i, (size, _) in enumerate(layers)}
    shares = {str(i): share for i, (_, share) in enumerate(layers)}
    total = int(part * sum(room.values()))
    counts = apportion.apportion(shares, room, total)
    assert sum(counts.values()) == total
    assert all(0 <= counts[n] <= room[n] for n in room)
    open_layers = [n for n in room if counts[n] < room[n]]
    for a in open_layers:
        for b in open_layers:
            if shares[a] >= shares[b] > 0:
                assert counts[a] >= counts[b] - 1


def test_shares_fill_a_small_layer_and_split_the_rest() -> None:
    # 12 at shares 2 : 1 : 1 are 6, 3, 3; the first takes 2, and 10 more are 5 and 5.
    counts = apportion.apportion({"a": 2, "b": 1, "c": 1}, {"a": 2, "b": 9, "c": 9}, 12)
    assert counts == {"a": 2, "b": 5, "c": 5}


@pytest.mark.parametrize(
    ("rule", "counts"),
    [
        ("none", {"a": 1, "b": 3}),  # each its own
        ("magnitude", {"a": 3, "b": 1}),  # mean |w| of the active: 3 and 1
        ("momentum", {"a": 1, "b": 3}),  # mean |m| of the active: 1 and 3
        ("nonzeros", {"a": 1, "b": 3}),  # 2 and 6 active
    ],
)
def test_redistribution_follows_the_active_weights(rule: str, counts: dict[str, int]) -> None:
    before = {"a": torch.arange(10) < 2, "b": torch.arange(10) < 6}
    weights = {"a": torch.full((10,), -3.0), "b": torch.full((10,), 1.0)}
    momentum = {"a": torch.full((10,), 0.1), "b": torch.full((10,), -0.3)}
    view = View(1, weights, {}, {}, torch.Generator())
    dropped = {"a": 1, "b": 3}
    assert apportion.regrow_counts(rule, view, before, dropped, momentum) == counts  # type: ignore[arg-type]
