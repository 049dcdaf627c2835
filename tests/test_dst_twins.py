"""SET, RigL, ITOP, SNFS, GMP and GraNet equal their brute-force NumPy twins at every step."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as hs

import sparsetrain as st
from sparsetrain.methods import published
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


Twin = Callable[[View, dst.Layers, dst.Layers, dst.Layers], dst.Layers]
"""(view, masks, masked weights, gradients) -> masks after the update."""


def flat(tensors: Mapping[str, torch.Tensor] | Masks) -> dst.Layers:
    return [tensor.flatten().numpy() for tensor in tensors.values()]


def random_scores(view: View) -> dst.Layers:
    """The draws that the method is about to make, without taking them from its generator."""
    generator = torch.Generator()
    generator.set_state(view.generator.get_state())
    return [
        torch.rand(w.shape, generator=generator).flatten().numpy() for w in view.weights.values()
    ]


def assert_twins(problem: Problem, method: Any, steps: set[int], twin: Twin) -> None:
    """The method's masks are the twin's after each step, and they change at `steps` alone."""
    views = problem.views()
    masks, memory = method.init(next(views))
    for view in views:
        assert method.when(view.step) == (view.step in steps), view.step
        if getattr(method, "observes", False):
            memory = method.observe(view, memory)
        weights = {n: w * masks[n] for n, w in view.weights.items()}
        seen = View(view.step, weights, view.grads, {}, view.generator)
        if view.step not in steps:
            continue
        wanted = twin(seen, flat(masks), flat(weights), flat(view.grads))
        masks, memory = method.update(seen, masks, memory)
        for mine, theirs in zip(flat(masks), wanted, strict=True):
            assert mine.tolist() == theirs.tolist(), view.step


def sizes(masks: dst.Layers) -> list[int]:
    return [len(mask) for mask in masks]


def held(masks: dst.Layers) -> list[int]:
    return [int(mask.sum()) for mask in masks]


def absolute(layers: dst.Layers) -> dst.Layers:
    return [np.abs(layer) for layer in layers]


def pruned(
    masks: dst.Layers,
    weights: dst.Layers,
    sparsity: float,
    scope: str,
    classifier: float | None = None,
) -> dst.Layers:
    count = dst.kept(sum(sizes(masks)), sparsity)
    if count >= sum(held(masks)):
        return masks
    if scope == "global":
        return dst.prune_global(masks, weights, count)
    last = []
    if classifier is not None and sparsity > classifier:
        last = [min(dst.kept(len(masks[-1]), classifier), held(masks)[-1], count)]
    free = len(masks) - len(last)
    rest = [0] * free
    if free:
        rest = dst.even_counts(sizes(masks)[:free], held(masks)[:free], count - sum(last))
    return dst.prune_layers(masks, weights, rest + last)


def check_set(problem: Problem, sparsity: float, every: int, start: int, share: float) -> None:
    options = {"update_every": every, "start": start, "stop": 10, "drop_fraction": share}
    method = st.methods.set(sparsity, STEPS, **options)  # type: ignore[arg-type]

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, _: dst.Layers) -> dst.Layers:
        return dst.move(masks, weights, random_scores(view), share, up=True)

    assert_twins(problem, method, dst.updates(every, start, 10), twin)


def check_rigl(problem: Problem, sparsity: float, every: int, start: int, share: float) -> None:
    method = st.methods.rigl(sparsity, STEPS, update_every=every, start=start, drop_fraction=share)

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, grads: dst.Layers) -> dst.Layers:
        fraction = dst.cosine(share, 0.0, view.step, 9)
        return dst.move(masks, weights, absolute(grads), fraction, up=False)

    assert_twins(problem, method, dst.updates(every, start, 9), twin)


def check_itop(problem: Problem, sparsity: float, every: int, growth: str) -> None:
    method = st.methods.itop(sparsity, STEPS, update_every=every, growth=growth)  # type: ignore[arg-type]

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, grads: dst.Layers) -> dst.Layers:
        fraction = dst.cosine(0.5, 0.005, view.step, STEPS)
        scores = absolute(grads) if growth == "gradient" else random_scores(view)
        return dst.move(masks, weights, scores, fraction, up=True)

    assert_twins(problem, method, dst.updates(every, 0, STEPS), twin)


ORDERS = {"magnitude": dst.by_magnitude, "set": dst.by_sign, "taylor": dst.by_taylor}


def check_parts(
    problem: Problem, sparsity: float, drop: str, growth: str, redistribution: str
) -> None:
    """Every combination of parts, in SNFS, whose share falls from a half to 0.005."""
    # Halves of small whole numbers, so that the averages are exact in any order of summation.
    problem = Problem(problem.sizes, problem.seed, min(problem.levels, 4))
    options: dict[str, Any] = {"drop": drop, "growth": growth, "redistribution": redistribution}
    options |= {"threshold": 1.0} if drop == "threshold" else {}
    method = st.methods.snfs(sparsity, STEPS, update_every=2, ema_decay=0.5, **options)
    average = [np.zeros(n) for n in problem.sizes]
    views = iter(list(problem.views())[1:])
    fired: dst.Layers = []

    def going(mask: np.ndarray, weight: np.ndarray, grad: np.ndarray, step: int) -> list[int]:
        active = [i for i in range(len(mask)) if mask[i]]
        if drop == "threshold":
            return [i for i in active if abs(weight[i]) <= 1]
        n = dst.part(len(active), dst.cosine(0.5, 0.005, step, STEPS), up=True)
        return ORDERS[drop](weight, grad, active)[:n]

    def shares(masks: dst.Layers, weights: dst.Layers) -> list[float]:
        if redistribution == "nonzeros":
            return [float(n) for n in held(masks)]
        values = weights if redistribution == "magnitude" else average
        sums = [float(np.abs(v)[m].sum()) for v, m in zip(values, masks, strict=True)]
        return [total / max(n, 1) for total, n in zip(sums, held(masks), strict=True)]

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, grads: dst.Layers) -> dst.Layers:
        for seen in views:
            for a, g in zip(average, flat(seen.grads), strict=True):
                a += 0.5 * (g - a)
            if seen.step == view.step:
                break
        fired[:] = fired or [mask.copy() for mask in masks]
        layers = zip(masks, weights, grads, strict=True)
        gone = [going(m, w, g, view.step) for m, w, g in layers]
        dropped = [len(one) for one in gone]
        coming = dropped
        if redistribution != "none":
            rooms = [n - k + d for n, k, d in zip(problem.sizes, held(masks), dropped, strict=True)]
            # A layer that has lost all its weights gets one back, whatever its share.
            least = [int(0 < k == d) for k, d in zip(held(masks), dropped, strict=True)]
            rooms = [room - one for room, one in zip(rooms, least, strict=True)]
            rest = dst.shared(shares(masks, weights), rooms, sum(dropped) - sum(least))
            coming = [a + b for a, b in zip(rest, least, strict=True)]
        scores = {"gradient": absolute(grads), "momentum": absolute(average)}.get(growth)
        if scores is None:
            scores = random_scores(view)
        if growth == "random-unfired":
            scores = [s + ~f for s, f in zip(scores, fired, strict=True)]
        new = dst.swap(masks, gone, scores, coming)
        fired[:] = [f | m for f, m in zip(fired, new, strict=True)]
        return new

    assert_twins(problem, method, dst.updates(2, 0, STEPS), twin)


def check_gmp(
    problem: Problem,
    sparsity: float,
    every: int,
    how: tuple[str, float | None],
    initial: float,
) -> None:
    scope, classifier = how
    initial = min(initial, sparsity)
    options: dict[str, Any] = {"start": 2, "stop": 9, "scope": scope, "initial_sparsity": initial}
    options |= {"classifier_sparsity": classifier}
    options |= {"distribution": "uniform"} if initial else {}  # a dense start takes none
    method = st.methods.gmp(sparsity, STEPS, update_every=every, **options)

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, _: dst.Layers) -> dst.Layers:
        target = dst.cubic(initial, sparsity, view.step, 2, 9)
        return pruned(masks, weights, target, scope, classifier)

    assert_twins(problem, method, dst.updates(every, 2, 9), twin)


def check_granet(
    problem: Problem, sparsity: float, every: int, scope: str, initial: float, until: int
) -> None:
    initial = min(initial, sparsity)
    options: dict[str, Any] = {"start": 1, "stop": 7, "scope": scope, "regrow_until": until}
    method = st.methods.granet(
        sparsity, STEPS, update_every=every, initial_sparsity=initial, **options
    )

    def twin(view: View, masks: dst.Layers, weights: dst.Layers, grads: dst.Layers) -> dst.Layers:
        left = pruned(masks, weights, dst.cubic(initial, sparsity, view.step, 1, 7), scope)
        if view.step > until:
            return left
        fraction = dst.cosine(0.5, 0.005, view.step, until)
        return dst.move(left, weights, absolute(grads), fraction, up=True)

    steps = dst.updates(every, 1, 7) | dst.updates(every, 1, until)
    assert_twins(problem, method, steps, twin)


def check_published(problem: Problem, sparsity: float, share: float) -> None:
    """What GraNet's compat="paper" is made of, ties, losses and all."""
    views = problem.views()
    masks = {n: w != 0 for n, w in next(views).weights.items()}
    for view in views:
        weights = {n: w * masks[n] for n, w in view.weights.items()}
        seen = View(view.step, weights, view.grads, {}, view.generator)
        wanted = dst.published_prune(flat(masks), flat(weights), sparsity)
        masks = published.prune_global(seen, masks, sparsity)
        assert [m.tolist() for m in flat(masks)] == [m.tolist() for m in wanted]
        wanted = dst.published_move(wanted, flat(weights), flat(view.grads), share)
        masks = published.move(seen, masks, share)
        assert [m.tolist() for m in flat(masks)] == [m.tolist() for m in wanted]


