"""The runs under way as a table on the terminal, read from the files that they write."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..training.folder import RunFolder
from ..training.progress import duration
from . import words
from .survey import Place


class Board:
    """What is drawn below the lines of a sweep; it only reads.

    Args:
        places: all runs of the sweep.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._left = {i: place for i, place in enumerate(places) if not place.done}
        self._total, self._done = len(places), len(places) - len(self._left)
        self._failed = 0
        self._began = time.time()

    def end(self, index: int, *, failed: bool) -> None:
        """Learn that a run has ended: of one that failed, the files do not tell.

        Args:
            index: its place in the sweep.
            failed: whether it has, and so is tried no more.
        """
        if self._left.pop(index, None) is not None:
            self._done += not failed
            self._failed += failed

    def draw(self) -> RenderableType:
        """The table, and a line about the whole sweep."""
        table = Table("run", "epoch", "phase", "train", "val", "zeros", "left", box=None)
        finished = self._done
        running = 0
        for place in list(self._left.values()):  # another thread draws
            folder = RunFolder(place.folder)
            if folder.record.exists():
                finished += 1
            elif self._alive(folder):
                running += 1
                table.add_row(words.run_name(place.run.about), *_cells(folder, place))
        failed = f"{self._failed} failed, " if self._failed else ""
        said = f"{finished} of {self._total} finished, {failed}{running} running"
        return Group(Text(), *([table] if running else []), Text(said, style="bold"))

    def _alive(self, folder: RunFolder) -> bool:
        """Whether the run was begun or went on since the sweep was started."""
        with suppress(OSError):
            files = [path for path in (folder.config, folder.metrics) if path.exists()]
            return any(path.stat().st_mtime >= self._began for path in files)
        return False


def _cells(folder: RunFolder, place: Place) -> list[str]:
    total = place.run.config.optim.epochs
    lines: list[dict[str, Any]] = []
    with suppress(OSError, ValueError):  # a line that is just being written
        text = folder.metrics.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
    if not lines:
        return [f"0/{total}", "", "", "", "", ""]
    last = lines[-1]
    measured = last.get("val_accuracy", last.get("test_accuracy"))
    pace = sum(line["seconds"] for line in lines) / len(lines)
    return [
        f"{last['epoch']}/{total}",
        str(last["phase"]),
        _percent(last["train_accuracy"]),
        "" if measured is None else _percent(measured),
        f"{last['sparsity']:.3f}",
        duration(pace * (total - last["epoch"])),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
