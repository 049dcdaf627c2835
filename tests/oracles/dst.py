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


def by_magnitude(weight: np.ndarray, grad: np.ndarray, active: list[int]) -> list[int]:
    """The active positions, the first to go first: smallest |w|, the higher index among equals."""
    return sorted(active, key=lambda i: (abs(weight[i]), -i))


def by_taylor(weight: np.ndarray, grad: np.ndarray, active: list[int]) -> list[int]:
    """Smallest |w g| first."""
    return sorted(active, key=lambda i: (abs(weight[i] * grad[i]), -i))


def by_sign(weight: np.ndarray, grad: np.ndarray, active: list[int]) -> list[int]:
    """Zeros, then the smallest positive, the smallest negative, and so on in turn."""
    order = by_magnitude(weight, grad, active)
    queues = [[i for i in order if weight[i] > 0], [i for i in order if weight[i] < 0]]
    out = [i for i in order if weight[i] == 0]
    while queues[0] or queues[1]:
        for queue in queues:
            out += queue[:1]
            del queue[:1]
    return out


def part(count: int, fraction: float, *, up: bool) -> int:
    """`fraction` of a count, in decimal arithmetic, rounded up or down."""
    return math.ceil(exact(fraction) * count) if up else math.floor(exact(fraction) * count)


def swap(masks: Layers, going: list[list[int]], growth: Layers, coming: list[int]) -> Layers:
    """Drop the positions `going` of each layer, then grow `coming` of largest score in each."""
    out = []
    for mask, gone, score, n in zip(masks, going, growth, coming, strict=True):
        stay = [i for i in range(len(mask)) if mask[i] and i not in gone]
        come = best(score, [i for i in range(len(mask)) if i not in stay], n)
        new = np.zeros(len(mask), dtype=bool)
        new[stay + come] = True
        out.append(new)
    return out


def move(masks: Layers, weights: Layers, growth: Layers, fraction: float, *, up: bool) -> Layers:
    """Per layer: drop the smallest |w|, grow as many of the largest score outside what is kept."""
    going = []
    for mask, weight in zip(masks, weights, strict=True):
        order = by_magnitude(weight, weight, [i for i in range(len(mask)) if mask[i]])
        going.append(order[: part(len(order), fraction, up=up)])
    return swap(masks, going, growth, [len(gone) for gone in going])


def shared(shares: list[float], rooms: list[int], total: int) -> list[int]:
    """A total split in proportion to the shares, no layer above its room, by largest remainder.

    Layers that would overflow are filled and leave the sharing; when all that have a share are
    full, the others share the rest in proportion to their rooms.
    """
    given = [Fraction(0)] * len(rooms)
    for weights in (shares, rooms):
        open_ = [i for i, w in enumerate(weights) if w > 0 and given[i] < rooms[i]]
        while open_ and total > sum(given):
            left = total - sum(given)
            whole = sum(Fraction(weights[i]) for i in open_)
            want = {i: left * Fraction(weights[i]) / whole for i in open_}
            full = [i for i in open_ if want[i] >= rooms[i]]
            for i in full or open_:
                given[i] = Fraction(rooms[i]) if full else want[i]
            open_ = [i for i in open_ if i not in full] if full else []
    out = [math.floor(value) for value in given]
    for _ in range(total - sum(out)):
        able = [i for i in range(len(out)) if out[i] < rooms[i]]
        out[max(able, key=lambda i: (given[i] - out[i], -i))] += 1
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


def published_prune(masks: Layers, weights: Layers, rate: float) -> Layers:
    """GraNet's CIFAR code: what is strictly above the K-th largest |w|, K = int(N (1 - rate))."""
    score = np.concatenate([np.abs(w) * m for w, m in zip(weights, masks, strict=True)])
    border = np.sort(score)[::-1][max(int(len(score) * (1 - rate)), 1) - 1]
    return np.split(score > border, np.cumsum([len(mask) for mask in masks])[:-1])


def published_move(masks: Layers, weights: Layers, grads: Layers, fraction: float) -> Layers:
    """GraNet's code: a border in the sorted |w|, ties included; grows by |g| on what is then off.

    Where too few gradients are not zero, growth picks active positions and the layer shrinks.
    """
    out = []
    for mask, weight, grad in zip(masks, weights, grads, strict=True):
        n = int(mask.sum())
        removed = math.ceil(fraction * n)
        score = np.abs(weight) * mask
        rank = len(mask) - n + removed - 1
        left = score > np.sort(score)[rank] if rank >= 0 else mask.copy()
        candidates = np.abs(grad) * ~left
        grown = best(candidates, list(range(len(mask))), n - int(left.sum()))
        left[grown] = True
        out.append(left)
    return out
