"""The `sparsetrain train` line that repeats one run by itself."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, get_type_hints

from ..training.config import TrainConfig
from ..training.settings import flatten, identity, section_types


def train_command(
    config: TrainConfig, *, out: Path | None = None, of_the_machine: bool = False
) -> str:
    """Flags for every setting that is not its default.

    Args:
        config: whose `options` are those of its method.
        out: the run folder to name; None names none.
        of_the_machine: whether settings that do not change the result are named too, as where
            data lie and how often a checkpoint is written.
    Returns:
        A line for a shell.
    """
    named = flatten if of_the_machine else identity
    default = named(TrainConfig(options=type(config.options)()))
    switches = _switches(config.sparse.method)
    words = ["sparsetrain", "train", "--method", config.sparse.method]
    for name, value in named(config).items():
        if value != default[name] and name not in ("method", "out"):
            words += _flag(name.replace("_", "-"), value, switch=name in switches)
    return shlex.join([*words, *([] if out is None else ["--out", str(out)])])


def _switches(method: str) -> set[str]:
    """Settings that are flags without a value; a bool that may be None is none of them."""
    kinds = section_types(method).values()
    return {n for kind in kinds for n, hint in get_type_hints(kind).items() if hint is bool}


def _flag(name: str, value: Any, *, switch: bool) -> list[str]:
    if switch:
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", str(value)]
