"""The best methods of a finished sweep, for a recipe that goes on with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from ..training.errors import BadInput
from .expand import expand
from .recipe import Best, Recipe, load
from .survey import survey


def with_best(recipe: Recipe, recorded: Mapping[str, dict[str, Any]]) -> Recipe:
    """The recipe with the chosen methods in every grid that names none.

    The other recipe may go on with the best of a third.

    Args:
        recorded: key -> row, of runs whose record is kept elsewhere than in the other sweep's
            folder, which is runs/ and its recipe's name.
    Raises:
        BadInput: the other sweep is not finished, every grid names its methods, or the recipes go
            round in a circle.
    """
    return _with_best(recipe, recorded, ())


def _with_best(
    recipe: Recipe, recorded: Mapping[str, dict[str, Any]], behind: tuple[Path, ...]
) -> Recipe:
    """The same; `behind` are the recipes that lead to this one."""
    if recipe.best is None:
        return recipe
    if all("method" in grid for grid in recipe.grids):
        raise recipe.error("best has no effect: every grid names its methods.")
    way = (*behind, recipe.path.resolve())
    if recipe.best.of.resolve() in way:
        raise recipe.error(f"best goes round in a circle: {recipe.best.of} leads back to itself.")
    other = _with_best(load(recipe.best.of), recorded, way)
    chosen = _choose(recipe.best, other, recorded)
    grids = tuple({"method": chosen, **grid} for grid in recipe.grids)
    # Settings for a method that was not chosen are no mistake here.
    run = {method for grid in grids for method in grid["method"]}
    own = {method: settings for method, settings in recipe.per_method.items() if method in run}
    return replace(recipe, grids=grids, per_method=own)


def _choose(best: Best, other: Recipe, recorded: Mapping[str, dict[str, Any]]) -> tuple[str, ...]:
    """The methods, the best first; ties to the one that stands first in the other recipe."""
    out = Path("runs") / other.name
    places = survey(expand(other), out, recorded)
    left = sum(not place.done for place in places)
    if left:
        raise BadInput(
            f"best chooses among the runs of {best.of}, of which {left} are not finished. "
            f"Run `sparsetrain sweep {best.of}` first, or give their records with --records."
        )
    values: dict[str, list[float]] = {}
    for row in (place.row for place in places):
        if row is None or row["method"] in best.leave_out:
            continue
        if best.by not in row:
            raise BadInput(f"best: by {best.by} is not in the records of {best.of}.")
        value = row[best.by]
        if type(value) not in (int, float):
            raise BadInput(f"best: by {best.by} is no number in the records of {best.of}.")
        values.setdefault(row["method"], []).append(value)
    ranked = sorted(values, key=lambda method: -mean(values[method]))
    return tuple(ranked[: best.count])
