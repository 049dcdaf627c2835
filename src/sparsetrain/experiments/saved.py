"""One small file for all runs of a sweep, to be committed; what many runs share stands once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..training.checkpoint import write_atomic
from ..training.errors import BadInput
from .results import common, key_of, make_row

SCHEMA_VERSION = 1
# Facts about machine, code and problem, which are mostly the same in all runs of a sweep.
_SHARED = (
    *("schema_version", "model", "dataset", "images", "prunable_weights", "parameters"),
    *("device", "precision", "threads", "versions", "commit"),
)


@dataclass(frozen=True)
class Saved:
    """What a file holds.

    Attributes:
        recipe: its name.
        command: what made it.
        axes: settings, besides method and sparsity, that make a line of the table.
        rows: from `results.make_row`, in the recipe's order.
    """

    recipe: str
    command: str
    axes: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]


def dumps(saved: Saved) -> str:
    """The file's text: JSON, a line a run."""
    shared, methods, rows = _fold(saved.rows)
    head = {
        "schema_version": SCHEMA_VERSION,
        "recipe": saved.recipe,
        "command": saved.command,
        "axes": list(saved.axes),
        "shared": shared,
    }
    parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    own = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in methods.items()
    )
    runs = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    parts += [f'"methods": {{\n{own}\n}}', f'"runs": [\n{runs}\n]']
    return "{\n" + ",\n".join(parts) + "\n}\n"


def loads(text: str) -> Saved:
    """The reverse of `dumps`.

    Raises:
        ValueError: no such file, or of another version.
    """
    data = json.loads(text)
    if data.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"schema_version must be {SCHEMA_VERSION}")
    rows = tuple(_unfold(data["shared"], data["methods"], row) for row in data["runs"])
    return Saved(data["recipe"], data["command"], tuple(data["axes"]), rows)


def check(path: Path) -> None:
    """Refuse a file that cannot be written, before anything is run for it.

    Raises:
        BadInput: its folder does not exist, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise BadInput(f"cannot write {path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise BadInput(f"cannot write {path}: it is a folder; give a file.")


def write(path: Path, saved: Saved | str) -> None:
    """Write the file at once; a text as it is.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        write_atomic(path, (saved if isinstance(saved, str) else dumps(saved)).encode())
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}.") from error


def recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """Key -> row, of every run whose record lies in a folder, by itself or in a sweep's file.

    Files that are neither are passed over, as are runs with settings that this version does not
    know.

    Raises:
        BadInput: there is no such folder.
    """
    if not folder.is_dir():
        raise BadInput(f"records {folder} is no folder.")
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            for row in _rows(path.read_text(encoding="utf-8")):
                with suppress(BadInput):
                    rows[key_of(row["settings"])] = row
    return rows


def _rows(text: str) -> Iterable[dict[str, Any]]:
    data = json.loads(text)
    return loads(text).rows if "runs" in data else (make_row(data),)


def _fold(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """(what all runs share, the settings that each method's runs share, the rest of each run)."""
    settings = [row["settings"] for row in rows]
    facts = {name: v for name, v in common(rows).items() if name in _SHARED}
    everywhere = common(settings)
    methods: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        own = common([s for s in settings if s["method"] == name])
        methods[name] = _without(own, everywhere)
    rest = [
        _without(row, facts)
        | {"settings": _without(row["settings"], {**everywhere, **methods[row["method"]]})}
        for row in rows
    ]
    return {**facts, "settings": everywhere}, methods, rest


def _unfold(
    shared: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]], row: Mapping[str, Any]
) -> dict[str, Any]:
    settings = {**shared["settings"], **methods[row["method"]], **row["settings"]}
    # The run's own first, so that a file read and written again is the same file.
    return {**row, **shared, "settings": settings}


def _without(mapping: Mapping[str, Any], left_out: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in mapping.items() if k not in left_out}
