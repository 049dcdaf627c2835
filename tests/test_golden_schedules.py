"""Every published cubic table, the survivors of a million weights, and the published cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch

import sparsetrain as st
from sparsetrain.types import View
from tests.nets import kept

N, EVERY = 10**6, 1000


@dataclass(frozen=True)
class Table:
    """One published run: densities and survivors after update k, of a million distinct weights.

    Attributes:
        first: density at the start.
        last: density that the schedule leads to.
        window: updates (first, last); the last may lie between two updates.
        short: how many weights the published border leaves fewer than int(N * density).
        densities: update -> density as printed, six decimals.
        survivors: update -> weights left.
    """

    first: float
    last: float
    window: tuple[float, float]
    short: int
    densities: dict[int, float]
    survivors: dict[int, int]

    def density(self, k: int) -> Fraction:
        first, last, a, b = (Fraction(str(v)) for v in (self.first, self.last, *self.window))
        return last + (first - last) * (1 - (k - a) / (b - a)) ** 3

    def method(self, name: str, **options: object) -> st.Method:
        """Ours under the same schedule, an update each EVERY steps."""
        start, stop = (round(k * EVERY) for k in self.window)
        return st.methods.create(
            name,
            sparsity=round(1 - self.last, 6),
            total_steps=100 * EVERY,
            initial_sparsity=round(1 - self.first, 6),
            update_every=EVERY,
            start=start,
            stop=stop,
            **options,
        )


# The CIFAR code keeps what is strictly above the K-th weight, so K - 1; its uniform rule and the
# ImageNet code keep K. An epoch has 352 steps there, and 10009 (an update each 4000) on ImageNet.
TABLES = {
    "cifar .5 to .1": Table(0.5, 0.1, (0, 28), 1,
        {1: .458655, 2: .420262, 3: .384712, 5: .321702, 7: .268750, 10: .206268, 14: .150000,
         20: .109329, 25: .100492, 26: .100146, 27: .100018},
        {1: 458654, 2: 420261, 3: 384711, 5: 321700, 7: 268749, 10: 206267, 14: 149998,
         20: 109328, 25: 100490, 26: 100144, 27: 100017}),
    "cifar 1 to .05": Table(1, 0.05, (0, 28), 1,
        {1: .901806, 7: .450781, 14: .168750, 20: .072157, 27: .050043}, {}),
    "cifar 1 to .1": Table(1, 0.1, (0, 28), 1,
        {1: .906974, 7: .479688, 14: .212500, 20: .120991, 27: .100041}, {}),
    "cifar from epoch 20": Table(0.5, 0.1, (7, 28), 1, {},
        {7: 499999, 8: 445534, 15: 194891, 20: 122113, 26: 100344, 27: 100042}),
    "cifar uniform": Table(0.5, 0.1, (0, 28.16), 0, {},
        {1: 458881, 7: 269710, 14: 150857, 20: 109732, 27: 100027, 28: 100000}),
    "imagenet .5 to .2": Table(0.5, 0.2, (0, 75), 0,
        {1: .488159, 10: .395289, 20: .318311, 40: .230489, 60: .202400, 74: .200001},
        {1: 488159, 10: 395288, 40: 230488, 74: 200000}),
    "imagenet 1 to .2": Table(1, 0.2, (0, 75), 0,
        {1: .968425, 10: .720770, 20: .515496, 40: .281304, 60: .206400, 74: .200002},
        {1: 968424}),
    "imagenet .5 to .1": Table(0.5, 0.1, (0, 75), 0, {1: .484212, 37: .152027, 74: .100001}, {}),
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("name", ["granet", "gmp"])
def test_densities_are_the_published_ones(name: str, table: Table) -> None:
    method = table.method(name)
    for k, density in table.densities.items():
        ours = 1 - method.sparsity_at(k * EVERY)  # type: ignore[attr-defined]
        assert ours == pytest.approx(density, abs=6e-7), k


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_ours_keep_the_published_survivors_rounded_up_and_end_exactly(table: Table) -> None:
    # Theirs is int(N d), or one fewer; ours is the ceiling, as N - floor(s N) is.
    method = table.method("granet")
    for k, survivors in table.survivors.items():
        share = N * table.density(k)
        assert survivors in (math.floor(share) - table.short, math.ceil(share) - 1 - table.short)
        assert st.masks.kept(N, method.sparsity_at(k * EVERY)) == math.ceil(share)  # type: ignore[attr-defined]
    last = round(table.window[1] * EVERY)
    assert method.when(last)
    assert st.masks.kept(N, method.sparsity_at(last)) == round(N * table.last)  # type: ignore[attr-defined]


GLOBAL = [name for name, t in TABLES.items() if t.short and t.survivors]


@pytest.mark.parametrize("name", GLOBAL)
def test_paper_compatibility_leaves_the_published_survivors(name: str) -> None:
    # Each update from dense, so that the schedule alone decides. Update 28 is not applied there.
    table = TABLES[name]
    method = table.method("granet", drop_fraction=0.0, compat="paper")
    weights, grads = {"w": torch.randperm(N) + 1.0}, {"w": torch.zeros(N)}
    dense = {"w": torch.ones(N, dtype=torch.bool)}
    first, last = (round(k) for k in table.window)
    for k, survivors in {**table.survivors, last: N, first - 1: N}.items():
        view = View(k * EVERY, weights, grads, {}, torch.Generator())
        assert method.when(view.step) == (k >= first)
        assert kept(method.update(view, dense, {})[0]) == survivors, k


COSINES = [
    (0.5, 56_320, {0: 0.5, 1000: 0.499615, 14_080: 0.427509, 28_160: 0.252500, 42_240: 0.077491,
                   56_320: 0.005}),
    (0.3, 1000, {100: 0.292781, 250: 0.256798, 500: 0.1525, 750: 0.048202, 999: 0.005001}),
]  # fmt: skip


@pytest.mark.parametrize(("first", "total", "table"), COSINES)
@pytest.mark.parametrize("name", ["granet", "itop", "snfs"])
def test_drop_fractions_are_the_published_ones(
    name: str, first: float, total: int, table: dict[int, float]
) -> None:
    method = st.methods.create(name, sparsity=0.9, total_steps=total, drop_fraction=first)
    for step, fraction in table.items():
        assert method.fraction(step) == pytest.approx(fraction, abs=6e-7)  # type: ignore[attr-defined]


def test_the_cosine_does_not_rise_again_after_its_end() -> None:
    # The published recursion has .010196 at step 60000 of 56320; ours stays at the floor.
    published = 0.005 + 0.495 * (1 + math.cos(math.pi * 60_000 / 56_320)) / 2
    assert published == pytest.approx(0.010196, abs=6e-7)
    assert st.schedules.cosine(0.5, 0.005, 0, 56_320)(60_000) == 0.005


# Density, steps, interval, share of all places ever active, for random growth: a closed form.
EXPLORED = [
    (0.1, 56_320, 1000, 0.803419),
    (0.05, 56_320, 1000, 0.541392),
    (0.05, 88_000, 1500, 0.555298),
    (0.05, 88_000, 4000, 0.279616),
    (0.1, 1_000_900, 4000, 0.999048),
]


@pytest.mark.parametrize(("density", "total", "every", "explored"), EXPLORED)
def test_random_growth_explores_the_expected_share_of_places(
    density: float, total: int, every: int, explored: float
) -> None:
    options = {"update_every": every, "growth": "random", "distribution": "uniform"}
    method = st.methods.create("itop", sparsity=1 - density, total_steps=total, **options)
    steps = range(every, total + 1, every)

    missed = 1 - density
    for r in map(method.fraction, steps):  # type: ignore[attr-defined]
        missed *= 1 - r * density / (1 - density * (1 - r))
    assert 1 - missed == pytest.approx(explored, abs=6e-7)

    generator = torch.Generator().manual_seed(0)
    view = View(0, {"w": torch.randn(20_000, generator=generator)}, {}, {}, generator)
    masks, memory = method.init(view)
    fired = masks["w"].clone()
    for step in steps:
        weights = {"w": torch.randn(20_000, generator=generator)}
        masks, memory = method.update(View(step, weights, {}, {}, generator), masks, memory)
        fired |= masks["w"]
        assert int(masks["w"].sum()) == round(20_000 * density)
    assert fired.float().mean().item() == pytest.approx(explored, abs=0.012)
