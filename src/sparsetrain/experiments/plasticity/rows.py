"""The rows of a study in its folder: a line for each pruning, and the curves made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...training.checkpoint import write_atomic
from . import output
from .variants import Variant

Draw = Callable[[Path], Sequence[Path]]
"""Draws the curves of a folder beside them; which files it wrote."""


class Rows:
    """What has been measured in the ways of this study, by this call and by earlier ones.

    Args:
        folder: of the study; need not exist.
        how: what besides the variant makes a measurement another one.
    """

    def __init__(self, folder: Path, how: Mapping[str, Any]) -> None:
        self._file, self._curves = folder / "results.jsonl", folder / "curves.csv"
        self._how = dict(how)
        self._all = _read(self._file)

    def find(self, variant: Variant) -> dict[str, Any] | None:
        """Its row; None where it was not measured yet."""
        key = variant.about() | self._how
        return next((row for row in self._all if key.items() <= row.items()), None)

    def open_(self) -> None:
        """Before rows are added: without the half line that a killed process may have left."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file, "".join(map(_line, self._all)).encode())

    def add_(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what was measured of a variant; returns its row."""
        whole = {**row, **self._how}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(_line(whole))
        self._all.append(whole)
        return whole

    def write_curves(self, finish: Callable[[dict[str, Any]], dict[str, Any]]) -> Path | None:
        """All rows that were measured in this way, epoch by epoch, as curves.csv.

        Args:
            finish: a row -> the row of the file.
        Returns:
            The file; None where there is no row yet.
        """
        rows = [row for row in self._all if self._how.items() <= row.items()]
        if not rows:
            return None
        rows = sorted(map(finish, rows), key=lambda row: row["epoch"])
        write_atomic(self._curves, output.as_csv(rows).encode())
        return self._curves


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last one of a killed process
                rows.append(json.loads(line))
    return rows
