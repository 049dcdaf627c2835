import hashlib
import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetrain import masks as M

NAMES = ["conv", "fc", "head"]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
FEW = settings(max_examples=50, deadline=None)


@st.composite
def layers(draw, forbid=False):
    """One to three layers of scores with many ties, some channels-last, and a mask for each."""
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    dtype = draw(st.sampled_from(DTYPES))
    distinct = draw(st.sampled_from([1, 3, 50]))
    scores, masks = {}, {}
    for name in NAMES[: draw(st.integers(1, 3))]:
        shape = draw(st.sampled_from([(2, 3, 2, 2), (3, 4), (1, 2, 1, 3), (7,)]))
        score = torch.from_numpy(rng.integers(0, distinct, shape) / 8).to(dtype)
        if forbid:
            score[torch.from_numpy(rng.random(shape) < 0.2)] = -math.inf
        mask = torch.from_numpy(rng.random(shape) < 0.5)
        if len(shape) == 4 and draw(st.booleans()):
            score = score.to(memory_format=torch.channels_last)
            mask = mask.to(memory_format=torch.channels_last)
        scores[name], masks[name] = score, mask
    return scores, masks


def flat(tensors):
    return [x for tensor in tensors.values() for x in tensor.flatten().tolist()]


def best(values, positions, count):
    """Naive twin: the positions of the largest values, the lower index first among equals."""
    return set(sorted(positions, key=lambda i: (-values[i], i))[:count])


def on(bools):
    return {i for i, flag in enumerate(bools) if flag}


def assert_masks_like(masks, scores):
    for name, score in scores.items():
        assert masks[name].dtype is torch.bool
        assert masks[name].shape == score.shape
        assert masks[name].device == score.device


# counts


@FEW
@given(n=st.integers(0, 10**8), thousandths=st.integers(0, 999))
def test_kept_is_n_minus_the_floor_of_the_decimal_product(n, thousandths):
    assert M.kept(n, thousandths / 1000) == n - thousandths * n // 1000


@pytest.mark.parametrize(
    ("n", "sparsity", "expected"),
    [(100, 0.29, 71), (100, 0.57, 43), (1_855_584, 0.99, 18_556), (1000, 0, 1000), (3, 0.1, 3)],
)
def test_kept_of_hand_computed_cases(n, sparsity, expected):
    assert M.kept(n, sparsity) == expected
    assert M.kept(n, np.float32(sparsity)) == expected
    assert M.kept(n, torch.tensor(sparsity)) == expected


@pytest.mark.parametrize("value", [0, 0.9, np.float32(0.9), np.float64(0.9), torch.tensor(0.9)])
def test_check_sparsity_reads_every_kind_of_number_as_it_is_written(value):
    assert M.check_sparsity(value) == (0.9 if value else 0)
    assert type(M.check_sparsity(value)) is float


def test_check_sparsity_takes_bfloat16_at_its_value():
    assert M.check_sparsity(torch.tensor(0.5, dtype=torch.bfloat16)) == 0.5
    assert M.check_sparsity(Decimal("0.9")) == 0.9


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (90, r"sparsity must be in \[0, 1\), got 90\. Did you mean 0\.9\?"),
        (97.5, r"got 97\.5\. Did you mean 0\.975\?"),
        (-0.1, r"got -0\.1\.$"),
        (1.0, r"got 1\. No weight would be left"),
        (math.nan, "got nan"),
        (math.inf, "got inf"),
        (np.float32(90), "Did you mean 0.9"),
        ("0.9", "must be a number"),
        (None, "must be a number"),
        (torch.zeros(2), "must be a number"),
    ],
)
def test_sparsity_out_of_range_raises_one_sentence(value, message):
    with pytest.raises(ValueError, match=message):
        M.check_sparsity(value)
    with pytest.raises(ValueError, match="sparsity"):
        M.kept(10, value)


def test_check_sparsity_names_the_argument():
    with pytest.raises(ValueError, match=r"^initial_sparsity must be in"):
        M.check_sparsity(2, name="initial_sparsity")


# keep


@FEW
@given(case=layers(), where=st.floats(0, 1))
def test_keep_global_keeps_exactly_the_first_of_the_largest(case, where):
    scores, _ = case
    values = flat(scores)
    count = round(where * len(values))
    masks = M.keep_global(scores, count)
    assert_masks_like(masks, scores)
    assert on(flat(masks)) == best(values, range(len(values)), count)


@FEW
@given(case=layers(forbid=True), where=st.floats(0, 1))
def test_keep_global_never_keeps_a_forbidden_position(case, where):
    scores, _ = case
    values = flat(scores)
    allowed = [i for i, value in enumerate(values) if value > -math.inf]
    count = round(where * len(allowed))
    assert on(flat(M.keep_global(scores, count))) == best(values, allowed, count)
    with pytest.raises(ValueError, match=rf"\[0, {len(allowed)}\].*got {len(allowed) + 1}"):
        M.keep_global(scores, len(allowed) + 1)


