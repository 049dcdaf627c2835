"""How soon a run is as accurate as asked for."""

from __future__ import annotations

from collections.abc import Sequence


def reached(times: Sequence[float], accuracies: Sequence[float], accuracy: float) -> float | None:
    """The first time at which an accuracy is reached.

    Args:
        times: rising, for example epochs or seconds.
        accuracies: at those times.
        accuracy: asked for, in their unit.
    Returns:
        The time, or None where it is never reached.
    """
    pairs = zip(times, accuracies, strict=True)
    return next((time for time, found in pairs if found >= accuracy), None)


def reached_at_each(
    times: Sequence[float], accuracies: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Every accuracy that was a best so far, and when it was first reached.

    Returns:
        (accuracies, times), both rising.
    """
    best, when = [], []
    for time, found in zip(times, accuracies, strict=True):
        if not best or found > best[-1]:
            best.append(found)
            when.append(time)
    return best, when
