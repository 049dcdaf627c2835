"""A study of pruning plasticity: its curves, read from its folder, and its pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from ..training.checkpoint import write_atomic
from ..training.errors import BadInput
from .figures.plasticity import columns, plasticity_figures
from .standalone import sheet

CURVES = "curves.csv"
_NUMBERS = ("epoch", "fraction", "recover", "share", "plasticity", "gap")
_NAMES = ("structure", "regrow")


def read_curves(path: Path) -> list[dict[str, Any]]:
    """A row a pruning, with what the figures show of it; `gap` where the study has measured it.

    Args:
        path: of a study's `curves.csv`.
    Raises:
        BadInput: it cannot be read, or has no rows.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            numbers = [n for n in _NUMBERS if n != "gap" or n in (reader.fieldnames or ())]
            rows = [
                {n: row[n] for n in _NAMES} | {n: float(row[n]) for n in numbers} for row in reader
            ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise BadInput(f"cannot read {path}; `sparsetrain plasticity` writes it again.") from error
    if not rows:
        raise BadInput(f"{path} has no rows; `sparsetrain plasticity` writes it again.")
    return rows


def write_pictures(folder: Path) -> list[Path]:
    """Draw a study's curves as SVG files beside them.

    Returns:
        The files.
    Raises:
        BadInput: the curves cannot be read.
    """
    rows = read_curves(folder / CURVES)
    written = []
    for figure in plasticity_figures(rows):
        path = folder / f"{figure.key}.svg"
        write_atomic(path, sheet(figure, columns=columns(rows)).encode())
        written.append(path)
    return written