@FEW
@given(case=layers(forbid=True), where=st.floats(0, 1))
def test_keep_global_within_masks_reads_and_keeps_no_other_position(case, where):
    scores, masks = case
    values, inside = flat(scores), on(flat(masks))
    allowed = [i for i in inside if values[i] > -math.inf]
    count = round(where * len(allowed))
    hidden = {n: s.masked_fill(~masks[n], math.nan) for n, s in scores.items()}
    for read in (scores, hidden):
        kept = M.keep_global(read, count, within=masks)
        assert_masks_like(kept, scores)
        assert on(flat(kept)) == best(values, allowed, count)
    with pytest.raises(ValueError, match=rf"\[0, {len(allowed)}\].*got {len(allowed) + 1}"):
        M.keep_global(scores, len(allowed) + 1, within=masks)


@FEW
@given(case=layers(), where=st.floats(0, 1))
def test_keep_layerwise_is_keep_global_layer_by_layer(case, where):
    scores, _ = case
    counts = {name: int(where * score.numel()) for name, score in scores.items()}
    masks = M.keep_layerwise(scores, counts)
    for name, score in scores.items():
        assert torch.equal(masks[name], M.keep_global({name: score}, counts[name])[name])
    assert M.count_active(masks) == counts


def test_equal_scores_keep_the_first_positions_across_layers():
    masks = M.keep_global({"a": torch.ones(2, 2), "b": torch.ones(3)}, 5)
    assert flat(masks) == [True] * 5 + [False] * 2


def test_layers_of_different_dtype_are_compared_in_the_wider_one():
    scores = {"a": torch.tensor([0.5, 1.0]).bfloat16(), "b": torch.tensor([0.75, 0.25])}
    assert flat(M.keep_global(scores, 2)) == [False, True, True, False]


@pytest.mark.parametrize("count", [-1, 4])
def test_count_out_of_range_raises(count):
    with pytest.raises(ValueError, match=rf"\[0, 3\].*got {count}"):
        M.keep_global({"a": torch.ones(3)}, count)
    with pytest.raises(ValueError, match=rf"\[0, 3\], the positions in a, got {count}"):
        M.keep_layerwise({"a": torch.ones(3)}, {"a": count})


def test_nan_scores_raise_and_name_the_layer():
    scores = {"good": torch.ones(2), "bad": torch.tensor([1.0, math.nan])}
    ones = {"good": 1, "bad": 1}
    for call in (
        lambda: M.keep_global(scores, 1),
        lambda: M.keep_layerwise(scores, ones),
        lambda: M.keep_global_strict(scores, 1),
        lambda: M.drop(M.keep_layerwise(ones_like(scores), {"good": 2, "bad": 2}), scores, ones),
    ):
        with pytest.raises(ValueError, match="NaN in bad;"):
            call()


def test_infinities_of_both_signs_are_no_nan():
    scores = {"a": torch.tensor([math.inf, -math.inf, 1.0])}
    assert M.keep_global(scores, 1)["a"].tolist() == [True, False, False]
    every = {"a": torch.ones(3, dtype=torch.bool)}
    assert M.drop(every, scores, {"a": 2})["a"].tolist() == [True, False, False]


def test_masks_lie_in_memory_as_their_scores_do():
    score = torch.rand(4, 3, 5, 5).to(memory_format=torch.channels_last)
    mask = M.keep_global({"a": score}, 30)
    for found in (mask, M.drop(mask, {"a": score}, {"a": 3}), M.grow(mask, {"a": score}, {"a": 3})):
        assert found["a"].is_contiguous(memory_format=torch.channels_last)


def ones_like(tensors):
    return {name: torch.ones_like(tensor) for name, tensor in tensors.items()}


def test_no_layers_raise():
    with pytest.raises(ValueError, match="scores is empty"):
        M.keep_global({}, 0)


# The example of ties in the published HyperSparse rule: ten weights, half pruned, four survive.
TIED = [0.5, -0.3, 0, -0.05, 0.05, 0.8, -0.01, 0.05, -0.6, 0.04]


def test_strict_rule_drops_the_border_and_its_ties():
    scores = {"a": torch.tensor(TIED[:4]).abs(), "b": torch.tensor(TIED[4:]).abs()}
    assert on(flat(M.keep_global_strict(scores, 5))) == {0, 1, 5, 8}


def test_strict_rule_without_ties_keeps_one_less_than_asked():
    scores = {"a": torch.randperm(100).float().view(10, 10)}
    assert M.count_active(M.keep_global_strict(scores, 90)) == {"a": 9}


# drop and grow


@FEW
@given(case=layers(), where=st.floats(0, 1))
def test_drop_switches_off_the_smallest_active_and_keeps_the_lower_index_of_equals(case, where):
    scores, masks = case
    counts = {name: int(where * m.sum()) for name, m in masks.items()}
    new = M.drop(masks, scores, counts)
    assert_masks_like(new, scores)
    for name, mask in masks.items():
        active = on(mask.flatten().tolist())
        left = best(scores[name].flatten().tolist(), active, len(active) - counts[name])
        assert on(new[name].flatten().tolist()) == left


