import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetrain import schedules as S

RAMPS = [S.linear, S.cosine, S.cubic, S.geometric]
steps = st.integers(0, 10_000)


@pytest.mark.parametrize("ramp", RAMPS)
@settings(max_examples=30, deadline=None)
@given(
    initial=st.floats(0.001, 1), final=st.floats(0.001, 1), start=steps, length=steps, step=steps
)
def test_ends_are_exact_and_the_way_stays_between_them(ramp, initial, final, start, length, step):
    stop = start + length
    schedule = ramp(initial, final, start, stop)
    assert schedule(stop) == schedule(stop + 1) == schedule(10**9) == final
    if length:
        assert schedule(start) == schedule(start - 1) == schedule(-5) == initial
    low, high = sorted((initial, final))
    assert low - 1e-12 <= schedule(step) <= high + 1e-12


@pytest.mark.parametrize("ramp", RAMPS)
def test_the_way_is_monotone(ramp):
    values = [ramp(0.1, 0.9, 10, 90)(step) for step in range(100)]
    assert values == sorted(values)


def test_halfway_values_are_the_closed_forms():
    assert S.linear(0.2, 0.6, 100, 200)(150) == pytest.approx(0.4)
    assert S.cosine(0.2, 0.6, 100, 200)(150) == pytest.approx(0.4)
    assert S.cosine(0.2, 0.6, 100, 200)(125) == pytest.approx(0.6 - 0.4 * (1 + 0.5**0.5) / 2)
    assert S.cubic(0.2, 0.6, 100, 200)(150) == pytest.approx(0.6 - 0.4 / 8)
    assert S.geometric(0.01, 1.0, 100, 200)(150) == pytest.approx(0.1)
    assert S.constant(0.3)(7) == 0.3


# Published GraNet on CIFAR: 352 steps an epoch, an update each 1000 steps, epochs 0 to 80.
GRANET = [
    ((0.5, 0.1, 0, 28), {1: 0.458655, 7: 0.268750, 14: 0.150000, 20: 0.109329, 27: 0.100018}),
    ((1.0, 0.05, 0, 28), {1: 0.901806, 7: 0.450781, 14: 0.168750, 20: 0.072157, 27: 0.050043}),
    ((1.0, 0.1, 0, 28), {1: 0.906974, 7: 0.479688, 14: 0.212500, 20: 0.120991, 27: 0.100041}),
    ((0.5, 0.2, 0, 75), {1: 0.488159, 10: 0.395289, 20: 0.318311, 40: 0.230489, 74: 0.200001}),
]


@pytest.mark.parametrize(("arguments", "densities"), GRANET)
def test_cubic_gives_the_published_granet_densities(arguments, densities):
    initial, final, start, stop = arguments
    schedule = S.cubic(1 - initial, 1 - final, 1000 * start, 1000 * stop)
    for k, density in densities.items():
        assert 1 - schedule(1000 * k) == pytest.approx(density, abs=6e-7)


def test_cubic_gives_the_published_granet_survivors_of_a_later_start():
    schedule = S.cubic(0.5, 0.9, 7000, 28_000)
    # Its global rule keeps one less than int(N * density), here of a million weights.
    for k, survivors in {7: 499_999, 8: 445_534, 15: 194_891, 20: 122_113, 27: 100_042}.items():
        assert int(1_000_000 * (1 - schedule(1000 * k))) - 1 == survivors


def test_cosine_gives_the_published_drop_fractions():
    schedule = S.cosine(0.5, 0.005, 0, 56_320)
    published = {0: 0.5, 1000: 0.499615, 14_080: 0.427509, 28_160: 0.2525, 42_240: 0.077491}
    for step, value in published.items():
        assert schedule(step) == pytest.approx(value, abs=6e-7)
    assert schedule(60_000) == 0.005


@pytest.mark.parametrize("ramp", RAMPS)
def test_schedules_pickle_compare_and_hash_by_value(ramp):
    schedule = ramp(0.1, 0.9, 0, 10)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert schedule == ramp(0.1, 0.9, 0, 10)
    assert schedule != ramp(0.1, 0.9, 0, 11)
    assert all(schedule != other(0.1, 0.9, 0, 10) for other in RAMPS if other is not ramp)
    assert len({schedule, ramp(0.1, 0.9, 0, 10)}) == 1


@pytest.mark.parametrize("ramp", RAMPS)
def test_bad_arguments_raise(ramp):
    with pytest.raises(ValueError, match="start=5, stop=4"):
        ramp(0.1, 0.9, 5, 4)
    with pytest.raises(ValueError, match="start must be an optimizer step >= 0, got -1"):
        ramp(0.1, 0.9, -1, 4)
    with pytest.raises(ValueError, match="final must be a finite number, got nan"):
        ramp(0.1, math.nan, 0, 4)
    with pytest.raises(ValueError, match="value must be a finite number, got inf"):
        S.constant(math.inf)


def test_geometric_refuses_zero():
    with pytest.raises(ValueError, match=r"final must be above 0 .* got 0"):
        S.geometric(1.0, 0.0, 0, 10)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(0, 60), st.integers(0, 60))
def test_every_is_true_at_the_multiples_inside_and_at_stop(interval, start, length):
    stop = start + length
    due = {step for step in range(200) if S.Every(interval, start, stop)(step)}
    assert due == {m for m in range(0, 200, interval) if start <= m <= stop} | {stop}


def test_every_pickles_and_refuses_what_cannot_be():
    assert pickle.loads(pickle.dumps(S.Every(3, 0, 9))) == S.Every(3, 0, 9)
    with pytest.raises(ValueError, match=r"interval must be a number of steps >= 1, got 0"):
        S.Every(0, 0, 9)
    with pytest.raises(ValueError, match="stop must be at or after start"):
        S.Every(1, 9, 3)


@pytest.mark.parametrize(
    ("total", "interval"), [(1, 1), (19, 1), (40, 2), (1000, 50), (2000, 100), (10**6, 100)]
)
def test_default_interval_is_a_twentieth_up_to_a_hundred(total, interval):
    assert S.default_interval(total) == interval
