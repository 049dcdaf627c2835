"""`sparsetrain sweep`: from a recipe's file to its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..training.errors import BadInput
from ..training.progress import Reporter
from ..training.settings import flatten
from . import saved, words
from .best import with_best
from .cluster import Cluster
from .command import train_command
from .cost import cost_line, estimates
from .expand import Run, expand
from .make import make
from .recipe import load
from .results import cells, line_name
from .survey import Place, survey
from .table import text_table


@dataclass(frozen=True)
class SweepOptions:
    """Options of `sparsetrain sweep`."""

    recipe: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The recipe, a YAML file: defaults, grid, per_method."""
    out: Path | None = None
    """Folder of the run folders; None is runs/ and the recipe's name."""
    jobs: int = 1
    """Processes of this machine; more than one share the CPU's threads and the GPUs."""
    ray: bool = False
    """Give the runs to a Ray cluster, one run a task."""
    ray_address: str = "auto"
    """A cluster's address; auto: the one that runs, else one started here; local: start one."""
    cpus: int = 1
    """CPUs of each run under --ray."""
    gpus: float | None = None
    """GPUs of each run under --ray; None is one where the cluster has any."""
    records: Path | None = None
    """Folder of records; a run that has one there is not made again."""
    save: Path | None = None
    """File for a row of each finished run, written at the end."""
    dry_run: bool = False
    """Print the runs, what is done of them and what the rest will cost, and stop."""
    commands: bool = False
    """Print one command for each run that is left, for any batch system, and stop."""
    json: bool = False
    """Print a line for each finished run on stdout; everything else goes to stderr."""


@dataclass(frozen=True)
class Swept:
    """What a sweep came to.

    Attributes:
        rows: of the finished runs, in the recipe's order.
        text: the table; after a dry run, the plan; the commands, where they were asked for.
        failed: name of a run -> what went wrong with it; in a sweep the names differ.
    """

    rows: tuple[dict[str, Any], ...]
    text: str
    failed: Mapping[str, str]


def sweep(options: SweepOptions, *, reporter: Reporter) -> Swept:
    """Make the runs that are not there yet.

    Args:
        reporter: told of each run as it ends.
    Raises:
        BadInput: the recipe or an option cannot be used; nothing was run.
        Interrupted: Ctrl-C or SIGTERM; the same command continues.
    """
    _check(options)
    recorded = {} if options.records is None else saved.recorded(options.records)
    recipe = with_best(load(options.recipe), recorded, say=reporter.say)
    runs = expand(recipe)
    out = Path("runs") / recipe.name if options.out is None else options.out
    places = survey(runs, out, recorded)
    headline = words.headline(recipe.name, places, out)
    if options.commands:
        reporter.say(headline)
        return Swept(_rows(places, {}), "\n".join(_commands(places)), {})
    if options.dry_run:
        return Swept(_rows(places, {}), _plan(places, recorded, headline), {})
    reporter.say(headline)
    cluster = Cluster(options.ray_address, options.cpus, options.gpus) if options.ray else None
    made = make(places, jobs=options.jobs, ray=cluster, reporter=reporter)
    rows, axes = _rows(places, made.rows), runs[0].axes
    if options.save is not None and rows:
        file = recipe.path.name if recipe.path.is_absolute() else recipe.path.as_posix()
        command = f"sparsetrain sweep {file}"
        saved.write(options.save, saved.Saved(recipe.name, command, axes, rows))
    if told := words.taken(places, len(rows), out, options.records):
        reporter.say(told)
    text = text_table(cells(rows, axes), seeds=_seeds(runs)) if rows else "no run has finished."
    failed = {words.run_name(runs[i].about): error for i, error in made.failed.items()}
    return Swept(rows, text, failed)


def _check(options: SweepOptions) -> None:
    for name in ("jobs", "cpus"):
        if getattr(options, name) < 1:
            raise BadInput(f"{name} must be at least 1, got {getattr(options, name)}.")
    if options.save is not None:
        saved.check(options.save)


def _plan(places: Sequence[Place], recorded: Mapping[str, Mapping[str, Any]], headline: str) -> str:
    found = estimates(places, recorded.values())
    return "\n".join([*words.plan_lines(places, found), headline, cost_line(found)])


def _commands(places: Sequence[Place]) -> list[str]:
    return [
        train_command(place.run.config, out=place.folder, of_the_machine=True)
        for place in places
        if not place.done
    ]


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