@FEW
@given(case=layers(), where=st.floats(0, 1))
def test_grow_switches_on_the_largest_inactive_and_the_lower_index_of_equals(case, where):
    scores, masks = case
    counts = {name: int(where * (~m).sum()) for name, m in masks.items()}
    new = M.grow(masks, scores, counts)
    assert_masks_like(new, scores)
    for name, mask in masks.items():
        inactive = on((~mask).flatten().tolist())
        chosen = best(scores[name].flatten().tolist(), inactive, counts[name])
        assert on((new[name] & ~mask).flatten().tolist()) == chosen
        assert bool((new[name] | ~mask).all())


@FEW
@given(case=layers(), where=st.floats(0, 1))
def test_dropping_and_growing_as_many_keeps_the_active_count_exactly(case, where):
    scores, masks = case
    counts = {name: int(where * m.sum()) for name, m in masks.items()}
    new = M.grow(M.drop(masks, scores, counts), scores, counts)
    assert M.count_active(new) == M.count_active(masks)


def test_grow_stays_inside_what_is_allowed_and_off_forbidden_scores():
    masks = {"a": torch.tensor([True, False, False, False])}
    scores = {"a": torch.tensor([9.0, 3.0, 2.0, -math.inf])}
    allowed = {"a": torch.tensor([True, False, True, True])}
    grown = M.grow(masks, scores, {"a": 1}, allowed=allowed)
    assert grown["a"].tolist() == [True, False, True, False]
    with pytest.raises(ValueError, match=r"\[0, 1\].*free to grow in a, got 2"):
        M.grow(masks, scores, {"a": 2}, allowed=allowed)


def test_drop_takes_minus_infinity_first_and_reads_no_inactive_score():
    masks = {"a": torch.tensor([True, True, False])}
    scores = {"a": torch.tensor([-math.inf, 1.0, math.nan])}
    assert M.drop(masks, scores, {"a": 1})["a"].tolist() == [False, True, False]


def test_too_many_or_other_names_raise():
    masks, scores = {"a": torch.tensor([True, False])}, {"a": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"counts\['a'\] must be in \[0, 1\].*got 2"):
        M.drop(masks, scores, {"a": 2})
    with pytest.raises(ValueError, match=r"\[0, 1\].*got 2"):
        M.grow(masks, scores, {"a": 2})
    with pytest.raises(ValueError, match="same layers; not in all: b"):
        M.drop(masks, scores, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="same layers; not in all: b"):
        M.keep_global(scores, 1, within={**masks, "b": masks["a"]})


def test_no_function_changes_its_arguments():
    masks = {"a": torch.tensor([True, True, False, False])}
    scores = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    M.keep_global(scores, 2)
    M.grow(M.drop(masks, scores, {"a": 1}), scores, {"a": 1})
    assert masks["a"].tolist() == [True, True, False, False]
    assert scores["a"].tolist() == [1, 2, 3, 4]


# counting, packing, digest


def test_count_total_and_sparsity_are_exact():
    masks = {"a": torch.arange(10) < 1, "b": torch.zeros(5, 2, dtype=torch.bool)}
    assert M.count_active(masks) == {"a": 1, "b": 0}
    assert M.total(masks) == 20
    assert M.sparsity(masks) == 0.95
    with pytest.raises(ValueError, match="empty"):
        M.sparsity({})


@FEW
@given(case=layers())
def test_unpack_undoes_pack(case):
    for mask in case[1].values():
        packed = M.pack(mask)
        assert packed.dtype is torch.uint8
        assert packed.numpy().tolist() == np.packbits(mask.numpy().reshape(-1)).tolist()
        assert torch.equal(M.unpack(packed, mask.shape), mask)


def test_unpack_refuses_a_length_that_does_not_fit():
    with pytest.raises(ValueError, match=r"2 bytes for shape \(3, 3\), got 1"):
        M.unpack(torch.zeros(1, dtype=torch.uint8), (3, 3))


def test_digest_sees_every_bit_and_the_shape_but_not_the_memory_format():
    mask = torch.rand(2, 3, 4, 4) < 0.5
    number = M.digest(mask)
    assert 0 <= number < 2**63
    assert M.digest(mask.to(memory_format=torch.channels_last)) == number
    assert M.digest(mask.view(6, 16)) != number
    for i in range(mask.numel()):
        other = mask.clone()
        other.view(-1)[i] ^= True
        assert M.digest(other) != number


def test_digest_depends_on_nothing_but_shape_and_bits():
    # BLAKE2b of the shape as text and the bits, by hand: no process-wide hash seed comes in.
    text = b"(3, 3)" + bytes([0b11110000, 0b10000000])
    expected = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, True]])
    assert M.digest(mask) == expected
