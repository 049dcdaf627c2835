"""Make the runs that are left, one after the other, in several processes, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..training.errors import BadInput, Interrupted
from ..training.progress import Reporter
from ..training.session import check_model
from ..training.settings import flatten
from . import cluster, pool, words
from .command import train_command
from .expand import Run
from .live import Board
from .results import make_row
from .survey import Place
from .terminated import exit_code, sigterm_raises
from .turns import in_turn
from .worker import Bench, Job, Outcome


@dataclass(frozen=True)
class Made:
    """What came of it.

    Attributes:
        rows: place in the sweep -> row, of the runs that were made now.
        failed: place in the sweep -> what went wrong with that run.
    """

    rows: Mapping[int, dict[str, Any]]
    failed: Mapping[int, str]


def make(
    places: Sequence[Place],
    *,
    jobs: int = 1,
    ray: cluster.Cluster | None = None,
    reporter: Reporter,
) -> Made:
    """Make what is left; runs that fail are told, and the others go on.

    Args:
        places: of a sweep, in its order.
        jobs: processes of this machine.
        ray: a cluster to give the runs to, instead.
        reporter: told of each run as it ends.
    Raises:
        BadInput: data or a network that do not exist, or no such cluster; nothing was run.
        Interrupted: Ctrl-C or SIGTERM; the same call continues.
    """
    bench, progress, board = Bench(), words.Progress(places), Board(places)
    rows: dict[int, dict[str, Any]] = {}
    failed: dict[int, str] = {}
    left = [_job(i, place) for i, place in enumerate(places) if not place.done]

    def waits(taken: Sequence[Job]) -> None:
        reporter.say(words.elsewhere([places[job.index].run.about for job in taken]))

    try:
        with sigterm_raises():
            _prepare([places[job.index].run for job in left], bench, reporter)
            started = time.perf_counter()
            with (
                reporter.live(board.draw),
                contextlib.closing(
                    in_turn(left, lambda some: _outcomes(some, jobs, ray, bench, reporter), waits)
                ) as outcomes,
            ):
                for outcome in outcomes:
                    board.end(outcome.index, failed=outcome.record is None)
                    reporter.say(progress.line(outcome, elapsed=time.perf_counter() - started))
                    if outcome.record is None:
                        failed[outcome.index] = outcome.error
                    else:
                        rows[outcome.index] = make_row(outcome.record)
    except (KeyboardInterrupt, Interrupted) as stop:
        done = len(rows) + sum(place.done for place in places)
        raise Interrupted(
            f"stopped with {done} of {len(places)} runs finished; the same command continues.",
            exit_code(stop),
        ) from None
    if failed:
        reporter.say(words.failures(failed, places))
    return Made(rows, failed)


def _outcomes(
    left: Sequence[Job], jobs: int, ray: cluster.Cluster | None, bench: Bench, reporter: Reporter
) -> Generator[Outcome, None, None]:
    if ray is not None and left:
        return cluster.run_all(left, ray, say=reporter.say)
    return pool.run_all(left, workers=min(jobs, max(1, len(left))), bench=bench)


def _prepare(runs: Sequence[Run], bench: Bench, reporter: Reporter) -> None:
    """Find missing data and networks now, and not in the middle of the night.

    Data are fetched here, so that no two processes fetch the same.
    """
    for model in dict.fromkeys(run.config.model for run in runs):
        try:
            check_model(model)
        except ValueError as error:
            raise BadInput(str(error)) from error
    # The first data set last: it stays on the bench for the first run.
    for data in reversed(dict.fromkeys(run.config.data for run in runs)):
        try:
            bench.load(data, reporter)
        finally:
            reporter.close()


def _job(index: int, place: Place) -> Job:
    config = place.run.config
    settings = {**flatten(config), "out": str(place.folder)}
    return Job(index, settings, train_command(config))
