"""A recipe: what all runs share, a grid over the rest, and what one method alone takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..training.errors import BadInput, unknown
from ..training.settings import known_method, read

_PARTS = ("best", "defaults", "grid", "per_method")
# Given to the command, for they are no property of a run.
_OF_THE_COMMAND = frozenset({"out", "resume"})


@dataclass(frozen=True)
class Best:
    """The best methods of another recipe.

    Attributes:
        of: its file.
        count: how many.
        by: a field of the records, the higher the better.
        leave_out: methods that do not count.
    """

    of: Path
    count: int
    by: str
    leave_out: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """A file of `sparsetrain sweep`, its form checked, its settings not yet.

    Attributes:
        path: of the file.
        defaults: settings of every run.
        grids: each setting -> values; the runs are the union of the grids' products.
        per_method: method -> settings of its runs alone, over the defaults and under the grid.
        best: whose methods the grids without one have; None: nobody's.
    """

    path: Path
    defaults: Mapping[str, Any]
    grids: tuple[Mapping[str, tuple[Any, ...]], ...]
    per_method: Mapping[str, Mapping[str, Any]]
    best: Best | None = None

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    def error(self, sentence: object) -> BadInput:
        """The exception for a fault in this file, to be raised by the caller."""
        return BadInput(f"recipe {self.path}: {sentence}")


def load(path: Path) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file with `defaults:`, `grid:` and `per_method:`, all optional.
    Raises:
        BadInput: no such file, an unknown part (with the nearest), or a part of the wrong form.
    """
    parts = read(path)
    bare = Recipe(path, {}, (), {})
    try:
        for name in parts:
            if name not in _PARTS:
                raise unknown("part", name, _PARTS)
        if all(part is None for part in parts.values()):
            raise BadInput("it is empty; give it a grid, as in `grid: {method: [art, gmp]}`.")
        return Recipe(
            path,
            _settings("defaults", parts.get("defaults")),
            _grids(parts.get("grid")),
            _per_method(parts.get("per_method")),
            _best(parts.get("best"), path.parent),
        )
    except BadInput as error:
        raise bare.error(error) from error


def _settings(where: str, value: Any) -> dict[str, Any]:
    """A mapping of settings, its names with underscores."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{where} must hold `name: value` lines.")
    settings = {str(name).replace("-", "_"): v for name, v in value.items()}
    for name in settings:
        if name in _OF_THE_COMMAND:
            raise BadInput(f"{where} sets {name}; the sweep chooses each run's own (see --out).")
    return settings


def _grids(value: Any) -> tuple[dict[str, tuple[Any, ...]], ...]:
    if value == []:
        raise BadInput("grid is an empty list; leave it out for a single run.")
    grids = [_settings("grid", grid) for grid in (value if isinstance(value, list) else [value])]
    for grid in grids:
        for name, values in grid.items():
            if not isinstance(values, list) or not values:
                raise BadInput(f"grid: {name} must be a list of values, got {values!r}.")
    return tuple({name: tuple(values) for name, values in grid.items()} for grid in grids)


def _per_method(value: Any) -> dict[str, dict[str, Any]]:
    if value is not None and not isinstance(value, dict):
        raise BadInput("per_method must hold a mapping of settings for each method.")
    found: dict[str, dict[str, Any]] = {}
    for method, settings in (value or {}).items():
        name = known_method(method)
        found[name] = _settings(f"per_method: {name}", settings)
        if "method" in found[name]:
            raise BadInput(f"per_method: {name} sets method; name the methods in grid.")
    return found


def _best(value: Any, folder: Path) -> Best | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("of"), str):
        raise BadInput("best must name a recipe, as in `best: {of: FILE, count: 5}`.")
    for name in value:
        if name not in ("of", "count", "by", "not"):
            raise unknown("part of best", str(name), ("of", "count", "by", "not"))
    count, by = value.get("count", 5), value.get("by", "val_accuracy")
    if type(count) is not int or count < 1:
        raise BadInput(f"best: count must be a whole number of at least 1, got {count!r}.")
    if not isinstance(by, str):
        raise BadInput(f"best: by must be the name of a field, as val_accuracy, got {by!r}.")
    if by.startswith("test"):
        raise BadInput(
            f"best: by must not be of the test set, got {by}. Did you mean val_accuracy?"
        )
    names = value.get("not", [])
    if not isinstance(names, list):
        raise BadInput(f"best: not must be a list of methods, got {names!r}.")
    return Best(folder / value["of"], count, by, tuple(map(known_method, names)))
