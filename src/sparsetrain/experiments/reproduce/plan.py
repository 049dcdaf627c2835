"""From a table and a scale to its cells, and the runs that fill them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...training.check import resolve
from ...training.settings import build, fingerprint
from ..expand import Run
from .published import Published, Wanted, dense_beside, find
from .tables import Line, Problem, Scale, Table, small_scale


@dataclass(frozen=True)
class Cell:
    """A method on a problem at a sparsity.

    Attributes:
        problem: what is run, for a person.
        instead: of which problem of the source; empty where it is the source's own.
        line: the method, in the table's words.
        dense: whether it is the table's dense network.
        sparsity: fraction of zeros.
        published: the numbers of the source, mostly one or none.
        control: the dense network beside the first of them, as published; None where not known.
        runs: one for each seed; empty where the cell cannot be run.
        note: why not, or how it differs from the source; may be empty.
    """

    problem: str
    instead: str
    line: str
    dense: bool
    sparsity: float
    published: tuple[Published, ...]
    control: Published | None
    runs: tuple[Run, ...]
    note: str


def plan(table: Table, scale: Scale, epochs: int | None = None) -> tuple[Cell, ...]:
    """The cells, problem by problem, line by line.

    At the smaller scales one problem stands in for several of the source: each is there once, with
    the numbers of the first.

    Args:
        epochs: of a run of the smaller scales; None is the scale's own.
    Raises:
        BadInput: from `check.resolve`, where `epochs` is too small.
    """
    problems = _problems(table, scale)
    apart = _apart([_network(problem, scale) for problem in problems])
    return tuple(
        cell
        for problem in problems
        for line in table.lines
        for cell in _cells(table, problem, line, scale, epochs, apart)
    )


def _problems(table: Table, scale: Scale) -> list[Problem]:
    if scale == "full":
        return list(table.problems)
    first: dict[str, Problem] = {}
    for problem in table.problems:
        first.setdefault(small_scale(scale).problem(problem.like).name, problem)
    return list(first.values())


def _cells(
    table: Table,
    problem: Problem,
    line: Line,
    scale: Scale,
    epochs: int | None,
    apart: tuple[str, ...],
) -> Iterator[Cell]:
    dense = line.settings.get("method") == "dense"
    wanted = table.sparsities if scale == "full" else table.small_sparsities
    for sparsity in (0.0,) if dense else wanted:
        found = () if line.published is None else _find(line.published, problem, sparsity)
        missing = line.missing or (problem.missing if scale == "full" else "")
        seeds = table.seeds if scale == "full" else table.seeds[:1]
        settings = _settings(table, problem, line, scale, epochs)
        axes = (*apart, *_axes(line))
        runs = () if missing else tuple(_run(settings, sparsity, s, axes) for s in seeds)
        here = problem.name if scale == "full" else small_scale(scale).problem(problem.like).name
        yield Cell(
            problem=here,
            instead="" if scale == "full" else problem.name,
            line=line.name,
            dense=dense,
            sparsity=sparsity,
            published=found,
            control=_control(line.published, problem, found),
            runs=runs,
            note=missing or line.note,
        )


def _find(wanted: Wanted, problem: Problem, sparsity: float) -> tuple[Published, ...]:
    return find(wanted, model=problem.published, dataset=problem.dataset, sparsity=sparsity)


def _control(
    wanted: Wanted | None, problem: Problem, found: Sequence[Published]
) -> Published | None:
    if wanted is None or not found:
        return None
    if wanted.dense is None:
        return dense_beside(found[0])
    return next(iter(_find(wanted.dense, problem, 0.0)), None)


def _settings(
    table: Table, problem: Problem, line: Line, scale: Scale, epochs: int | None
) -> dict[str, Any]:
    settings = _network(problem, scale)
    if scale == "full":
        return {**table.full, **settings, **line.settings, **line.full}
    total = (epochs or settings["epochs"]) * line.longer
    return {**settings, **line.settings, **line.small, "epochs": total}


def _network(problem: Problem, scale: Scale) -> dict[str, Any]:
    """The settings that a problem brings, at a scale."""
    if scale == "full":
        return {"dataset": problem.dataset, **problem.settings}
    small = small_scale(scale)
    return {**small.settings, **small.problem(problem.like).settings}


def _run(settings: dict[str, Any], sparsity: float, seed: int, axes: tuple[str, ...]) -> Run:
    config = resolve(build({**settings, "sparsity": sparsity, "seed": seed}))
    return Run(config, fingerprint(config), axes)


def _apart(problems: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """What tells the runs of one problem from those of another, in their names; no more of it."""
    told = [n for n in ("dataset", "model", "width") if len({p.get(n) for p in problems}) > 1]
    enough = (
        count
        for count in range(len(told))
        if len({tuple(p.get(name) for name in told[:count]) for p in problems}) == len(problems)
    )
    return tuple(told[: next(enough, len(told))])


def _axes(line: Line) -> tuple[str, ...]:
    """What tells a line's runs from those of another line of the same method, in their names."""
    named = [s for s in ("regularizer", "initial_sparsity", "distribution") if s in line.settings]
    return (*named, *(["epochs"] if line.longer > 1 else []))
