"""`sparsetrain reproduce`: a published table, beside runs of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ... import data
from ...training.errors import BadInput
from ...training.progress import Reporter
from .. import saved, words
from ..cluster import Cluster
from ..cost import cost_line, estimates
from ..expand import Run
from ..make import make
from ..survey import Place, survey
from . import show
from .outcome import Outcome, outcomes
from .plan import Cell, plan
from .tables import Scale, Table, names, table


@dataclass(frozen=True)
class ReproduceOptions:
    """Options of `sparsetrain reproduce`."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """A table; without one they are listed."""
    scale: Scale = "smoke"
    """full: the source's data and settings; small: Fashion-MNIST and a small network, hours on a
    CPU; smoke: digits, minutes."""
    out: Path | None = None
    """Folder of the run folders; None is runs/reproduce-SCALE, which all tables share."""
    epochs: int | None = None
    """Epochs of each run at the smaller scales; None is the scale's own."""
    data_dir: Path | None = None
    """Where data sets lie; None is the user's cache folder."""
    jobs: int = 1
    """Processes of this machine."""
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
    """Print what is there, what is missing and what the rest will cost, and stop."""
    format: Literal["text", "md", "csv", "html"] = "text"
    """How the table is printed; html: as one page with figures, which needs nothing else."""
    page: Path | None = None
    """File for that page, beside what is printed."""
    json: bool = False
    """Print a line of JSON for each cell instead."""


@dataclass(frozen=True)
class Reproduced:
    """What came of it.

    Attributes:
        text: for stdout.
        failed: key of a run -> what went wrong with it.
        table: which was reproduced.
        found: what came of each of its cells.
    """

    text: str
    failed: Mapping[str, str]
    table: Table
    found: Sequence[Outcome]


def listing() -> list[tuple[str, str, str, str]]:
    """Name, cells, published numbers, title of each table."""
    rows: list[tuple[str, str, str, str]] = []
    for name in names():
        cells = plan(table(name), "full")
        known = sum(bool(cell.published) for cell in cells)
        rows.append((name, str(len(cells)), str(known), table(name).title))
    return rows


def reproduce(options: ReproduceOptions, *, reporter: Reporter) -> Reproduced:
    """Make the runs of a table that are not there yet, and set them beside the published numbers.

    Args:
        reporter: told of each run as it ends.
    Raises:
        BadInput: there is no such table, or data are missing; nothing was run.
        Interrupted: Ctrl-C or SIGTERM; the same command continues.
    """
    chosen = table(options.name)
    _check(options, chosen)
    cells = plan(chosen, options.scale, options.epochs)
    out = options.out or Path("runs") / f"reproduce-{options.scale}"
    recorded = {} if options.records is None else saved.recorded(options.records)
    places = survey(_runs(cells, options.data_dir), out, recorded)
    reporter.say(words.headline(chosen.name, places, out, verb="reproduce"))
    if options.dry_run or options.scale == "full":
        for line in _needs(places):
            reporter.say(line)
        reporter.say(cost_line(estimates(places, recorded.values())))
    rows: dict[str, Mapping[str, Any]] = {p.run.key: p.row for p in places if p.row is not None}
    failed: dict[str, str] = {}
    if not options.dry_run:
        cluster = Cluster(options.ray_address, options.cpus, options.gpus) if options.ray else None
        made = make(places, jobs=options.jobs, ray=cluster, reporter=reporter)
        rows |= {places[index].run.key: row for index, row in made.rows.items()}
        failed = {places[index].run.key: error for index, error in made.failed.items()}
        _save(options, rows)
    known = {place.run.key for place in places if place.state == "failed"}
    found = outcomes(cells, rows, known | set(failed), options.scale)
    return Reproduced(_text(options, chosen, found), failed, chosen, found)


def _check(options: ReproduceOptions, chosen: Table) -> None:
    for name in ("jobs", "cpus"):
        if getattr(options, name) < 1:
            raise BadInput(f"{name} must be at least 1, got {getattr(options, name)}.")
    for file in (options.save, options.page):
        if file is not None:
            saved.check(file)
    if options.epochs is not None and options.scale == "full":
        raise BadInput("epochs is for the smaller scales; at full scale they are the source's.")
    imp = any(line.settings.get("method") == "imp" for line in chosen.lines)
    least, why = (4, ", one for each training of IMP") if imp else (1, "")
    if options.epochs is not None and options.epochs < least:
        raise BadInput(f"epochs must be at least {least}{why}, got {options.epochs}.")


def _runs(cells: Sequence[Cell], data_dir: Path | None) -> list[Run]:
    """Each run once: several cells may want the same."""
    runs: dict[str, Run] = {}
    for cell in cells:
        for run in cell.runs:
            runs.setdefault(run.key, run.with_data(data_dir))
    return list(runs.values())


def _needs(places: Sequence[Place]) -> list[str]:
    """A sentence for each data set that is not on this machine."""
    wanted = {p.run.config.data.dataset: p.run.config.data for p in places if not p.done}
    lines: list[str] = []
    for name, config in wanted.items():
        try:
            data.load(name, root=config.data_dir, download=False)
        except ValueError as error:
            missing, fetched, _ = str(error).partition(" and downloading is off.")
            later = "; it is downloaded when the runs begin." if fetched else ""
            lines.append(f"missing data: {missing}{later}")
    return lines


def _save(options: ReproduceOptions, rows: Mapping[str, Mapping[str, Any]]) -> None:
    if options.save is None or not rows:
        return
    command = f"sparsetrain reproduce {options.name} --scale {options.scale}"
    kept = tuple(dict(row) for row in rows.values())
    saved.write(options.save, saved.Saved(options.name, command, (), kept))


def _text(options: ReproduceOptions, chosen: Table, found: Sequence[Outcome]) -> str:
    if options.json:
        rows = show.as_json(found, chosen.name, options.scale)
        return "\n".join(json.dumps(row) for row in rows)
    if options.format == "csv":
        return show.comma_separated(found, chosen.name, options.scale)
    write = show.markdown if options.format == "md" else show.text
    return write(chosen, found, options.scale)
