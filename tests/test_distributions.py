import math
import pickle
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetrain import distributions as D
from sparsetrain.masks import kept

RULES = [D.uniform, D.er, D.erk]


def size(shapes):
    return sum(math.prod(shape) for shape in shapes.values())


def cifar_resnet(depth, widths, classes, *, first):
    """Basic blocks with 1x1-convolution shortcuts; `first` is the stem's width."""
    shapes = {"conv1": (first, 3, 3, 3)}
    before = first
    for stage, width in enumerate(widths, 1):
        for block in range((depth - 2) // 6):
            shapes[f"layer{stage}.{block}.conv1"] = (width, before, 3, 3)
            shapes[f"layer{stage}.{block}.conv2"] = (width, width, 3, 3)
            if before != width:
                shapes[f"layer{stage}.{block}.shortcut"] = (width, before, 1, 1)
            before = width
    return shapes | {"fc": (classes, before)}


def vgg19(classes):
    plan = [64, 64, 128, 128] + [256] * 4 + [512] * 8
    pairs = zip([3, *plan], plan, strict=False)
    convs = {f"conv{i}": (out, into, 3, 3) for i, (into, out) in enumerate(pairs)}
    return convs | {"fc": (classes, 512)}


def resnet50(classes):
    """Bottlenecks behind the 3x3 CIFAR stem."""
    shapes, before = {"conv1": (64, 3, 3, 3)}, 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1"] = (width, before, 1, 1)
            shapes[f"{name}.conv2"] = (width, width, 3, 3)
            shapes[f"{name}.conv3"] = (4 * width, width, 1, 1)
            if block == 0:
                shapes[f"{name}.shortcut"] = (4 * width, before, 1, 1)
            before = 4 * width
    return shapes | {"classifier": (classes, before)}


R32 = cifar_resnet(32, (32, 64, 128), 10, first=32)
R20 = cifar_resnet(20, (16, 32, 64), 10, first=16)
VGG = vgg19(10)
R50 = resnet50(10)


def test_the_shape_lists_are_those_of_the_papers():
    assert (len(R32), size(R32)) == (34, 1_855_584)
    assert (len(VGG), size(VGG)) == (17, 20_024_000)
    assert (len(R50), size(R50)) == (54, 23_467_712)
    assert (len(R20), size(R20)) == (22, 270_896)


# model, sparsity, epsilon, saturated layers, smallest density, sum of int(density * size)
GOLDEN = [
    (R32, 0.90, 38.1215, {"conv1", "fc", "layer2.0.shortcut"}, 0.06773, 185_558),
    (R32, 0.95, 18.6876, {"fc"}, 0.03320, 92_788),
    (R32, 0.98, 7.3754, set(), 0.01310, 37_123),
    (R32, 0.99, 3.6890, set(), 0.00655, 18_562),
    (R32, 0.995, 1.8477, set(), 0.00328, 9_290),
    (R32, 0.998, 0.7394, set(), 0.00131, 3_706),
    (VGG, 0.90, 189.656, {"conv0", "fc"}, 0.08280, 2_002_397),
    (VGG, 0.95, 94.5029, {"conv0", "fc"}, 0.04126, 1_001_197),
    (VGG, 0.98, 37.4109, {"conv0", "fc"}, 0.01633, 400_480),
    (VGG, 0.99, 18.4169, {"fc"}, 0.00804, 200_238),
    (VGG, 0.995, 9.0069, set(), 0.00393, 100_123),
    (VGG, 0.998, 3.6030, set(), 0.00157, 40_049),
]


def published_erk(shapes, budget):
    """The loop of google-research/rigl on floats, as the naive twin; `budget` weights are kept."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense = set()
    while len(dense) < len(raw):
        free = [name for name in raw if name not in dense]
        left = budget - sum(sizes[name] for name in dense)
        epsilon = left / sum(raw[name] * sizes[name] for name in free)
        top = max(raw[name] for name in free)
        if epsilon * top <= 1 + 1e-9:
            return {n: 1.0 if n in dense else min(1.0, epsilon * raw[n]) for n in raw}
        dense |= {name for name in free if raw[name] == top}
    return dict.fromkeys(raw, 1.0)


@pytest.mark.parametrize(("shapes", "s", "epsilon", "saturated", "lowest", "int_sum"), GOLDEN)
def test_erk_densities_of_the_pruning_literature(shapes, s, epsilon, saturated, lowest, int_sum):
    # The source rounds its budget up in each layer; ours is the exact (1 - s) N.
    budget = sum(math.prod(shape) - math.floor(s * math.prod(shape)) for shape in shapes.values())
    published = published_erk(shapes, budget)
    name = min(published, key=published.__getitem__)
    raw = sum(shapes[name]) / math.prod(shapes[name])
    assert published[name] / raw == pytest.approx(epsilon, rel=3e-6, abs=5.1e-5)
    assert published[name] == pytest.approx(lowest, abs=6e-6)
    assert sum(int(published[n] * math.prod(shapes[n])) for n in shapes) == int_sum

    densities = D.erk_densities(shapes, s)
    assert densities == pytest.approx(published_erk(shapes, (1 - s) * size(shapes)), rel=1e-9)
    assert {n for n, d in densities.items() if d == 1} == saturated


GRANET = [
    (R50, 0.5, {(128, 128, 3, 3): 0.533014, (1024, 512, 1, 1): 0.880007,
                (2048, 512, 1, 1): 0.732958, (2048, 1024, 1, 1): 0.439717}),
    (R50, 0.9, {(64, 64, 1, 1): 1, (64, 64, 3, 3): 0.171922, (256, 64, 1, 1): 0.929536,
                (512, 512, 3, 3): 0.020648, (2048, 1024, 1, 1): 0.069327}),
    (R50, 0.98, {(10, 2048): 0.918976, (512, 512, 3, 3): 0.003992}),
    (VGG, 0.5, {(256, 256, 3, 3): 0.870327, (512, 256, 3, 3): 0.650225,
                (512, 512, 3, 3): 0.432643}),
    (VGG, 0.9, {(64, 64, 3, 3): 0.689393, (128, 64, 3, 3): 0.509328, (512, 512, 3, 3): 0.082798}),
    (R20, 0.5, {(32, 32, 3, 3): 0.767564, (64, 32, 3, 3): 0.559225, (64, 64, 3, 3): 0.367334}),
    (R20, 0.9, {(10, 64): 1, (16, 3, 3, 3): 0.982985, (64, 64, 3, 3): 0.061744}),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "s", "expected"), GRANET)
def test_erk_densities_of_granet(shapes, s, expected):
    densities = D.erk_densities(shapes, s)
    for name, shape in shapes.items():
        if tuple(shape) in expected:
            assert densities[name] == pytest.approx(expected[tuple(shape)], abs=6e-7)


@st.composite
def networks(draw):
    dims = st.integers(1, 12)
    shape = st.one_of(st.tuples(dims, dims), st.tuples(dims, dims, st.just(3), st.just(3)))
    return {f"l{i}": s for i, s in enumerate(draw(st.lists(shape, min_size=1, max_size=6)))}


sparsities = st.integers(0, 999).map(lambda i: i / 1000)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=60, deadline=None)
@given(shapes=networks(), sparsity=sparsities)
def test_the_total_is_exact_and_no_layer_overflows(rule, shapes, sparsity):
    counts = rule(shapes, sparsity)
    assert list(counts) == list(shapes)
    assert sum(counts.values()) == kept(size(shapes), sparsity)
    assert all(0 <= counts[name] <= math.prod(shape) for name, shape in shapes.items())


@settings(max_examples=60, deadline=None)
@given(shapes=networks(), sparsity=sparsities)
def test_erk_densities_match_the_published_loop_and_fill_the_budget(shapes, sparsity):
    densities = D.erk_densities(shapes, sparsity)
    assert densities == pytest.approx(
        published_erk(shapes, (1 - sparsity) * size(shapes)), rel=1e-6
    )
    filled = sum(densities[name] * math.prod(shape) for name, shape in shapes.items())
    assert filled == pytest.approx((1 - sparsity) * size(shapes))
    assert all(0 < density <= 1 for density in densities.values())


@settings(max_examples=30, deadline=None)
@given(shapes=networks(), sparsity=sparsities)
def test_densities_do_not_depend_on_the_order_of_layers(shapes, sparsity):
    backwards = dict(reversed(shapes.items()))
    assert D.erk_densities(backwards, sparsity) == D.erk_densities(shapes, sparsity)
    assert D.er_densities(backwards, sparsity) == D.er_densities(shapes, sparsity)


@pytest.mark.parametrize("rule", RULES)
def test_sparsity_zero_keeps_everything_even_where_every_layer_saturates(rule):
    mlp = {"a": (20, 50), "b": (50, 10)}
    assert rule(mlp, 0) == {"a": 1000, "b": 500}
    assert rule(R20, 0.0) == {name: math.prod(shape) for name, shape in R20.items()}


def test_er_leaves_the_kernel_out():
    shapes = {"conv": (8, 4, 3, 3), "fc": (10, 8)}
    densities = D.er_densities(shapes, 0.8)
    assert densities["conv"] / densities["fc"] == pytest.approx((12 / 32) / (18 / 80))


def test_uniform_gives_the_same_share_to_each_layer():
    assert D.uniform({"a": (10, 10), "b": (20, 10), "c": (10, 70)}, 0.9) == {
        "a": 10,
        "b": 20,
        "c": 70,
    }


def test_ties_of_remainders_go_to_the_earlier_layer():
    assert D.uniform({"a": (5, 5), "b": (3, 5)}, 0.9) == {"a": 3, "b": 1}
    assert D.uniform({"b": (3, 5), "a": (5, 5)}, 0.9) == {"b": 2, "a": 2}
    assert list(D.erk(dict.fromkeys("abcde", (3, 3)), 0.5).values()) == [5, 5, 5, 4, 4]


def largest_remainder(shapes, density, target):
    """Hamilton's method written out."""
    ideal = {name: density * math.prod(shape) for name, shape in shapes.items()}
    counts = {name: math.floor(value) for name, value in ideal.items()}
    order = sorted(shapes, key=lambda name: counts[name] - ideal[name])
    for name in order[: target - sum(counts.values())]:
        counts[name] += 1
    return counts


@settings(max_examples=60, deadline=None)
@given(shapes=networks(), sparsity=sparsities)
def test_uniform_is_hamiltons_largest_remainder(shapes, sparsity):
    density = 1 - Fraction(repr(sparsity))
    expected = largest_remainder(shapes, density, kept(size(shapes), sparsity))
    assert D.uniform(shapes, sparsity) == expected


def test_given_densities_are_kept_and_pickle():
    rule = D.given({"a": 0.5, "b": 0.05})
    assert rule({"a": (10, 10), "b": (10, 80)}, 0.9) == {"a": 50, "b": 40}
    assert pickle.loads(pickle.dumps(rule)) == rule


def test_given_densities_may_be_rounded_but_not_wrong():
    shapes = {"a": (1000, 1000), "b": (1000, 1000)}
    assert D.from_densities(shapes, {"a": 0.15, "b": 0.05001}, 200_000) == {
        "a": 149_995,
        "b": 50_005,
    }
    with pytest.raises(ValueError, match="keep 400000 of 2000000 weights, but 200000"):
        D.from_densities(shapes, {"a": 0.2, "b": 0.2}, 200_000)


def test_bad_input_raises_one_sentence():
    shapes = {"a": (10, 10)}
    for rule in RULES:
        with pytest.raises(ValueError, match="shapes is empty"):
            rule({}, 0.5)
        with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\), got 90"):
            rule(shapes, 90)
    with pytest.raises(ValueError, match=r"total must be in \[0, 100\].*got 101"):
        D.from_densities(shapes, {"a": 1.0}, 101)
    with pytest.raises(ValueError, match=r"densities\['a'\] must be in \[0, 1\], got 1.5"):
        D.from_densities(shapes, {"a": 1.5}, 100)
    with pytest.raises(ValueError, match="same layers; not: b"):
        D.from_densities(shapes, {"a": 0.5, "b": 0.5}, 50)
