"""The best methods of a finished sweep, for a recipe that goes on with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from ..training.errors import BadInput
from ..training.progress import counted
from .expand import expand
from .recipe import Best, Recipe, load
from .survey import Place, survey

Say = Callable[[str], None]


def with_best(
    recipe: Recipe, recorded: Mapping[str, dict[str, Any]], *, say: Say = lambda _: None
) -> Recipe:
    """The recipe with the chosen methods in every grid that names none.

    The other recipe may go on with the best of a third.

    Args:
        recorded: key -> row, of runs whose record is kept elsewhere than in the other sweep's
            folder, which is runs/ and its recipe's name.
        say: told of each method that is passed over because a run of it failed.
    Raises:
        BadInput: the other sweep is not finished, no method of it is left, every grid names its
            methods, or the recipes go round in a circle.
    """
    return _with_best(recipe, recorded, (), say)


def _with_best(
    recipe: Recipe, recorded: Mapping[str, dict[str, Any]], behind: tuple[Path, ...], say: Say
) -> Recipe:
    """The same; `behind` are the recipes that lead to this one."""
    if recipe.best is None:
        return recipe
    if all("method" in grid for grid in recipe.grids):
        raise recipe.error("best has no effect: every grid names its methods.")
    way = (*behind, recipe.path.resolve())
    if recipe.best.of.resolve() in way:
        raise recipe.error(f"best goes round in a circle: {recipe.best.of} leads back to itself.")
    other = _with_best(load(recipe.best.of), recorded, way, say)
    chosen = _choose(recipe.best, other, recorded, say)
    grids = tuple({"method": chosen, **grid} for grid in recipe.grids)
    # Settings for a method that was not chosen are no mistake here.
    run = {method for grid in grids for method in grid["method"]}
    own = {method: settings for method, settings in recipe.per_method.items() if method in run}
    return replace(recipe, grids=grids, per_method=own)


def _choose(
    best: Best, other: Recipe, recorded: Mapping[str, dict[str, Any]], say: Say
) -> tuple[str, ...]:
    """The methods, the best first; ties to the one that stands first in the other recipe."""
    out = Path("runs") / other.name
    by_method: dict[str, list[Place]] = {}
    for place in survey(expand(other), out, recorded):
        method = place.run.config.sparse.method
        if method not in best.leave_out:
            by_method.setdefault(method, []).append(place)
    whole = _without_failed(best, by_method, say)
    left = sum(not place.done for places in whole.values() for place in places)
    if left:
        raise BadInput(
            f"best chooses among the runs of {best.of}, of which {left} are not finished. "
            f"Run `sparsetrain sweep {best.of}` first, or give their records with --records; "
            "methods under best: not need none."
        )
    if not whole:
        raise BadInput(f"best finds no method in {best.of}: all are under not, or failed.")
    values = {method: mean(_values(best, places)) for method, places in whole.items()}
    return tuple(sorted(values, key=lambda method: -values[method])[: best.count])


def _without_failed(
    best: Best, by_method: Mapping[str, Sequence[Place]], say: Say
) -> dict[str, Sequence[Place]]:
    """Without the methods of which a run fails by its own settings: they have no whole mean."""
    whole: dict[str, Sequence[Place]] = {}
    for method, places in by_method.items():
        failed = [place for place in places if place.state == "failed"]
        if failed:
            of = f"{len(failed)} of its {counted(len(places), 'run')}"
            say(f"best of {best.of} passes over {method}: {of} failed: {failed[0].problem}")
        else:
            whole[method] = places
    return whole


def _values(best: Best, places: Sequence[Place]) -> list[float]:
    found: list[float] = []
    for row in (place.row for place in places if place.row is not None):
        if best.by not in row:
            raise BadInput(f"best: by {best.by} is not in the records of {best.of}.")
        value = row[best.by]
        if type(value) not in (int, float):
            raise BadInput(f"best: by {best.by} is no number in the records of {best.of}.")
        found.append(value)
    return found
