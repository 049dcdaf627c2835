"""Axes: round values, in their places, never over each other."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsetrain.report import axis
from sparsetrain.report.chart import Chart, Series
from sparsetrain.report.names import shortened
from sparsetrain.report.svg import draw

VALUES = st.floats(1e-6, 1e9)


@pytest.mark.parametrize("scale", ["linear", "log"])
@given(values=st.tuples(VALUES, VALUES))
def test_there_are_a_few_ticks_within_the_axis(scale, values):
    found = axis.fitted(values, scale, start=0, stop=100)
    shown = axis.ticks(found)
    assert 1 <= len(shown) <= 8
    slack = 1e-2 * max(abs(found.low), abs(found.high))
    assert all(found.low - slack <= v <= found.high + slack for v in shown)
    places = [found.place(v) for v in shown]
    assert places == sorted(places)


@given(st.lists(st.tuples(st.floats(0, 360), st.floats(5, 60)), max_size=12))
def test_labels_that_are_kept_do_not_touch(labels):
    places, widths = [p for p, _ in labels], [w for _, w in labels]
    kept = axis.thinned(places, widths, ends=(0, 360))
    ends = sorted((places[i] - widths[i] / 2, places[i] + widths[i] / 2) for i in kept)
    assert all(b[0] - a[1] >= 8 - 1e-6 for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("scale", ["linear", "log", "zeros"])
@pytest.mark.parametrize("values", [(), (0.0,), (math.nan, 0.0), (-1.0,)])
def test_an_axis_without_a_value_that_it_can_show_has_ticks(scale, values):
    found = axis.fitted(values, scale, start=0, stop=100)
    assert math.isfinite(found.low) and math.isfinite(found.high) and found.low < found.high
    assert all(0 <= found.place(v) <= 100 for v in axis.ticks(found))
    if scale == "log":
        assert {1, 10} <= set(axis.ticks(found))


def test_zeros_stand_at_equal_distances_for_equal_factors():
    found = axis.fitted([0.9, 0.999], "zeros", start=0, stop=100, wanted=(0.9, 0.999))
    assert [found.place(v) for v in (0.9, 0.99, 0.999)] == pytest.approx([0, 50, 100])
    assert axis.written(0.995, "zeros") == "99.5 %"


def test_whole_numbers_have_whole_ticks():
    found = axis.fitted([1, 4], "linear", start=0, stop=100)
    assert axis.ticks(found, whole=True) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (2500, "2500"), (25_000, "25k"), (3.2e9, "3.2G"), (2e-5, "2e-5")],
)
def test_numbers_are_written_short(value, text):
    assert axis.written(value, "linear") == text


def test_points_stand_where_their_values_are():
    series = Series("s", (0, 10), (0, 50), color=0, form="points")
    chart = Chart("t", "x", "y", (series,), x_range=(0, 10), y_range=(0, 100))
    drawn = draw(chart)
    assert 'cx="44.0" cy="222.0"' in drawn  # the corner
    assert 'cx="346.0" cy="126.0"' in drawn  # the right edge, half the height
    assert "<title>s: 10, 50</title>" in drawn


def test_what_is_missing_breaks_the_line_and_what_is_outside_is_not_drawn():
    series = Series("s", (0, 1, 2, 3, 99), (1, 1, math.nan, 1, 1), color=0)
    drawn = draw(Chart("t", "x", "y", (series,), x_range=(0, 4)))
    path = drawn.split('fill="none" d="')[1].split('"')[0]
    assert path.count("M") == 2
    assert path.count("L") == 1


def test_a_point_without_neighbours_is_a_dot_in_a_line_too():
    nan = math.nan
    series = Series("s", (0, 1, 2, 3, 4, 5), (1, nan, 2, nan, 3, 3), color=0)
    assert draw(Chart("t", "x", "y", (series,))).count("<circle") == 2
    alone = Series("s", (0,), (1,), color=0)
    assert draw(Chart("t", "x", "y", (alone,))).count("<circle") == 1


def test_a_level_keeps_its_place_where_the_others_stand_beside_each_other():
    levels = [Series(n, (0,), (5,), dashed=True, level=True) for n in "ab"]
    points = [Series(n, (0, 10), (y, y), color=0, form="points") for n, y in (("c", 1), ("d", 9))]
    chart = Chart("t", "x", "y", (*points, *levels), x_range=(0, 10), y_range=(0, 10), dodge=True)
    drawn = draw(chart)
    assert drawn.count('fill="none" d="M44.0 126.0L346.0 126.0"') == 2
    assert 'cx="36.0"' not in drawn  # beyond the edge
    assert 'cx="338.0"' in drawn and 'cx="52.0"' in drawn


@pytest.mark.parametrize("sparsities", [(0.9,), (0.9, 0.98)])
def test_a_level_goes_from_edge_to_edge_whatever_the_sparsities(sparsities):
    level = Series("dense", sparsities[:1], (95,), dashed=True, level=True)
    points = Series("a", sparsities, (90,) * len(sparsities), color=0, form="both")
    drawn = draw(Chart("", "zeros", "%", (points, level), x_scale="zeros", x_ticks=sparsities))
    (path,) = re.findall(r'd="M(\S+) (\S+)L(\S+) (\S+)" [^>]*stroke-dasharray="5 4"', drawn)
    assert (path[0], path[2]) == ("44.0", "346.0") and path[1] == path[3]
    assert drawn.count("<circle") == len(sparsities)


WORDS = st.text("ab=1. ", min_size=1, max_size=40).map(lambda word: " ".join(word.split()))


@given(st.lists(WORDS.filter(bool), min_size=1, max_size=40, unique=True))
def test_short_names_fit_and_can_be_told_apart(names):
    found = shortened(names, 12)
    assert len(found) == len(set(found)) == len(names)
    assert all(len(name) <= 12 for name in found)
    if all(len(name) <= 12 for name in names):
        assert found == names


def test_names_in_a_grid_over_a_strength_keep_what_they_differ_in():
    grid = [f"art strength={s} strength_factor={f}" for s in ("0.0001", "5e-05") for f in (1, 1.05)]
    assert shortened(grid) == ["art 0.0001 1", "art 0.0001 1.05", "art 5e-05 1", "art 5e-05 1.05"]
    assert shortened(["gmp " + "x" * 30, "gmp"]) == ["gmp " + "x" * 19 + "…", "gmp"]
    alike = ["x" * 30 + end for end in "ab"]
    assert shortened(alike) == [f"{place} " + "x" * 21 + "…" for place in (1, 2)]


def test_rows_have_names_and_bars_along_the_values():
    series = tuple(
        Series(name, [x], [place], [1.0], place, "points")
        for place, (name, x) in enumerate((("a < b", 30.0), ("c" * 30, 10.0)))
    )
    drawn = draw(Chart("t", "x", "place", series, rows=tuple(s.name for s in series)))
    height = 30 + 2 * 17 + 42
    assert f'viewBox="0 0 360 {height}"' in drawn
    assert ">a &lt; b</text>" in drawn and f">{'c' * 23}…</text>" in drawn  # as `shortened` cuts
    assert "<title>a &lt; b: 30</title>" in drawn  # no row's number
    (left,) = {part.split(" ")[0] for part in drawn.split('class="grid" d="M')[1:]}
    assert float(left) == pytest.approx(12 + 6.3 * 24)
    assert drawn.index("a &lt; b</text>") < drawn.index("…</text>")
    circles = [part.split('"')[0:4] for part in drawn.split("<circle cx=")[1:]]
    (_, right, _, above), (_, low, _, below) = circles
    assert float(right) > float(low) and float(above) + 17 == float(below)
    bars = re.findall(r'd="M([\d.]+) ([\d.]+)H([\d.]+)" style="stroke', drawn)
    assert [(float(b[0]) + float(b[2])) / 2 for b in bars] == pytest.approx(
        [float(right), float(low)], abs=0.06
    )
