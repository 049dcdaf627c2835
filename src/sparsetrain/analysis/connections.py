"""Connections that come, go and stay: sets of active weights compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..masks import count_active
from ..types import Tensors


class Churn(NamedTuple):
    """What lies between two masks.

    Attributes:
        dropped: active before, not after.
        grown: active after, not before.
        kept: active in both.
    """

    dropped: int
    grown: int
    kept: int

    @property
    def rate(self) -> float:
        """The share of the earlier connections that were dropped; 0 where there were none."""
        before = self.dropped + self.kept
        return self.dropped / before if before else 0.0


def churn(before: Tensors, after: Tensors) -> Churn:
    """Connections dropped, grown and kept from one mask to another.

    Args:
        before: name -> bool mask.
        after: the same names and shapes.
    """
    both = _both(before, after)
    first, second = _active(before), _active(after)
    return Churn(first - both, second - both, both)


def overlap(masks: Tensors, others: Tensors) -> float:
    """The share of the second's connections that the first has too.

    Two random masks of the same density d overlap by d, so compare with that.

    Args:
        masks: name -> bool mask.
        others: the same names and shapes, for example the final masks.
    Returns:
        |A and B| / |B|, in [0, 1]; 1 where B is empty.
    """
    size = _active(others)
    return _both(masks, others) / size if size else 1.0


def survival(history: Sequence[Tensors]) -> list[float]:
    """The share of each time's connections that are still there at the last.

    A connection that was dropped and grown again counts as there.

    Args:
        history: masks at successive times.
    Returns:
        One fraction a time; the last is 1.
    """
    return [overlap(history[-1], masks) for masks in history]


def _both(masks: Tensors, others: Tensors) -> int:
    if masks.keys() != others.keys():
        odd = ", ".join(sorted(masks.keys() ^ others.keys()))
        raise ValueError(f"masks must name the same layers; not in both: {odd}.")
    return _active({name: mask & others[name] for name, mask in masks.items()})


def _active(masks: Tensors) -> int:
    return sum(count_active(masks).values())
