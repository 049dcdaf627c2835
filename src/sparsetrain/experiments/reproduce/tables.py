"""The published tables: what each line trains, on which problems, at which sparsities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import cattrs
import yaml

from ...training.errors import unknown
from .published import Wanted

Scale = Literal["full", "small", "smoke"]
Settings = Mapping[str, Any]

_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class Problem:
    """A network and a data set.

    Attributes:
        name: for a person.
        published: the network's name in the table of numbers.
        dataset: its name there and here.
        settings: of the run, besides `dataset`.
        like: which problem of a smaller scale stands in for it.
        missing: why it cannot be run at full scale; empty where it can.
    """

    name: str
    published: str
    dataset: str
    settings: Settings
    like: Literal["residual", "plain"]
    missing: str


@dataclass(frozen=True)
class Line:
    """A method with its settings.

    Attributes:
        settings: at every scale.
        full: at full scale alone, and
        small: at the others alone.
        longer: how often the epochs of a smaller scale.
        published: what its numbers are; None where there are none.
        missing: why it cannot be run at any scale; empty where it can.
        note: how it differs from the source.
    """

    name: str
    settings: Settings
    full: Settings
    small: Settings
    longer: int
    published: Wanted | None
    missing: str
    note: str


@dataclass(frozen=True)
class Table:
    """One published table.

    Attributes:
        seeds: at full scale; a smaller one has the first.
        sparsities: the columns; 0 is added for a dense line.
        small_sparsities: at the smaller scales, where they are others.
        full: settings of every run at full scale.
        notes: how all of it differs from the source.
    """

    name: str
    title: str
    paper: str
    problems: tuple[Problem, ...]
    lines: tuple[Line, ...]
    sparsities: tuple[float, ...]
    small_sparsities: tuple[float, ...]
    seeds: tuple[int, ...]
    full: Settings
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StandIn:
    """A problem of a smaller scale."""

    name: str
    settings: Settings


@dataclass(frozen=True)
class SmallScale:
    """What a smaller scale trains instead.

    Attributes:
        settings: of every run.
    """

    settings: Settings
    residual: StandIn
    plain: StandIn

    def problem(self, like: Literal["residual", "plain"]) -> StandIn:
        """What stands in for a problem of the source."""
        return self.residual if like == "residual" else self.plain


@cache
def names() -> tuple[str, ...]:
    """The tables there are."""
    found = files(_PACKAGE).joinpath("tables").iterdir()
    return tuple(sorted(p.name.removesuffix(".yaml") for p in found if p.name.endswith(".yaml")))


@cache
def table(name: str) -> Table:
    """One of them.

    Raises:
        BadInput: there is no such table.
    """
    if name not in names():
        raise unknown("table", name, names(), show="sparsetrain reproduce")
    data = _read(f"tables/{name}.yaml")
    return Table(
        name=name,
        title=data["title"],
        paper=data["paper"],
        problems=tuple(_problem(p) for p in data["problems"]),
        lines=tuple(_line(x) for x in data["lines"]),
        sparsities=tuple(data["sparsities"]),
        small_sparsities=tuple(data.get("small_sparsities", data["sparsities"])),
        seeds=tuple(data.get("seeds", [0])),
        full=data["full"],
        notes=tuple(data.get("notes", [])),
    )


@cache
def small_scale(scale: Literal["small", "smoke"]) -> SmallScale:
    """The settings of a scale."""
    return cattrs.structure(_read("scales.yaml")[scale], SmallScale)


def _read(path: str) -> dict[str, Any]:
    return yaml.safe_load(files(_PACKAGE).joinpath(path).read_text(encoding="utf-8"))


def _problem(data: dict[str, Any]) -> Problem:
    return Problem(
        name=data["name"],
        published=data["published"],
        dataset=data["dataset"],
        settings=data.get("settings", {}),
        like=data.get("like", "residual"),
        missing=data.get("missing", ""),
    )


def _line(data: dict[str, Any]) -> Line:
    numbers = data.get("published")
    return Line(
        name=data["name"],
        settings=data.get("settings", {}),
        full=data.get("full", {}),
        small=data.get("small", {}),
        longer=data.get("longer", 1),
        published=None if numbers is None else _wanted(numbers),
        missing=data.get("missing", ""),
        note=data.get("note", ""),
    )


def _wanted(data: dict[str, Any]) -> Wanted:
    variant = data["variant"]
    return Wanted(
        method=data["method"],
        variants=(variant,) if isinstance(variant, str) else tuple(variant),
        source=data.get("source", ""),
        unstated=data.get("sparsity") == "unstated",
        dense=_wanted(data["dense"]) if "dense" in data else None,
    )
