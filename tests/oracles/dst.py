"""Brute-force NumPy twins of SET, RigL, ITOP, GMP and GraNet: full sorts, Python loops, Fractions.

Layers are lists of flat arrays. A twin knows no tensor, no engine and no shared part of the
library; it is written from the papers' formulas and the library's two rules: counts are exact,
and of equal scores the lower flat index is kept when dropping and chosen when growing.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

Layers = list[np.ndarray]


def exact(value: float) -> Fraction:
    return Fraction(repr(float(value)))


def kept(n: int, sparsity: float) -> int:
    return n - math.floor(exact(sparsity) * n)


def cosine(first: float, last: float, step: int, stop: int) -> float:
    if step >= stop:
        return last
    return last + (first - last) * (1 + math.cos(math.pi * (step / stop))) / 2


def cubic(first: float, last: float, step: int, start: int, stop: int) -> float:
    if step >= stop:
        return last
    if step <= start:
        return first
    return last + (first - last) * (1 - (step - start) / (stop - start)) ** 3


def updates(every: int, start: int, stop: int) -> set[int]:
    return {s for s in range(start, stop) if s % every == 0} | {stop}


def best(score: np.ndarray, candidates: list[int], n: int) -> list[int]:
    """The n candidates of largest score, the lower index first among equals."""
    assert 0 <= n <= len(candidates)
    return sorted(candidates, key=lambda i: (-score[i], i))[:n]


def move(masks: Layers, weights: Layers, growth: Layers, fraction: float, *, up: bool) -> Layers:
    """Per layer: drop the smallest |w|, grow the largest score outside what is kept."""
    out = []
    for mask, weight, score in zip(masks, weights, growth, strict=True):
        active = [i for i in range(len(mask)) if mask[i]]
        exact_count = exact(fraction) * len(active)
        n = math.ceil(exact_count) if up else math.floor(exact_count)
        stay = best(np.abs(weight), active, len(active) - n)
        come = best(score, [i for i in range(len(mask)) if i not in stay], n)
        new = np.zeros(len(mask), dtype=bool)
        new[stay + come] = True
        out.append(new)
    return out


def prune_global(masks: Layers, weights: Layers, count: int) -> Layers:
    """The `count` largest |w| of all active weights together."""
    flat, score = np.concatenate(masks), np.abs(np.concatenate(weights))
    new = np.zeros(len(flat), dtype=bool)
    active = [i for i in range(len(flat)) if flat[i]]
    new[best(score, active, min(count, len(active)))] = True
    return np.split(new, np.cumsum([len(mask) for mask in masks])[:-1])


def even_counts(sizes: list[int], active: list[int], count: int) -> list[int]:
    """One density for all layers, but none gains: floors, then one each to the largest remainders.

    A layer whose even share is above what it holds keeps what it holds, and the rest is shared
    again among the others.
    """
    held: set[int] = set()
    while True:
        free = [i for i in range(len(sizes)) if i not in held]
        left = count - sum(active[i] for i in held)
        ideal = {i: Fraction(sizes[i] * left, sum(sizes[j] for j in free)) for i in free}
        over = {i for i in free if ideal[i] >= active[i]}
        if not over:
            break
        held |= over
    out = [active[i] if i in held else math.floor(ideal[i]) for i in range(len(sizes))]
    for _ in range(count - sum(out)):
        out[max(free, key=lambda i: (ideal[i] - out[i], -i))] += 1
    return out


def prune_layers(masks: Layers, weights: Layers, counts: list[int]) -> Layers:
    """The `counts[l]` largest |w| of each layer's active weights."""
    return [
        prune_global([mask], [weight], n)[0]
        for mask, weight, n in zip(masks, weights, counts, strict=True)
    ]
