"""Runs that another process makes at the moment: they come last, once their folders are free."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from ..training import lock
from .worker import Job, Outcome

_POLL = 1.0  # seconds


def in_turn(
    jobs: Sequence[Job],
    run: Callable[[Sequence[Job]], Generator[Outcome, None, None]],
    told: Callable[[Sequence[Job]], None],
) -> Generator[Outcome, None, None]:
    """The outcomes of all jobs; of one that was taken, when it is free and has been run.

    A run that the other process finishes gives its record; one that it leaves is continued here.

    Args:
        jobs: with their run folders.
        run: gives the outcomes of some of them.
        told: called with the jobs that are waited for.
    """
    left, waiting, known = list(jobs), [], []
    while left:
        with contextlib.closing(run(left)) as outcomes:
            for outcome in outcomes:
                if outcome.taken is None:
                    yield outcome
                else:
                    waiting.append(outcome.taken)
        if new := [job for job in waiting if job not in known]:
            told(new)
            known += new
        left = _free(waiting)
        waiting = [job for job in waiting if job not in left]


def _free(jobs: Sequence[Job]) -> list[Job]:
    """Those whose folder nobody holds any more; waits until there is one, if there are jobs."""
    while jobs:
        if free := [job for job in jobs if not lock.is_held(Path(job.settings["out"]))]:
            return free
        time.sleep(_POLL)
    return []
