"""Which points no other point beats."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that none beats in both: cheaper and at least as good, or better.

    Args:
        points: (cost, accuracy).
    Returns:
        Indices, from the cheapest; of equal points the first.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    best, found = float("-inf"), []
    for index in order:
        if points[index][1] > best:
            best = points[index][1]
            found.append(index)
    return found
