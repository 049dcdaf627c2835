"""How many weights each published code keeps of N, and that ours keeps N - floor(s N) always."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import sparsetrain as st
from sparsetrain import distributions
from tests.test_distributions import R32, VGG, size
from tests.test_golden_erk import network

# What the published codes keep of the ascending scores x at sparsity s.
PUBLISHED: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    # GraSP: of what is to be removed, everything up to the k-th largest stays.
    "grasp": lambda x, s: x <= x[::-1][int(len(x) * s) - 1],
    "snip": lambda x, s: x >= x[::-1][int(len(x) * (1 - s)) - 1],
    "synflow": lambda x, s: x > x[int(s * len(x)) - 1],
    "open_lth": lambda x, s: x > x[math.ceil(s * len(x))],
    "hypersparse": lambda x, s: x > x[math.floor(len(x) * s)],
    "turbo": lambda x, s: x > x[int(s * len(x)) - 1],
}
LESS_THAN_OURS = {  # where s N is a whole number and no score ties; below 0: one more
    "grasp": -1,
    "snip": 0,
    "synflow": 0,
    "open_lth": 1,
    "hypersparse": 1,
    "turbo": 0,
}


@pytest.mark.parametrize("code", PUBLISHED)
@pytest.mark.parametrize(("n", "s"), [(1000, 0.75), (512, 0.5), (4096, 0.9375)])
def test_published_codes_keep_up_to_one_weight_more_or_fewer(code: str, n: int, s: float) -> None:
    scores = np.random.default_rng(0).permutation(n).astype(float)
    theirs = int(PUBLISHED[code](np.sort(scores), s).sum())
    ours = st.masks.keep_global({"w": torch.from_numpy(scores)}, st.masks.kept(n, s))
    assert int(ours["w"].sum()) == st.masks.kept(n, s) == theirs + LESS_THAN_OURS[code]


@pytest.mark.parametrize("code", PUBLISHED)
def test_equal_scores_break_every_published_count_and_not_ours(code: str) -> None:
    theirs = int(PUBLISHED[code](np.ones(1000), 0.75).sum())
    assert theirs == (1000 if code in ("grasp", "snip") else 0)
    assert int(st.masks.keep_global({"w": torch.ones(1000)}, 250)["w"].sum()) == 250


def test_paper_compatibility_of_hypersparse_keeps_its_count() -> None:
    scores = {"a": torch.randperm(600).view(20, 30) * 2.0, "b": torch.randperm(400) * 2.0 + 1}
    n = 1000
    for s in (0.9, 0.95, 0.98, 0.29):
        theirs = st.masks.keep_global_strict(scores, int(s * n))
        values = np.sort(np.concatenate([v.numpy().ravel() for v in scores.values()]))
        assert sum(st.masks.count_active(theirs).values()) == int(
            (values > values[int(s * n)]).sum()
        )


@pytest.mark.parametrize("s", [0.8, 0.9, 0.95])
def test_rounding_down_zeros_layer_by_layer_keeps_too_many_and_ours_does_not(s: float) -> None:
    zeros = {name: math.floor(s * math.prod(shape)) for name, shape in R32.items()}
    theirs = size(R32) - sum(zeros.values())
    ours = distributions.uniform(R32, s)
    assert sum(ours.values()) == st.masks.kept(size(R32), s)
    assert 0 <= theirs - sum(ours.values()) <= len(R32)
    assert all(abs(ours[n] - (math.prod(R32[n]) - zeros[n])) <= 1 for n in R32)


@pytest.mark.parametrize("shapes", [R32, VGG], ids=["resnet32", "vgg19"])
def test_clamping_erk_without_sharing_the_rest_misses_the_target(
    shapes: dict[str, tuple[int, ...]],
) -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    epsilon = 0.1 * size(shapes) / sum(map(sum, shapes.values()))
    clamped = sum(min(1, epsilon * sum(shapes[n]) / sizes[n]) * sizes[n] for n in shapes)
    assert clamped < 0.0999 * size(shapes)
    assert sum(distributions.erk(shapes, 0.9).values()) == st.masks.kept(size(shapes), 0.9)


@pytest.mark.parametrize(("shapes", "name"), [(R32, "resnet32"), (VGG, "vgg19")])
def test_the_shape_lists_of_the_tables_are_our_networks_in_their_order(
    shapes: dict[str, tuple[int, ...]], name: str
) -> None:
    options = {"width": 2} if name == "resnet32" else {}
    assert list(network(name, 10, **options).values()) == list(shapes.values())


# Kept weights of the published smart-ratio code on the double-width ResNet-32.
SMART = {
    10: {0.9: 185_541, 0.95: 92_761, 0.98: 37_094, 0.99: 18_538, 0.995: 9_266, 0.998: 3_690},
    100: {0.9: 186_693, 0.95: 93_336, 0.98: 37_324, 0.99: 18_654, 0.995: 9_319},
}


@pytest.mark.parametrize("classes", SMART)
def test_smart_ratio_keeps_the_published_counts_of_our_network(classes: int) -> None:
    shapes = network("resnet32", classes, width=2)
    for s, total in SMART[classes].items():
        assert sum(distributions.smart_ratio(shapes, s, compat="paper").values()) == total
        exact = sum(distributions.smart_ratio(shapes, s).values())
        assert exact == st.masks.kept(size(shapes), s)
        assert 0 < exact - total <= len(shapes)


def test_smart_ratio_of_our_network_is_refused_where_the_head_takes_all() -> None:
    shapes = network("resnet32", 100, width=2)
    with pytest.raises(ValueError, match=r"leaves -10\d.* weights for the convolutions"):
        distributions.smart_ratio(shapes, 0.998)
