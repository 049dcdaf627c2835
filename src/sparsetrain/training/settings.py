"""Settings as flat mappings: read from YAML, written to it, compared, hashed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import reprlib
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cattrs
import yaml

from .config import NOT_IDENTITY, SECTIONS, TrainConfig
from .errors import BadInput, unknown
from .options import options_type


def flatten(config: TrainConfig) -> dict[str, Any]:
    """Every setting by its flat name, as plain YAML and JSON values, in the order of the tree."""
    flat: dict[str, Any] = {}
    for section in SECTIONS:
        part = getattr(config, section)
        for field in dataclasses.fields(part):
            flat[field.name] = _plain(getattr(part, field.name))
    return flat


def build(values: Mapping[str, Any]) -> TrainConfig:
    """Settings from flat values; what is not named keeps its default.

    Args:
        values: flat name -> value, as YAML gives it.
    Returns:
        The tree, types checked; ranges are `check.resolve`'s.
    Raises:
        BadInput: a name that is no setting of this method (with the nearest), or a wrong type.
    """
    method = values.get("method", TrainConfig().sparse.method)
    kinds = section_types(method)
    home = {f.name: key for key, kind in kinds.items() for f in dataclasses.fields(kind)}
    for name in values:
        if name not in home:
            raise unknown(f"setting of method {method!r}", str(name), home)
    parts: dict[str, dict[str, Any]] = {key: {} for key in kinds}
    for name, value in values.items():
        kind = kinds[home[name]]
        parts[home[name]][name] = _convert(name, value, typing.get_type_hints(kind)[name])
    return TrainConfig(**{key: kinds[key](**parts[key]) for key in kinds})


def section_types(method: str) -> dict[str, type]:
    """Section -> dataclass, with the method's own options in their place."""
    default = TrainConfig()
    kinds = {key: type(getattr(default, key)) for key in SECTIONS}
    kinds["options"] = options_type(known_method(method))
    return kinds


def known_method(name: object) -> str:
    """The name, if the registry has it.

    Raises:
        BadInput: it has not; the sentence has the nearest.
    """
    from sparsetrain import methods

    names = methods.names()
    if name not in names:
        raise unknown("method", str(name), names, show="sparsetrain methods")
    return str(methods.get(str(name)).name)


def read(path: Path) -> dict[str, Any]:
    """The flat values of a YAML file.

    Raises:
        BadInput: no such file, no YAML, or not a mapping of names.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read the settings file {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise BadInput(f"the settings file {path} is not valid YAML{where}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BadInput(f"the settings file {path} must hold `name: value` lines.")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def to_yaml(config: TrainConfig) -> str:
    """The settings as YAML for `read` and `build`, all but `out` and `resume`."""
    flat = flatten(config)
    # A copied file must not point back at the folder it came from.
    return yaml.safe_dump(
        {k: v for k, v in flat.items() if k not in ("out", "resume")}, sort_keys=False
    )


def identity(config: TrainConfig) -> dict[str, Any]:
    """The settings that make a run what it is: all but where it lies and how it is watched."""
    return {name: v for name, v in flatten(config).items() if name not in NOT_IDENTITY}


def fingerprint(config: TrainConfig) -> str:
    """Eight hex digits of the non-default settings, as written and before `check.resolve`."""
    default = identity(TrainConfig(options=type(config.options)()))
    changed = {k: v for k, v in identity(config).items() if default[k] != v}
    return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _strict(kind: type, allowed: tuple[type, ...]) -> typing.Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) not in allowed:
            raise TypeError(value)
        return kind(value)

    return structure


@cache  # a sweep converts thousands of values, and one of these takes 1 ms to make
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(bool, _strict(bool, (bool,)))
    converter.register_structure_hook(int, _strict(int, (int,)))
    # str too: YAML 1.1 reads 5e-6 as a string, for want of a dot.
    converter.register_structure_hook(float, _strict(float, (int, float, str)))
    converter.register_structure_hook(str, _strict(str, (str,)))
    converter.register_structure_hook(Path, _strict(Path, (str,)))
    return converter


def _convert(name: str, value: Any, kind: Any) -> Any:
    if value is not None and type(None) in typing.get_args(kind):
        members = tuple(k for k in typing.get_args(kind) if k is not type(None))
        kind = members[0] if len(members) == 1 else kind
    if isinstance(value, str) and typing.get_origin(kind) is tuple:  # else: its letters
        raise BadInput(f"{name} must be {_words(kind)}, got {_shown(value)}.")
    try:
        return _converter().structure(value, kind)
    except (TypeError, ValueError, LookupError, cattrs.BaseValidationError) as error:
        raise BadInput(f"{name} must be {_words(kind)}, got {_shown(value)}.") from error
    except Exception as error:  # cattrs raises a bare Exception for a Literal that does not match
        raise BadInput(f"{name} must be {_words(kind)}, got {_shown(value)}.") from error


def _shown(value: Any) -> str:
    """A value in an error: a few lines of YAML can spell one that fills the memory."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 200, 200
    return short.repr(value)


def _words(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(a) for a in args)
    if origin is tuple:
        return f"a list, each {_words(args[0])}"
    named = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return named.get(kind, "empty" if kind is type(None) else "a path")
