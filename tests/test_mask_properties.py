"""Criteria and mask algebra against plain Python: many shapes, dtypes, strides, ties."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as hs
from torch import Tensor

from sparsetrain import criteria, masks
from sparsetrain.types import View
from tests.oracles import dst

SHAPES = [(1,), (1, 1), (2, 3), (7, 5), (1, 1, 1, 1), (2, 3, 2, 2), (4, 2, 1, 1), (3, 4, 5), (0, 3)]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
LAYOUTS = ["contiguous", "channels-last", "transposed", "strided", "expanded"]


def laid_out(values: np.ndarray, layout: str) -> Tensor:
    """The same logical values behind other strides; expanded layers hold one value."""
    tensor = torch.from_numpy(values.copy())
    if layout == "channels-last" and tensor.ndim == 4:
        return tensor.to(memory_format=torch.channels_last)
    if layout == "transposed" and tensor.ndim > 1:
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "strided":
        return torch.stack([tensor, tensor + 1], dim=-1)[..., 0]
    if layout == "expanded" and tensor.numel():
        return tensor.flatten()[0].expand(tensor.shape)
    return tensor


@dataclass(frozen=True)
class Case:
    """Layers of weights, gradients, moments and masks; few values, so that many tie."""

    seed: int
    shapes: list[tuple[int, ...]]
    layout: str
    dtype: torch.dtype
    levels: int

    def draw(self) -> tuple[View, dict[str, Tensor]]:
        rng = np.random.default_rng(self.seed)
        grid = np.arange(-self.levels, self.levels + 1) / 4

        def tensors() -> dict[str, Tensor]:
            values = [rng.choice(grid, shape) for shape in self.shapes]
            # Layers of one network share a dtype; values are exact in each of them.
            return {f"l{i}": laid_out(v, self.layout).to(self.dtype) for i, v in enumerate(values)}

        weights, grads, momenta = tensors(), tensors(), tensors()
        generator = torch.Generator().manual_seed(self.seed)
        on = {n: torch.from_numpy(rng.random(w.shape) < 0.6) for n, w in weights.items()}
        return View(1, weights, grads, momenta, generator), on

    def share(self, name: str, count: int) -> int:
        """A number from 0 to `count`, both ends often."""
        draw = np.random.default_rng([self.seed, len(name), ord(name[-1])]).random()
        return min(count, max(0, round((1.4 * draw - 0.2) * count)))


CASES = hs.builds(
    Case,
    seed=hs.integers(0, 10**6),
    shapes=hs.lists(hs.sampled_from(SHAPES), min_size=1, max_size=4),
    layout=hs.sampled_from(LAYOUTS),
    dtype=hs.sampled_from(DTYPES),
    levels=hs.sampled_from([0, 1, 3, 40]),
)


def flat(tensor: Tensor) -> np.ndarray:
    """Logical order, whatever the strides."""
    return np.array(tensor.double().flatten().tolist())


def on(mask: Tensor) -> list[int]:
    return [i for i, bit in enumerate(mask.flatten().tolist()) if bit]


ORDERS: dict[str, tuple[Any, Callable[..., list[int]]]] = {
    "magnitude": (criteria.magnitude, dst.by_magnitude),
    "taylor": (criteria.taylor, dst.by_taylor),
    "sign": (criteria.sign_aware, dst.by_sign),
}


def check_drop(case: Case, rule: str) -> None:
    view, active = case.draw()
    score, order = ORDERS[rule]
    # The product of taylor is rounded to the dtype, and ties are decided there.
    weights, grads = view.weights, view.grads
    if rule == "taylor":
        weights = {n: w * grads[n] for n, w in view.weights.items()}
        grads = {n: torch.ones_like(w) for n, w in weights.items()}
    # As under the engine: what is pruned is zero. The rank by sign leaves zeros out.
    weights = {n: w * active[n] for n, w in weights.items()}
    seen = View(
        1, {n: w * active[n] for n, w in view.weights.items()}, view.grads, {}, torch.Generator()
    )
    counts = {n: case.share(n, int(m.sum())) for n, m in active.items()}
    left = masks.drop(active, score(seen), counts)
    for n, mask in active.items():
        going = order(flat(weights[n]), flat(grads[n]), on(mask))[: counts[n]]
        assert on(left[n]) == sorted(set(on(mask)) - set(going))
        assert left[n].dtype is torch.bool
        assert left[n].shape == mask.shape


def check_grow(case: Case, rule: str) -> None:
    view, active = case.draw()
    score = {"gradient": criteria.gradient, "momentum": criteria.momentum}[rule](view)
    values = {"gradient": view.grads, "momentum": view.momenta}[rule]
    allowed = {n: ~m | (torch.arange(m.numel()).view(m.shape) % 3 > 0) for n, m in active.items()}
    allowed = {n: a & (torch.arange(a.numel()).view(a.shape) % 5 > 0) for n, a in allowed.items()}
    for limit in (None, allowed):
        free = {n: [i for i in range(m.numel()) if i not in on(m)] for n, m in active.items()}
        if limit is not None:
            free = {n: [i for i in f if i in on(limit[n])] for n, f in free.items()}
        counts = {n: case.share(n, len(f)) for n, f in free.items()}
        grown = masks.grow(active, score, counts, allowed=limit)
        for n, mask in active.items():
            come = dst.best(np.abs(flat(values[n])), free[n], counts[n])
            assert on(grown[n]) == sorted({*on(mask), *come})


def check_keep(case: Case, rule: str) -> None:
    view, active = case.draw()
    score = criteria.magnitude(view)
    values = {n: np.abs(flat(w)) for n, w in view.weights.items()}
    counts = {n: case.share(n, len(v)) for n, v in values.items()}
    if rule == "layer":
        kept = masks.keep_layerwise(score, counts)
        for n, v in values.items():
            assert on(kept[n]) == sorted(dst.best(v, list(range(len(v))), counts[n]))
        return
    if rule == "forbidden":
        score = {n: s.masked_fill(~active[n], -math.inf) for n, s in score.items()}
    whole = np.concatenate(list(values.values()))
    allowed = range(len(whole))
    if rule == "forbidden":
        allowed = on(torch.cat([m.flatten() for m in active.values()]))
    count = case.share("total", len(allowed))
    kept = masks.keep_global(score, count)
    assert on(torch.cat([m.flatten() for m in kept.values()])) == sorted(
        dst.best(whole, list(allowed), count)
    )


def check_random(case: Case, rule: str) -> None:
    view, _ = case.draw()
    generator = torch.Generator().manual_seed(case.seed)
    for n, score in criteria.random(view).items():
        wanted = torch.rand(view.weights[n].shape, generator=generator)
        assert torch.equal(score, wanted)
        assert bool(((score >= 0) & (score < 1)).all())


CHECKS: dict[str, tuple[Callable[[Case, str], None], str]] = {
    "drop by magnitude": (check_drop, "magnitude"),
    "drop by taylor": (check_drop, "taylor"),
    "drop by sign": (check_drop, "sign"),
    "grow by gradient": (check_grow, "gradient"),
    "grow by momentum": (check_grow, "momentum"),
    "keep in all layers": (check_keep, "global"),
    "keep in each layer": (check_keep, "layer"),
    "keep what is allowed": (check_keep, "forbidden"),
    "draw at random": (check_random, ""),
}


def run(name: str, examples: int) -> None:
    check, rule = CHECKS[name]
    settings(max_examples=examples, deadline=None)(given(CASES)(lambda case: check(case, rule)))()


@pytest.mark.parametrize("name", CHECKS)
def test_masks_are_those_of_plain_python(name: str) -> None:
    run(name, 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_masks_are_those_of_plain_python_in_many_cases(name: str) -> None:
    run(name, 1500)


def nan_in(where: list[int]) -> Tensor:
    score = torch.arange(6.0).view(2, 3)
    score.view(-1)[where] = math.nan
    return score


def test_nan_scores_are_refused_where_they_are_read_and_nowhere_else() -> None:
    active = {"w": torch.tensor([[True, True, True], [False, False, False]])}
    three = {"w": 1}
    assert on(masks.drop(active, {"w": nan_in([4])}, three)["w"]) == [1, 2]
    assert on(masks.grow(active, {"w": nan_in([1])}, three)["w"]) == [0, 1, 2, 5]
    for call in (
        lambda: masks.drop(active, {"w": nan_in([1])}, three),
        lambda: masks.grow(active, {"w": nan_in([4])}, three),
        lambda: masks.keep_global({"w": nan_in([0])}, 2),
        lambda: masks.keep_layerwise({"w": nan_in([5])}, {"w": 2}),
    ):
        with pytest.raises(ValueError, match="NaN in w;"):
            call()


def test_infinite_scores_are_the_largest_and_no_nan() -> None:
    # Both infinities are there, so that a sum of them would be NaN.
    scores = {"w": torch.tensor([1.0, math.inf, -math.inf, 2.0, math.inf, 0.0])}
    assert on(masks.keep_global(scores, 3)["w"]) == [1, 3, 4]
    none = {"w": torch.zeros(6, dtype=torch.bool)}
    assert on(masks.grow(none, scores, {"w": 1})["w"]) == [1]
    every = {"w": torch.ones(6, dtype=torch.bool)}
    assert on(masks.drop(every, scores, {"w": 4})["w"]) == [1, 4]


def test_huge_scores_whose_sum_overflows_are_no_nan() -> None:
    scores = {"w": torch.full((5,), 3e38)}
    assert on(masks.keep_global(scores, 2)["w"]) == [0, 1]
    half = {"w": torch.full((5,), 6e4, dtype=torch.float16)}
    assert on(masks.keep_layerwise(half, {"w": 2})["w"]) == [0, 1]


def test_negative_zero_is_zero() -> None:
    scores = {"w": torch.tensor([-0.0, 0.0, -0.0, 0.0])}
    assert on(masks.keep_global(scores, 2)["w"]) == [0, 1]
    view = View(1, scores, {}, {}, torch.Generator())
    assert criteria.sign_aware(view)["w"].tolist() == [-1] * 4


def test_integer_scores_rank_as_numbers() -> None:
    scores = {"a": torch.tensor([3, 1, 2]), "b": torch.tensor([2**40, -5, 3])}
    assert [on(m) for m in masks.keep_global(scores, 3).values()] == [[0], [0, 2]]
