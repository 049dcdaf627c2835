"""`sparsetrain sweep`: from a recipe's file to its table."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..training.errors import BadInput, Interrupted
from ..training.progress import Reporter
from ..training.session import check_model
from ..training.settings import flatten
from . import pool, saved, words
from .command import train_command
from .expand import Run, expand
from .recipe import load
from .results import cells, line_name, make_row
from .survey import Place, survey
from .table import text_table
from .worker import Bench, Job


@dataclass(frozen=True)
class SweepOptions:
    """Options of `sparsetrain sweep`."""

    recipe: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The recipe, a YAML file: defaults, grid, per_method."""
    out: Path | None = None
    """Folder of the run folders; None is runs/ and the recipe's name."""
    jobs: int = 1
    """Processes; more than one share the CPU's threads."""
    records: Path | None = None
    """Folder of records; a run that has one there is not made again."""
    save: Path | None = None
    """File for a row of each finished run, written at the end."""
    dry_run: bool = False
    """Print the runs and what is done of them, and stop."""
    json: bool = False
    """Print a line for each finished run on stdout; everything else goes to stderr."""


@dataclass(frozen=True)
class Swept:
    """What a sweep came to.

    Attributes:
        rows: of the finished runs, in the recipe's order.
        text: the table; after a dry run, the plan.
        failed: name of a run -> what went wrong with it.
    """

    rows: tuple[dict[str, Any], ...]
    text: str
    failed: dict[str, str]


def sweep(options: SweepOptions, *, reporter: Reporter) -> Swept:
    """Make the runs that are not there yet.

    Args:
        reporter: told of each run as it ends.
    Raises:
        BadInput: the recipe or an option cannot be used; nothing was run.
        Interrupted: Ctrl-C or SIGTERM; the same command continues.
    """
    _check(options)
    recipe = load(options.recipe)
    runs = expand(recipe)
    out = Path("runs") / recipe.name if options.out is None else options.out
    recorded = {} if options.records is None else saved.recorded(options.records)
    places = survey(runs, out, recorded)
    headline = words.headline(recipe.name, places, out)
    if options.dry_run:
        return Swept(_rows(places, {}), "\n".join([*words.plan_lines(places), headline]), {})
    reporter.say(headline)
    made, failed = _make(places, options.jobs, reporter)
    if failed:
        reporter.say(words.failures(failed, len(places)))
    rows, axes = _rows(places, made), runs[0].axes
    if options.save is not None and rows:
        file = recipe.path.name if recipe.path.is_absolute() else recipe.path.as_posix()
        command = f"sparsetrain sweep {file}"
        saved.write(options.save, saved.Saved(recipe.name, command, axes, rows))
    text = text_table(cells(rows, axes), seeds=_seeds(runs)) if rows else "no run has finished."
    return Swept(rows, text, failed)


def _check(options: SweepOptions) -> None:
    if options.jobs < 1:
        raise BadInput(f"jobs must be at least 1, got {options.jobs}.")
    if options.save is not None and not options.save.parent.is_dir():
        raise BadInput(f"cannot write {options.save}: there is no folder {options.save.parent}.")


def _make(
    places: Sequence[Place], workers: int, reporter: Reporter
) -> tuple[dict[int, dict[str, Any]], dict[str, str]]:
    """Make what is left; returns (index -> row of what was made, name -> error)."""
    bench, progress = Bench(), words.Progress(places)
    made: dict[int, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    jobs = [_job(i, place) for i, place in enumerate(places) if not place.done]
    _prepare([places[job.index].run for job in jobs], bench, reporter)
    started = time.perf_counter()
    try:
        outcomes = pool.run_all(jobs, workers=min(workers, max(1, len(jobs))), bench=bench)
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                reporter.say(progress.line(outcome, elapsed=time.perf_counter() - started))
                if outcome.record is None:
                    name = words.run_name(places[outcome.index].run.about)
                    failed[name] = outcome.error
                else:
                    made[outcome.index] = make_row(outcome.record)
    except (KeyboardInterrupt, Interrupted) as stop:
        code = stop.code if isinstance(stop, Interrupted) else 130
        done = len(made) + sum(place.done for place in places)
        raise Interrupted(
            f"stopped with {done} of {len(places)} runs finished; the same command continues.", code
        ) from None
    return made, failed


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


def _rows(
    places: Sequence[Place], made: Mapping[int, dict[str, Any]]
) -> tuple[dict[str, Any], ...]:
    found = (made.get(i, place.row) for i, place in enumerate(places))
    return tuple(row for row in found if row is not None)


def _seeds(runs: Sequence[Run]) -> int:
    """How many runs a cell of the table has, where it has most."""
    settings = [flatten(run.config) for run in runs]
    lines = Counter(
        (line_name(s, r.axes), s["sparsity"]) for s, r in zip(settings, runs, strict=True)
    )
    return max(lines.values())
