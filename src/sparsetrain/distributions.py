"""How many weights each layer keeps, so that the total is exact: uniform, er, erk, given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from .masks import check_sparsity, kept
from .types import Distribution, Shapes


def uniform(shapes: Shapes, sparsity: float) -> dict[str, int]:
    """The same density in every layer.

    Args:
        shapes: name -> shape of each prunable weight.
        sparsity: fraction of zeros over all of them, 0 <= sparsity < 1.

    Returns:
        name -> kept weights; `kept(N, sparsity)` in total, by largest remainder.

    Raises:
        ValueError: no shapes, or sparsity out of range.
    """
    target = kept(_total(shapes), sparsity)
    return from_densities(
        shapes, dict.fromkeys(shapes, 1 - _exact(check_sparsity(sparsity))), target
    )


def er(shapes: Shapes, sparsity: float) -> dict[str, int]:
    """Erdos-Renyi: a layer's density grows with (n_in + n_out) / (n_in n_out).

    Args:
        shapes: name -> shape of each prunable weight.
        sparsity: fraction of zeros over all of them, 0 <= sparsity < 1.

    Returns:
        name -> kept weights; `kept(N, sparsity)` in total, by largest remainder.

    Raises:
        ValueError: no shapes, or sparsity out of range.

    Source: Mocanu et al. 2018, arXiv 1707.04780.
    """
    densities = _scaled(_two_axes(shapes), shapes, sparsity)
    return from_densities(shapes, densities, kept(_total(shapes), sparsity))


def erk(shapes: Shapes, sparsity: float) -> dict[str, int]:
    """Erdos-Renyi with the kernel counted in: density grows with (sum of shape) / (product of it).

    Args:
        shapes: name -> shape of each prunable weight.
        sparsity: fraction of zeros over all of them, 0 <= sparsity < 1.

    Returns:
        name -> kept weights; `kept(N, sparsity)` in total, by largest remainder.

    Raises:
        ValueError: no shapes, or sparsity out of range.

    Source: Evci et al. 2020, arXiv 1911.11134.
    """
    densities = _scaled(shapes, shapes, sparsity)
    return from_densities(shapes, densities, kept(_total(shapes), sparsity))


def er_densities(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """The densities of `er` before rounding, in (0, 1]; see `erk_densities`."""
    return {n: float(d) for n, d in _scaled(_two_axes(shapes), shapes, sparsity).items()}


def erk_densities(shapes: Shapes, sparsity: float) -> dict[str, float]:
    """The densities of `erk` before rounding.

    Args:
        shapes: name -> shape of each prunable weight.
        sparsity: fraction of zeros over all of them, 0 <= sparsity < 1.

    Returns:
        name -> density in (0, 1]; weighted by layer size they add up to (1 - sparsity) N.

    Raises:
        ValueError: no shapes, or sparsity out of range.

    Source: Evci et al. 2020, arXiv 1911.11134; google-research/rigl, sparse_utils.py.
    """
    return {n: float(d) for n, d in _scaled(shapes, shapes, sparsity).items()}


@dataclass(frozen=True)
class _Given:
    densities: tuple[tuple[str, float], ...]

    def __call__(self, shapes: Shapes, sparsity: float) -> dict[str, int]:
        return from_densities(shapes, dict(self.densities), kept(_total(shapes), sparsity))


def given(densities: Mapping[str, float]) -> Distribution:
    """A distribution with densities of one's own.

    Args:
        densities: name -> density in [0, 1] of every prunable weight.

    Returns:
        (shapes, sparsity) -> kept weights of each layer, exact in total; picklable.
    """
    return _Given(tuple(densities.items()))


def from_densities(
    shapes: Shapes, densities: Mapping[str, float | Fraction], total: int
) -> dict[str, int]:
    """Whole numbers under an exact total: floors, then one more to the largest remainders.

    Args:
        shapes: name -> shape of each prunable weight.
        densities: name -> density in [0, 1], for the same names; a float means the decimal that it
            is written as. Together they fit the total to 0.01 % of the weights.
        total: kept weights over all layers, 0 <= total <= number of weights.

    Returns:
        name -> kept weights, never above the layer's size; ties go to the earlier layer.

    Raises:
        ValueError: total out of range, other names, a density outside [0, 1], or densities that
            do not fit the total.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    n = sum(sizes.values())
    if not 0 <= total <= n:
        raise ValueError(f"total must be in [0, {n}], the number of weights, got {total}.")
    _check_densities(sizes, densities)
    ideal = {name: _exact(densities[name]) * size for name, size in sizes.items()}
    missing = total - sum(math.floor(value) for value in ideal.values())
    # Published densities are rounded to five or six digits; anything further off is a mistake.
    if abs(missing) > max(len(sizes), n // 10_000):
        raise ValueError(
            f"densities keep {round(sum(ideal.values()))} of {n} weights, but {total} are to stay; "
            "scale the densities to the sparsity."
        )
    return _spread(ideal, sizes, missing)


def _spread(
    ideal: Mapping[str, Fraction], sizes: Mapping[str, int], missing: int
) -> dict[str, int]:
    """The floors, and `missing` single weights more (or fewer) where that strays least."""
    counts = {name: math.floor(value) for name, value in ideal.items()}
    sign = 1 if missing > 0 else -1
    for _ in range(abs(missing)):
        able = [name for name in counts if 0 <= counts[name] + sign <= sizes[name]]
        # max returns the first of equals, so ties go to the earlier layer.
        counts[max(able, key=lambda name: sign * (ideal[name] - counts[name]))] += sign
    return counts


def _scaled(factors: Shapes, shapes: Shapes, sparsity: float) -> dict[str, Fraction]:
    """Densities in proportion to sum / product of the factors, layers at the top held at 1.

    Fractions, because equal layers must tie exactly and a budget of 0 must be 0: in floating point
    the published loop empties its list of free layers on small networks and fails.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    budget = (1 - _exact(check_sparsity(sparsity))) * _total(shapes)
    raw = {name: Fraction(sum(f) or 1, math.prod(f) or 1) for name, f in factors.items()}
    free = dict(raw)
    while free:
        epsilon = budget / (sum(raw[name] * sizes[name] for name in free) or 1)
        top = max(free.values())
        if epsilon * top <= 1:
            return {name: epsilon * raw[name] if name in free else Fraction(1) for name in shapes}
        # All layers tied at the top together, or the order of layers would decide.
        full = [name for name, value in free.items() if value == top]
        budget -= sum(sizes[name] for name in full)
        free = {name: value for name, value in free.items() if value != top}
    return dict.fromkeys(shapes, Fraction(1))


def _two_axes(shapes: Shapes) -> Shapes:
    """Shapes without their kernel axes."""
    return {name: tuple(shape)[:2] for name, shape in shapes.items()}


def _exact(value: float | Fraction) -> Fraction:
    """A float as the decimal it is written as: 0.1 is a tenth."""
    return value if isinstance(value, Fraction) else Fraction(repr(float(value)))


def _total(shapes: Shapes) -> int:
    if not shapes:
        raise ValueError("shapes is empty; there is no layer to share the kept weights among.")
    return sum(math.prod(shape) for shape in shapes.values())


def _check_densities(sizes: Mapping[str, int], densities: Mapping[str, float | Fraction]) -> None:
    if odd := sorted(sizes.keys() ^ densities.keys()):
        raise ValueError(f"densities and shapes must name the same layers; not: {', '.join(odd)}.")
    for name, density in densities.items():
        if not 0 <= density <= 1:
            raise ValueError(f"densities[{name!r}] must be in [0, 1], got {density}.")
