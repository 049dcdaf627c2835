"""Kept weights of each layer under an exact total: uniform, er, erk, smart_ratio, given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

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


def smart_ratio(
    shapes: Shapes,
    sparsity: float,
    *,
    network: Literal["auto", "resnet", "plain"] = "auto",
    compat: Literal["none", "paper"] | None = None,
) -> dict[str, int]:
    """Random tickets' share: convolutions keep less the deeper they lie, linears always 30 %.

    Layer l of L keeps in proportion to k (k + 1) with k = L - l + 1; what exceeds a layer's size
    goes to those behind it. The hybrid ticket is `masks.keep_layerwise` of |w| under these counts.

    Args:
        shapes: name -> shape of each prunable weight, from input to output; three or more
            dimensions are a convolution.
        sparsity: fraction of zeros over all of them, 0 <= sparsity < 1.
        network: "plain" divides a convolution's share by l squared; "auto" takes "resnet" where a
            1x1 convolution shows projection shortcuts.
        compat: "paper" cuts each layer's count to an integer by itself, so that the total falls
            short by about half a weight a layer.

    Returns:
        name -> kept weights; `kept(N, sparsity)` in total, by largest remainder.

    Raises:
        ValueError: no convolution, sparsity out of range, or the linears' 30 % leave nothing for
            the convolutions.

    Source: Su et al. 2020, arXiv 2009.11094; JingtongSu/sanity-checking-pruning. Deviates, unless
    compat is "paper": the total is exact, and linears take what full convolutions cannot.
    """
    sparsity = check_sparsity(sparsity)
    if compat not in (None, "none", "paper"):
        raise ValueError(f"compat must be None, 'none' or 'paper', got {compat!r}.")
    shares = _smart_shares(shapes, network)
    if compat == "paper":
        return _published_smart_ratio(shapes, shares, sparsity)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    ideal = _smart_ideal(sizes, shares, sparsity)
    missing = kept(_total(shapes), sparsity) - sum(math.floor(value) for value in ideal.values())
    return _spread(ideal, sizes, missing)


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


def _smart_shares(shapes: Shapes, network: str) -> dict[str, Fraction]:
    """What each convolution gets, up to a common factor; linears have no share."""
    if network not in ("auto", "resnet", "plain"):
        raise ValueError(f"network must be 'auto', 'resnet' or 'plain', got {network!r}.")
    convolutions = {name: shape for name, shape in shapes.items() if len(shape) > 2}
    if not convolutions:
        raise ValueError(
            f"smart_ratio shares weights among convolutions, got {len(shapes)} layers and none is "
            "one; use erk or uniform."
        )
    shortcuts = any(math.prod(shape[2:]) == 1 for shape in convolutions.values())
    plain = network == "plain" or (network == "auto" and not shortcuts)
    shares: dict[str, Fraction] = {}
    for place, name in enumerate(shapes, 1):
        k = len(shapes) - place + 1
        if name in convolutions:
            density = Fraction(k * (k + 1), place**2 if plain else 1)
            shares[name] = density * math.prod(shapes[name])
    return shares


def _smart_ideal(
    sizes: Mapping[str, int], shares: Mapping[str, Fraction], sparsity: float
) -> dict[str, Fraction]:
    """Kept weights of each layer before rounding; they add up to (1 - sparsity) N."""
    ideal = {n: Fraction(3, 10) * size for n, size in sizes.items() if n not in shares}
    budget = (1 - _exact(sparsity)) * sum(sizes.values()) - sum(ideal.values())
    _check_budget(budget, list(ideal), sparsity)
    convolutions = _poured(shares, sizes, budget)
    left = budget - sum(convolutions.values())
    for name in ideal:
        more = min(left, sizes[name] - ideal[name])
        ideal[name], left = ideal[name] + more, left - more
    ideal |= convolutions
    return {name: ideal[name] for name in sizes}


def _published_smart_ratio(
    shapes: Shapes, shares: Mapping[str, Fraction], sparsity: float
) -> dict[str, int]:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    linears = {name: size for name, size in sizes.items() if name not in shares}
    # In floating point, as published: int(1000 * (1 - 0.9)) is 99.
    budget = int(_total(shapes) * (1 - sparsity)) - int(0.3 * sum(linears.values()))
    _check_budget(budget, list(linears), sparsity)
    counts = _poured(shares, sizes, Fraction(budget))
    return {n: int(0.3 * sizes[n]) if n in linears else math.floor(counts[n]) for n in shapes}


def _check_budget(budget: Fraction | int, linears: Sequence[str], sparsity: float) -> None:
    if budget <= 0:
        raise ValueError(
            f"sparsity={sparsity:g} leaves {float(budget):g} weights for the convolutions, because "
            f"smart_ratio keeps 30 % of {', '.join(linears)}; lower the sparsity, leave that layer "
            "dense with exclude=[…], or use erk."
        )


def _poured(
    shares: Mapping[str, Fraction], sizes: Mapping[str, int], budget: Fraction
) -> dict[str, Fraction]:
    """The budget in proportion to the shares; what a full layer cannot hold goes to later ones."""
    factor, carried = budget / sum(shares.values()), Fraction(0)
    counts: dict[str, Fraction] = {}
    for name, share in shares.items():
        wanted = factor * share + carried
        counts[name] = min(wanted, Fraction(sizes[name]))
        carried = wanted - counts[name]
    return counts


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
