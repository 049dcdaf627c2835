"""Random tickets' counts: the published integers, the exact totals, and what cannot be done."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetrain import distributions as D
from sparsetrain.masks import keep_layerwise, kept
from tests.test_distributions import R32, VGG, cifar_resnet, size, vgg19

R32_100 = cifar_resnet(32, (32, 64, 128), 100, first=32)

# Totals of the published code on the double-width ResNet-32, for 10 and 100 classes.
PUBLISHED = [
    (R32, {0.9: 185_541, 0.95: 92_761, 0.98: 37_094, 0.99: 18_538, 0.995: 9_266, 0.998: 3_690}),
    (R32_100, {0.9: 186_693, 0.95: 93_336, 0.98: 37_324, 0.99: 18_654, 0.995: 9_319}),
]


@pytest.mark.parametrize(("shapes", "totals"), PUBLISHED, ids=["C10", "C100"])
def test_paper_counts_are_the_published_integers(shapes, totals):
    found = {s: sum(D.smart_ratio(shapes, s, compat="paper").values()) for s in totals}
    assert found == totals


def test_the_paper_s_last_vgg_convolution_keeps_about_70_weights_at_998_permille():
    counts = D.smart_ratio(vgg19(100), 0.998, compat="paper")
    assert counts["conv15"] == pytest.approx(70, abs=20)
    assert D.smart_ratio(VGG, 0.995, compat="paper")["conv0"] == 64 * 27


def naive(shapes, sparsity, *, plain):
    """The published rule written out in floating point, without rounding."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    layers = len(shapes)
    raw = {n: (layers - i) * (layers - i + 1) for i, n in enumerate(shapes)}
    if plain:
        raw = {n: r / (i + 1) ** 2 for i, (n, r) in enumerate(raw.items())}
    convs = [n for n in shapes if len(shapes[n]) > 2]
    budget = size(shapes) * (1 - sparsity) - 0.3 * sum(sizes[n] for n in shapes if n not in convs)
    factor = budget / sum(raw[n] * sizes[n] for n in convs)
    out, extra = {n: 0.3 * sizes[n] for n in shapes}, 0.0
    for name in convs:
        wanted = factor * raw[name] * sizes[name] + extra
        out[name] = min(wanted, sizes[name])
        extra = wanted - out[name]
    return out


@pytest.mark.parametrize("sparsity", [0.9, 0.98, 0.995])
@pytest.mark.parametrize(("shapes", "plain"), [(R32, False), (VGG, True)])
def test_counts_follow_the_rule_to_within_one_weight(shapes, plain, sparsity):
    counts = D.smart_ratio(shapes, sparsity)
    wanted = naive(shapes, sparsity, plain=plain)
    assert all(abs(counts[name] - wanted[name]) <= 1 + 1e-6 for name in shapes)
    assert sum(counts.values()) == kept(size(shapes), sparsity)


def test_densities_before_clipping_span_the_published_ratio():
    shapes = {f"c{i}": (100, 100, 3, 3) for i in range(5)}
    counts = D.smart_ratio(shapes, 0.97, network="resnet")
    assert counts["c0"] / counts["c4"] == pytest.approx((5**2 + 5) / 2, rel=1e-3)
    plain = D.smart_ratio(shapes, 0.97, network="plain")
    assert plain["c0"] / plain["c4"] == pytest.approx((5**2 + 5) / 2 * 5**2, rel=0.02)


def test_auto_reads_the_network_from_its_shortcuts():
    assert D.smart_ratio(R32, 0.9) == D.smart_ratio(R32, 0.9, network="resnet")
    assert D.smart_ratio(VGG, 0.9) == D.smart_ratio(VGG, 0.9, network="plain")


def test_what_a_full_layer_cannot_hold_goes_to_the_next():
    shapes = {"a": (2, 2, 1, 1), "b": (10, 10, 1, 1), "c": (10, 10, 1, 1)}
    # Shares 12 : 6 : 2 times size, 848 in all; 102 of 204 stay, the first layer wants 5.8 of 4.
    counts = D.smart_ratio(shapes, 0.5)
    wanted = [4, 102 * 600 / 848 + (102 * 48 / 848 - 4), 102 * 200 / 848]
    assert list(counts.values()) == [4, 74, 24]
    assert list(counts.values()) == pytest.approx(wanted, abs=1)


@st.composite
def networks(draw):
    dims = st.integers(1, 12)
    conv = st.tuples(dims, dims, st.sampled_from([1, 3]), st.just(3))
    convs = draw(st.lists(conv, min_size=1, max_size=5))
    heads = draw(st.lists(st.tuples(dims, dims), max_size=2))
    return {f"l{i}": s for i, s in enumerate([*convs, *heads])}


@settings(max_examples=60, deadline=None)
@given(shapes=networks(), sparsity=st.integers(0, 999).map(lambda i: i / 1000))
def test_the_total_is_exact_or_the_refusal_is_clear(shapes, sparsity):
    try:
        counts = D.smart_ratio(shapes, sparsity)
    except ValueError as error:
        linear = sum(math.prod(s) for s in shapes.values() if len(s) == 2)
        assert 0.3 * linear >= (1 - sparsity) * size(shapes) - 1e-6
        assert "smart_ratio keeps 30 % of" in str(error)
        return
    assert list(counts) == list(shapes)
    assert sum(counts.values()) == kept(size(shapes), sparsity)
    assert all(0 <= counts[name] <= math.prod(shape) for name, shape in shapes.items())


@pytest.mark.parametrize("compat", [None, "paper"])
def test_resnet32_with_100_classes_at_998_permille_is_refused(compat):
    with pytest.raises(ValueError, match=r"leaves -10\d.* weights for the conv.*30 % of fc; lower"):
        D.smart_ratio(R32_100, 0.998, compat=compat)


def test_bad_input_raises_one_sentence():
    with pytest.raises(ValueError, match="among convolutions, got 1 layers"):
        D.smart_ratio({"fc": (10, 10)}, 0.5)
    with pytest.raises(ValueError, match=r"Did you mean 0\.9"):
        D.smart_ratio(R32, 90)
    with pytest.raises(ValueError, match="network must be"):
        D.smart_ratio(R32, 0.9, network="vgg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compat must be"):
        D.smart_ratio(R32, 0.9, compat="code")  # type: ignore[arg-type]


def test_the_hybrid_ticket_keeps_the_largest_of_each_layer_at_the_same_counts():
    torch.manual_seed(0)
    weights = {"conv": torch.randn(4, 3, 3, 3), "deep": torch.randn(4, 4, 3, 3)}
    counts = D.smart_ratio({n: tuple(w.shape) for n, w in weights.items()}, 0.8)
    hybrid = keep_layerwise({n: w.abs() for n, w in weights.items()}, counts)
    for name, w in weights.items():
        assert int(hybrid[name].sum()) == counts[name]
        assert w[hybrid[name]].abs().min() > w[~hybrid[name]].abs().max()
