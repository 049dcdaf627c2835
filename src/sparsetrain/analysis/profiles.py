"""Magnitudes of weights, and of gradients in the order of the weights, against relative rank."""

from __future__ import annotations

import numpy as np


def relative_ranks(points: int = 101, tail: int = 48) -> np.ndarray:
    """Where the profiles are read: evenly over all ranks, and more closely towards the largest.

    Returns:
        Rising fractions from 0 (the smallest weight) to 1 (the largest), float64.
    """
    even = np.linspace(0, 1, points)
    close = 1 - np.logspace(-1, -4, tail)
    return np.unique(np.concatenate([even, close]).round(9))


def magnitude_profile(weights: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The magnitudes at relative ranks.

    Args:
        weights: any shape, at least one.
        ranks: fractions in [0, 1], 0 the smallest magnitude.
    Returns:
        One of the magnitudes for each rank (the nearest rank, no interpolation).
    """
    return np.sort(np.abs(weights), axis=None)[_places(ranks, weights.size)]


def mean_by_rank(values: np.ndarray, weights: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The mean magnitude of `values` between one relative rank of the weights and the next.

    Args:
        values: as many as the weights, for example their gradients.
        weights: what ranks them, by magnitude.
        ranks: rising fractions in [0, 1].
    Returns:
        One mean for each rank but the last, from its weight to the one before the next rank's, and
        in the last mean to the last rank's own; where two ranks are the same weight, its value.
    """
    order = np.argsort(np.abs(weights), axis=None, kind="stable")
    sorted_values = np.abs(values).reshape(-1)[order].astype(np.float64)
    places = _places(ranks, weights.size)
    sums = np.concatenate([[0.0], np.cumsum(sorted_values)])
    low, high = places[:-1], np.maximum(places[1:], places[:-1] + 1)
    high[-1:] = places[-1] + 1
    return (sums[high] - sums[low]) / (high - low)


def mean_by_share(values: np.ndarray, weights: np.ndarray, parts: int = 10) -> np.ndarray:
    """The mean magnitude of `values` in equal shares of the weights, from the smallest up.

    Args:
        values: as many as the weights, for example their gradients.
        weights: what ranks them, by magnitude.
        parts: shares; 10 makes tenths.
    Returns:
        One mean a share, float64; NaN for a share without a weight. Shares differ by one weight at
        most, and the first are the larger ones.
    """
    order = np.argsort(np.abs(weights), axis=None, kind="stable")
    sorted_values = np.abs(values).reshape(-1)[order].astype(np.float64)
    shares = np.array_split(sorted_values, parts)
    return np.array([share.mean() if share.size else np.nan for share in shares])


def _places(ranks: np.ndarray, size: int) -> np.ndarray:
    return np.rint(np.asarray(ranks) * (size - 1)).astype(np.int64)
