"""What of a sweep is there: finished here, recorded elsewhere, broken off, failed, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..training.errors import BadInput
from ..training.folder import RunFolder
from . import failure
from .expand import Run
from .results import make_row

State = Literal["finished", "recorded", "broken off", "failed", "new", "unusable"]


@dataclass(frozen=True)
class Place:
    """A run and its folder.

    Attributes:
        row: from `results.make_row`, where the run is finished or recorded.
        problem: where it is unusable, why, and what to do: what training there will say, too; where
            it failed by its own settings, how. It is tried again all the same.
    """

    run: Run
    folder: Path
    state: State
    row: dict[str, Any] | None = None
    problem: str = ""

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train."""
        return self.row is not None


def survey(
    runs: Iterable[Run], out: Path, recorded: Mapping[str, dict[str, Any]]
) -> tuple[Place, ...]:
    """Look at every run's folder; nothing is changed.

    Args:
        out: the sweep's folder, which holds the runs' folders.
        recorded: key -> row, of runs whose record is kept elsewhere.
    """
    return tuple(_look(run, out / run.folder, recorded) for run in runs)


def _look(run: Run, path: Path, recorded: Mapping[str, dict[str, Any]]) -> Place:
    folder = RunFolder(path)
    try:
        folder.check(replace(run.config, run=replace(run.config.run, out=path)))
        record = folder.load_record()
    except BadInput as error:
        return Place(run, path, "unusable", problem=str(error))
    if record is not None:
        return Place(run, path, "finished", make_row(record))
    if run.key in recorded:
        return Place(run, path, "recorded", recorded[run.key])
    if problem := failure.known(path):
        return Place(run, path, "failed", problem=problem)
    return Place(run, path, "broken off" if folder.config.is_file() else "new")
