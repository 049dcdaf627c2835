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

    Args:
        recorded: key -> row, of runs whose record is kept elsewhere than in the other sweep's
            folder, which is runs/ and its recipe's name.
    Raises:
        BadInput: the other sweep is not finished, or every grid names its methods.
    """
    if recipe.best is None:
        return recipe
    if all("method" in grid for grid in recipe.grids):
        raise recipe.error("best has no effect: every grid names its methods.")
    chosen = _choose(recipe.best, recorded)
    grids = tuple({"method": chosen, **grid} for grid in recipe.grids)
    # Settings for a method that was not chosen are no mistake here.
    run = {method for grid in grids for method in grid["method"]}
    own = {method: settings for method, settings in recipe.per_method.items() if method in run}
    return replace(recipe, grids=grids, per_method=own)


def _choose(best: Best, recorded: Mapping[str, dict[str, Any]]) -> tuple[str, ...]:
    """The methods, the best first; ties to the one that stands first in the other recipe."""
    other = load(best.of)
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
        values.setdefault(row["method"], []).append(float(row[best.by]))
    ranked = sorted(values, key=lambda method: -mean(values[method]))
    return tuple(ranked[: best.count])
