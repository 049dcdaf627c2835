"""SET, RigL, ITOP, GMP and GraNet equal their brute-force NumPy twins at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as hs

import sparsetrain as st
from sparsetrain.types import Masks, View
from tests.oracles import dst

STEPS = 12


@dataclass(frozen=True)
class Problem:
    """Layers and, for each step, weights and gradients drawn from few values, so that many tie."""

    sizes: list[int]
    seed: int
    levels: int

    def views(self) -> Iterator[View]:
        rng = np.random.default_rng(self.seed)
        generator = torch.Generator().manual_seed(self.seed)

        def draw() -> dict[str, torch.Tensor]:
            grid = range(-self.levels, self.levels + 1)
            return {
                f"l{i}": torch.from_numpy(rng.choice(grid, (1, n)).astype(np.float32))
                for i, n in enumerate(self.sizes)
            }

        for step in range(STEPS + 1):
            yield View(step, draw(), draw(), {}, generator)


PROBLEMS = hs.builds(
    Problem,
    sizes=hs.lists(hs.integers(1, 30), min_size=1, max_size=4),
    seed=hs.integers(0, 2**31),
    levels=hs.sampled_from([1, 4, 1000]),
)
SPARSITIES = hs.sampled_from([0.0, 0.29, 0.5, 0.9])
EVERY = hs.integers(1, 5)

Twin = Callable[[View, dst.Layers, dst.Layers, dst.Layers], dst.Layers]


def flat(tensors: dict[str, torch.Tensor] | Masks) -> dst.Layers:
    return [tensor.flatten().numpy() for tensor in tensors.values()]


def random_scores(view: View) -> dst.Layers:
    """The draws that the method is about to make, without taking them from its generator."""
    generator = torch.Generator()
    generator.set_state(view.generator.get_state())
    return [
        torch.rand(w.shape, generator=generator).flatten().numpy() for w in view.weights.values()
    ]


def assert_twins(problem: Problem, method: st.Method, steps: set[int], twin: Twin) -> None:
    """The method's masks are the twin's after each step, and they change at `steps` alone."""
    views = problem.views()
    masks, memory = method.init(next(views))
    for view in views:
        assert method.when(view.step) == (view.step in steps), view.step
        if not method.when(view.step):
            continue
        weights = {n: w * masks[n] for n, w in view.weights.items()}
        seen = View(view.step, weights, view.grads, {}, view.generator)
        growth = flat({n: g.abs() for n, g in view.grads.items()})
        wanted = twin(seen, flat(masks), flat(weights), growth)
        masks, memory = method.update(seen, masks, memory)
        for mine, theirs in zip(flat(masks), wanted, strict=True):
            assert mine.tolist() == theirs.tolist(), view.step


@given(PROBLEMS, SPARSITIES, EVERY)
def test_set_equals_its_twin(problem: Problem, sparsity: float, every: int) -> None:
    method = st.methods.set(sparsity, STEPS, update_every=every, stop=10, drop_fraction=0.29)

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, _: dst.Layers) -> dst.Layers:
        return dst.move(masks, weights, random_scores(view), 0.29, up=True)

    assert_twins(problem, method, dst.updates(every, 0, 10), twin)


@given(PROBLEMS, SPARSITIES, EVERY)
def test_rigl_equals_its_twin(problem: Problem, sparsity: float, every: int) -> None:
    method = st.methods.rigl(sparsity, STEPS, update_every=every)

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, grads: dst.Layers) -> dst.Layers:
        fraction = dst.cosine(0.3, 0.0, view.step, 9)
        return dst.move(masks, weights, grads, fraction, up=False)

    assert_twins(problem, method, dst.updates(every, 0, 9), twin)


@given(PROBLEMS, SPARSITIES, EVERY, hs.sampled_from(["gradient", "random"]))
def test_itop_equals_its_twin(problem: Problem, sparsity: float, every: int, growth: str) -> None:
    method = st.methods.itop(sparsity, STEPS, update_every=every, growth=growth)

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, grads: dst.Layers) -> dst.Layers:
        fraction = dst.cosine(0.5, 0.005, view.step, STEPS)
        scores = grads if growth == "gradient" else random_scores(view)
        return dst.move(masks, weights, scores, fraction, up=True)

    assert_twins(problem, method, dst.updates(every, 0, STEPS), twin)


def pruned(masks: dst.Layers, weights: dst.Layers, sparsity: float, scope: str) -> dst.Layers:
    sizes = [len(mask) for mask in masks]
    count = dst.kept(sum(sizes), sparsity)
    if scope == "global":
        return dst.prune_global(masks, weights, count)
    active = [int(mask.sum()) for mask in masks]
    if count >= sum(active):
        return masks
    return dst.prune_layers(masks, weights, dst.even_counts(sizes, active, count))


@given(PROBLEMS, SPARSITIES, EVERY, hs.sampled_from(["global", "layer"]))
def test_gmp_equals_its_twin(problem: Problem, sparsity: float, every: int, scope: str) -> None:
    method = st.methods.gmp(sparsity, STEPS, update_every=every, start=2, stop=9, scope=scope)

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, _: dst.Layers) -> dst.Layers:
        return pruned(masks, weights, dst.cubic(0.0, sparsity, view.step, 2, 9), scope)

    assert_twins(problem, method, dst.updates(every, 2, 9), twin)


@given(PROBLEMS, SPARSITIES, EVERY, hs.sampled_from(["global", "layer", "sparse start"]))
def test_granet_equals_its_twin(problem: Problem, sparsity: float, every: int, how: str) -> None:
    initial, scope = (min(0.5, sparsity), "global") if how == "sparse start" else (0.0, how)
    method = st.methods.granet(
        sparsity, STEPS, update_every=every, start=1, stop=7, scope=scope, initial_sparsity=initial
    )

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, grads: dst.Layers) -> dst.Layers:
        target = dst.cubic(initial, sparsity, view.step, 1, 7)
        left = pruned(masks, weights, target, scope)
        return dst.move(left, weights, grads, dst.cosine(0.5, 0.005, view.step, STEPS), up=True)

    steps = dst.updates(every, 1, 7) | dst.updates(every, 1, STEPS)
    assert_twins(problem, method, steps, twin)