PROBLEM = hs.builds(
    Problem,
    sizes=hs.lists(hs.integers(1, 30), min_size=1, max_size=4),
    seed=hs.integers(0, 2**31),
    levels=hs.sampled_from([1, 4, 1000]),
)
COMMON = (PROBLEM, hs.sampled_from([0.0, 0.29, 0.5, 0.9]))
EVERY, START = hs.integers(1, 5), hs.integers(0, 9)
SHARE, SCOPE = hs.sampled_from([0.0, 0.29, 0.5, 1.0]), hs.sampled_from(["global", "layer"])
INITIAL = hs.sampled_from([0.0, 0.29, 0.5])
PARTS = [
    hs.sampled_from(names)
    for names in (
        ["magnitude", "set", "taylor", "threshold"],
        ["gradient", "random", "momentum", "random-unfired"],
        ["none", "magnitude", "momentum", "nonzeros"],
    )
]
RULES = hs.sampled_from([("global", None), ("layer", None), ("layer", 0.5), ("layer", 0.8)])
CHECKS: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
    "set": (check_set, (EVERY, START, SHARE)),
    "rigl": (check_rigl, (EVERY, START, SHARE)),
    "itop": (check_itop, (EVERY, hs.sampled_from(["gradient", "random"]))),
    "parts": (check_parts, tuple(PARTS)),
    "gmp": (check_gmp, (EVERY, RULES, INITIAL)),
    "granet": (check_granet, (EVERY, SCOPE, INITIAL, hs.integers(1, STEPS))),
    "published": (check_published, (SHARE,)),
}


def run(name: str, examples: int) -> None:
    check, more = CHECKS[name]
    settings(max_examples=examples, deadline=None)(given(*COMMON, *more)(check))()


def test_the_twins_know_no_part_of_the_library() -> None:
    tree = ast.parse(Path(dst.__file__).read_text(encoding="utf-8"))
    modules = [
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    ]
    modules += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert set(modules) == {"__future__", "math", "fractions", "numpy"}


@pytest.mark.parametrize("name", CHECKS)
def test_methods_equal_their_twins(name: str) -> None:
    run(name, 25)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_methods_equal_their_twins_on_many_problems(name: str) -> None:
    run(name, 600)
