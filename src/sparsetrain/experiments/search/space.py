"""A search's file: what all trials share, and the space of the rest."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ...training.check import resolve
from ...training.config import NOT_IDENTITY, TrainConfig, validation_share
from ...training.errors import BadInput, unknown
from ...training.settings import build, read, section_types

_PARTS = ("defaults", "space", "trials", "seeds")
_BOUNDS = ("low", "high", "log")
# Up to 1 a part of the training, above it a whole step: see `methods.options.step_of`.
_STEPS = frozenset({"start", "stop", "at", "regrow_until"})
# They decide which images are held out, so that trials could not be compared.
_OF_THE_JUDGE = frozenset({"dataset", "validation", "split_seed", "compat"})


@dataclass(frozen=True)
class Axis:
    """One setting's values.

    Attributes:
        low, high: ends of a range, both included; of type int where the setting takes whole
            numbers, else float.
        log: whether it is searched by its logarithm.
        choices: the values, where it is no range.
    """

    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def middle(self) -> Any:
        """A value of it, to check the file with."""
        if self.choices:
            return self.choices[0]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return round(middle) if isinstance(self.low, int) else middle

    @property
    def written(self) -> Any:
        """As in a file."""
        if self.choices:
            return list(self.choices)
        return {"low": self.low, "high": self.high} | ({"log": True} if self.log else {})


@dataclass(frozen=True)
class Search:
    """A file of `sparsetrain search`.

    Attributes:
        space: setting -> its values.
        trials: how many are wanted in all.
        seeds: of each trial's runs, over which it is averaged.
    """

    path: Path
    defaults: Mapping[str, Any]
    space: Mapping[str, Axis]
    trials: int
    seeds: tuple[int, ...]

    def config(self, values: Mapping[str, Any], seed: int) -> TrainConfig:
        """The settings of one run.

        Raises:
            BadInput: values that do not go together.
        """
        return resolve(build({**self.defaults, **values, "seed": seed}))

    @property
    def fixed(self) -> dict[str, Any]:
        """What all trials of a study must have in common, as JSON keeps it."""
        found = {n: v for n, v in self.defaults.items() if n not in NOT_IDENTITY | {"seed"}}
        found |= {f"space of {name}": axis.written for name, axis in self.space.items()}
        return json.loads(json.dumps({**found, "seeds": self.seeds}))


def load(path: Path) -> Search:
    """Read a file, and check it at one point of the space.

    Raises:
        BadInput: in one sentence, what is wrong with it.
    """
    try:
        parts = read(path)
        for name in parts:
            if name not in _PARTS:
                raise unknown("part", name, _PARTS)
        search = Search(
            path=path,
            defaults=_named("defaults", parts.get("defaults") or {}),
            space=_space(parts.get("space")),
            trials=parts.get("trials", 30),
            seeds=_seeds(parts.get("seeds", [0])),
        )
        search = replace(search, space=_typed(search))
        _check(search)
    except BadInput as error:
        raise BadInput(f"search {path}: {error}") from error
    return search


def _check(search: Search) -> None:
    if type(search.trials) is not int or search.trials < 1:
        raise BadInput(f"trials must be a whole number of at least 1, got {search.trials!r}.")
    for name in search.space:
        if name in NOT_IDENTITY | {"seed"}:
            raise BadInput(f"space: {name} is no property to search over.")
        if name in _OF_THE_JUDGE:
            raise BadInput(f"space: {name} decides which images judge; put it under defaults.")
    middle = {name: axis.middle for name, axis in search.space.items()}
    config = search.config(middle, search.seeds[0])
    if config.sparse.compat == "paper" or validation_share(config) == 0:
        raise BadInput(
            "trials are judged by held-out images: give validation above 0, and no compat: paper."
        )


def _named(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{where} must hold `name: value` lines.")
    return {str(name).replace("-", "_"): v for name, v in value.items()}


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or any(type(seed) is not int for seed in value):
        raise BadInput(f"seeds must be a list of whole numbers, got {value!r}.")
    return tuple(value)


def _space(value: Any) -> dict[str, Axis]:
    if not value:
        raise BadInput("space must name at least one setting, as in `lr: {low: 0.01, high: 1}`.")
    return {name: _axis(name, axis) for name, axis in _named("space", value).items()}


def _axis(name: str, value: Any) -> Axis:
    if isinstance(value, list) and value:
        return Axis(choices=tuple(value))
    if not isinstance(value, dict) or not {"low", "high"} <= set(value) <= set(_BOUNDS):
        raise BadInput(f"space: {name} must be a list, or low, high and log, got {value!r}.")
    low, high, log = _number(name, value["low"]), _number(name, value["high"]), value.get("log")
    if not low < high:
        raise BadInput(f"space: {name} must have low below high, got {low:g} and {high:g}.")
    if log and low <= 0:
        raise BadInput(f"space: {name} must have low above 0 in log scale, got {low:g}.")
    return Axis(low, high, bool(log))


def _number(name: str, value: Any) -> float:
    wrong = BadInput(f"space: {name} must have numbers as ends, got {value!r}.")
    try:  # YAML 1.1 reads 5e-6 as text, for want of a dot
        number = value if type(value) is int else float(value)
    except (TypeError, ValueError) as error:
        raise wrong from error
    if not math.isfinite(number):
        raise wrong
    return number


def _typed(search: Search) -> dict[str, Axis]:
    """The axes, their ends of the type that each setting takes."""
    method = search.defaults.get("method", TrainConfig().sparse.method)
    if "method" in search.space:
        method = search.space["method"].middle
    kinds = section_types(method).values()
    hints = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    # A name that is no setting is `_check`'s.
    return {n: _of_type(n, axis, hints.get(n, float)) for n, axis in search.space.items()}


def _of_type(name: str, axis: Axis, hint: Any) -> Axis:
    members = get_args(hint) or (hint,)
    if axis.choices:
        return axis
    steps = name in _STEPS and axis.high > 1
    if float in members and not steps:
        return replace(axis, low=float(axis.low), high=float(axis.high))
    if int not in members and not steps:
        raise BadInput(f"space: {name} is no number; give a list of its values.")
    if axis.low % 1 or axis.high % 1:
        ends = f"{axis.low:g} and {axis.high:g}"
        raise BadInput(f"space: {name} takes whole numbers, got {ends} as ends.")
    return replace(axis, low=int(axis.low), high=int(axis.high))


def encode(choice: Any) -> Any:
    """A choice as a study keeps it: lists as JSON."""
    return json.dumps(choice) if isinstance(choice, list) else choice


def decode(axis: Axis, value: Any) -> Any:
    """The reverse of `encode`, for a value of this axis."""
    return next((choice for choice in axis.choices if encode(choice) == value), value)
