"""Which way whole steps are faster: timed on the training's own steps, sparse and dense in turn."""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from statistics import median
from typing import Literal

How = Literal["sparse", "dense"]

_STEPS = 5
"""Of each way that are timed, behind one that is not: it chooses, plans and compiles."""


class Pace:
    """Takes steps sparse and dense in turn until it is known which way is faster.

    What a layer gains alone says little of a step in which few layers run sparse: the ordinary
    kernels between them may compute in bfloat16, and each change of layout costs. A step is timed
    from its beginning to that of the next.

    Args:
        known: kind of step -> "sparse" or "dense"; what is found is added.
    """

    def __init__(self, known: MutableMapping[str, str]) -> None:
        self._known = known
        self._kind = ""
        self._seconds = _none()
        self._running: tuple[How, float] | None = None

    def begin(self, kind: str) -> How:
        """Which way a step of this kind, which begins now, runs."""
        if kind in self._known:
            return "sparse" if self._known[kind] == "sparse" else "dense"
        if kind != self._kind:
            self._kind, self._seconds = kind, _none()
        sparse, dense = (len(taken) for taken in self._seconds.values())
        how: How = "sparse" if sparse <= dense else "dense"
        self._running = how, time.perf_counter()
        return how

    def end(self) -> None:
        """The step that runs is over, so that the next one can begin."""
        if self._running is None:
            return
        how, start = self._running
        self._running = None
        self._seconds[how].append(time.perf_counter() - start)
        if all(len(taken) > _STEPS for taken in self._seconds.values()):
            sparse, dense = (median(taken[1:]) for taken in self._seconds.values())
            self._known[self._kind] = "sparse" if sparse <= dense else "dense"

    def drop(self) -> None:
        """Forget the step that runs: it failed."""
        self._running = None


def _none() -> dict[How, list[float]]:
    return {"sparse": [], "dense": []}
