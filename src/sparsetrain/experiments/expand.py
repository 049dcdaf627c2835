"""From a recipe to its runs: every point of the grids once, checked before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..training.check import resolve
from ..training.config import NOT_IDENTITY, TrainConfig
from ..training.errors import BadInput, unknown
from ..training.folder import default_path
from ..training.settings import build, fingerprint, identity, known_method, section_types
from .recipe import Recipe


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        config: resolved; `out` is not set yet.
        key: hash of its non-default settings; equal runs have equal keys, however written.
        axes: settings, besides method, sparsity and seed, in which runs of a method differ in this
            sweep; the same for all runs.
    """

    config: TrainConfig
    key: str
    axes: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name of its run folder."""
        return default_path(self.config).name

    @property
    def about(self) -> dict[str, Any]:
        """What tells it from the sweep's other runs: method, sparsity, the axes it has, seed."""
        settings = identity(self.config)
        names = ("method", "sparsity", *self.axes, "seed")
        return {name: settings[name] for name in names if name in settings}

    def with_data(self, folder: Path | None) -> Run:
        """The same run with its data elsewhere."""
        data = replace(self.config.data, data_dir=folder)
        return replace(self, config=replace(self.config, data=data))


def expand(recipe: Recipe) -> tuple[Run, ...]:
    """The runs, in the order of the file: the grid's last setting changes fastest.

    Runs that come out equal are one: `dense` has no zeros, so it runs once a seed and not once a
    sparsity.

    Raises:
        BadInput: a setting that its method does not take, a value of the wrong type or out of its
            range, or a part of the recipe without effect; nothing has been run.
    """
    points = [point for grid in recipe.grids for point in _product(grid)]
    methods = [_method(recipe, point) for point in points]
    try:
        _check(recipe, set(methods))
        configs: dict[str, TrainConfig] = {}
        for point, method in zip(points, methods, strict=True):
            own = recipe.per_method.get(method, {})
            config = resolve(build({**recipe.defaults, **own, **point}))
            configs.setdefault(fingerprint(config), config)
    except BadInput as error:
        raise recipe.error(error) from error
    axes = _axes(recipe, configs.values())
    return tuple(Run(config, key, axes) for key, config in configs.items())


def _product(grid: Mapping[str, tuple[Any, ...]]) -> Iterable[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _method(recipe: Recipe, point: Mapping[str, Any]) -> str:
    default = recipe.defaults.get("method", TrainConfig().sparse.method)
    try:
        return known_method(point.get("method", default))
    except BadInput as error:
        raise recipe.error(error) from error


def _check(recipe: Recipe, methods: set[str]) -> None:
    """Every name is a setting of every method that it is given to."""
    for name in recipe.per_method:
        if name not in methods:
            raise BadInput(f"per_method names {name}, which no grid runs.")
    everyone = sorted(methods)
    _check_names("defaults", recipe.defaults, everyone)
    for grid in recipe.grids:
        chosen = grid.get("method")
        _check_names("grid", grid, everyone if chosen is None else sorted(map(str, chosen)))
        for name in sorted(set(grid) & NOT_IDENTITY):
            raise BadInput(f"grid: {name} does not make runs differ; put it under defaults.")
    for name, settings in recipe.per_method.items():
        _check_names(f"per_method: {name}", settings, [name])


def _check_names(where: str, names: Iterable[str], methods: list[str]) -> None:
    known = {method: _known(method) for method in methods}
    for name in names:
        if not any(name in settings for settings in known.values()):
            everything = set().union(*known.values())
            raise BadInput(f"{where}: {unknown('setting', name, everything)}")
        for method, settings in known.items():
            if name not in settings:
                raise BadInput(
                    f"{where}: method {method!r} has no setting {name!r}. Put it under per_method, "
                    "or into a grid of the methods that have it."
                )


@cache
def _known(method: str) -> frozenset[str]:
    return frozenset(f.name for kind in section_types(method).values() for f in fields(kind))


def _axes(recipe: Recipe, configs: Iterable[TrainConfig]) -> tuple[str, ...]:
    """The grids' settings, besides method, sparsity and seed, that differ between equal methods."""
    named = {name: None for grid in recipe.grids for name in grid}
    values: dict[tuple[str, str], set[str]] = {}
    for config in configs:
        settings = identity(config)
        for name in named:
            if name in settings:
                values.setdefault((name, settings["method"]), set()).add(repr(settings[name]))
    varied = {name for (name, _), found in values.items() if len(found) > 1}
    return tuple(n for n in named if n in varied and n not in ("method", "sparsity", "seed"))
