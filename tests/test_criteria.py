import pytest
import torch

from sparsetrain import criteria, masks
from sparsetrain.types import View

WEIGHT = torch.tensor([[1.0, -2.0], [0.0, 4.0]])
GRAD = torch.tensor([[-3.0, 0.5], [2.0, 0.0]])


def view(*, grads=None, momenta=None, seed=0):
    return View(
        step=1,
        weights={"fc": WEIGHT.clone()},
        grads=grads or {},
        momenta=momenta or {},
        generator=torch.Generator().manual_seed(seed),
    )


def test_scores_are_the_hand_computed_ones():
    seen = view(grads={"fc": GRAD}, momenta={"fc": -GRAD})
    assert criteria.magnitude(seen)["fc"].tolist() == [[1, 2], [0, 4]]
    assert criteria.gradient(seen)["fc"].tolist() == [[3, 0.5], [2, 0]]
    assert criteria.momentum(seen)["fc"].tolist() == [[3, 0.5], [2, 0]]
    assert criteria.taylor(seen)["fc"].tolist() == [[3, 1], [0, 0]]


def test_taylor_is_the_gradient_of_a_gate_on_each_weight():
    weight = torch.randn(3, 4)
    gate = torch.ones(3, 4, requires_grad=True)
    x = torch.randn(5, 4)
    (x @ (weight * gate).T).pow(2).sum().backward()
    leaf = weight.clone().requires_grad_()
    (x @ leaf.T).pow(2).sum().backward()
    seen = View(1, {"fc": weight}, {"fc": leaf.grad}, {}, torch.Generator())
    torch.testing.assert_close(criteria.taylor(seen)["fc"], gate.grad.abs())


def test_random_repeats_with_the_seed_and_moves_on_with_the_generator():
    seen = view(seed=3)
    first, second = criteria.random(seen)["fc"], criteria.random(seen)["fc"]
    assert torch.equal(first, criteria.random(view(seed=3))["fc"])
    assert not torch.equal(first, second)
    assert first.shape == WEIGHT.shape
    assert bool(((first >= 0) & (first < 1)).all())


def test_random_scores_lie_in_memory_as_the_weight_does_and_are_the_same_in_any_format():
    weight = torch.empty(4, 3, 2, 2)
    last = weight.to(memory_format=torch.channels_last)
    plain, other = (
        criteria.random(View(1, {"w": w}, {}, {}, torch.Generator().manual_seed(0)))["w"]
        for w in (weight, last)
    )
    assert torch.equal(plain, other)
    assert other.is_contiguous(memory_format=torch.channels_last)


def test_scores_are_made_when_read_so_that_no_copy_of_the_weights_is_held():
    seen = view(grads={"fc": GRAD})
    for criterion in (criteria.magnitude, criteria.taylor):
        scores = criterion(seen)
        before = scores["fc"]
        seen.weights["fc"].mul_(2)
        assert torch.equal(scores["fc"], 2 * before)
        assert list(scores) == ["fc"]
        assert len(scores) == 1


def test_random_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    criteria.random(view())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("criterion", "what"),
    [
        (criteria.gradient, "gradient"),
        (criteria.taylor, "gradient"),
        (criteria.momentum, "first moment"),
    ],
)
def test_what_is_missing_raises_and_names_the_layer(criterion, what):
    with pytest.raises(ValueError, match=f"no {what} for fc;"):
        criterion(view())


def test_scores_keep_device_and_dtype_and_touch_nothing():
    seen = view(grads={"fc": GRAD.clone()})
    for criterion in (criteria.magnitude, criteria.gradient, criteria.taylor):
        assert criterion(seen)["fc"].dtype is torch.float32
    assert torch.equal(seen.weights["fc"], WEIGHT)
    assert torch.equal(seen.grads["fc"], GRAD)


def test_sign_aware_ranks_by_hand_from_both_signs_in_turn():
    # Positive 1 and 4 rank 0 and 1 (scores 0, 2), the one negative scores 1, a zero goes first.
    assert criteria.sign_aware(view())["fc"].tolist() == [[0, 1], [-1, 2]]


@pytest.mark.parametrize("count", range(9))
def test_dropping_by_sign_takes_half_of_each_and_the_rest_from_the_other(count):
    weight = torch.randn(3, 8)
    seen = View(1, {"w": weight}, {}, {}, torch.Generator())
    every = {"w": torch.ones_like(weight, dtype=torch.bool)}
    left = masks.drop(every, criteria.sign_aware(seen), {"w": count})["w"]
    gone = weight[~left]
    positive, negative = (weight[weight > 0].sort().values, weight[weight < 0].sort().values)
    half = min(-(-count // 2), len(positive))
    wanted = torch.cat([positive[:half], negative[len(negative) - (count - half) :]])
    assert torch.equal(gone.sort().values, wanted.sort().values)
