"""Finished runs, read from their folders, and what tells one from another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..analysis.trace import Trace, load_trace
from ..training.errors import BadInput
from ..training.folder import RunFolder

_CELL = frozenset({"method", "sparsity", "seed"})  # what a table has rows and columns for


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        path: its folder.
        line: the method, and whatever else tells it from the other runs but sparsity and seed.
        record: of `record.json`.
        metrics: a mapping an epoch.
        trace: of its course; None where none was kept.
    """

    path: Path
    line: str
    record: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    trace: Trace | None

    @property
    def sparsity(self) -> float:
        """The fraction of zeros asked for."""
        return float(self.record["sparsity"]["target"])

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.record["seed"])

    @property
    def accuracy(self) -> float:
        """On the test set, of the last epoch, in percent."""
        return 100 * float(self.record["test_accuracy"])

    @property
    def inference(self) -> float:
        """Operations of a forward pass, by those of the dense network."""
        flops = self.record["flops"]
        return flops["inference_sparse"] / flops["inference_dense"]

    @property
    def training(self) -> float:
        """Operations of the training, by those of a dense one of as many epochs."""
        flops = self.record["flops"]
        return flops["train_sparse"] / flops["train_dense"]

    @property
    def measured(self) -> str:
        """The accuracy that each epoch's line has: held-out, test or training images."""
        for name in ("val_accuracy", "test_accuracy"):
            if name in self.metrics[0]:
                return name
        return "train_accuracy"


@dataclass(frozen=True)
class Found:
    """What lay in the folders that were named.

    Attributes:
        runs: finished ones, by line, sparsity and seed.
        unfinished: folders of runs that are not.
    """

    runs: tuple[Run, ...]
    unfinished: tuple[Path, ...]


def find(paths: Sequence[Path]) -> Found:
    """Read runs.

    Args:
        paths: run folders, or folders of run folders, such as a sweep's.
    Raises:
        BadInput: one of them is neither, or no run is finished.
    """
    folders = [folder for path in paths for folder in _folders(path)]
    folders = list(dict.fromkeys(folder.resolve() for folder in folders))
    held = [(folder, record) for folder in folders if (record := RunFolder(folder).load_record())]
    if not held:
        raise BadInput(
            f"no run in {', '.join(map(str, paths))} is finished; continue one with "
            "`sparsetrain train`, then report it."
        )
    lines = line_names([record for _, record in held])
    runs = [_run(folder, line, record) for (folder, record), line in zip(held, lines, strict=True)]
    first = {line: index for index, line in reversed(list(enumerate(_ordered(lines))))}
    runs.sort(key=lambda run: (first[run.line], run.sparsity, run.seed))
    done = {folder for folder, _ in held}
    return Found(tuple(runs), tuple(folder for folder in folders if folder not in done))


def line_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each run, equal where only sparsity and seed differ.

    Args:
        records: of the runs.
    Returns:
        The method, followed by the settings in which its runs differ: `art l1`, `gmp epochs=20`.
        What differs between methods but not within one is not named, unless it is data or model.
    """
    everywhere = _varying([r["settings"] for r in records]) & {"dataset", "model", "width"}
    own = {
        method: _varying([r["settings"] for r in records if r["method"] == method]) | everywhere
        for method in {r["method"] for r in records}
    }
    return [_name(r["method"], r["settings"], own[r["method"]]) for r in records]


def one_seed(runs: Sequence[Run]) -> list[Run]:
    """The run of the lowest seed of each line and sparsity."""
    chosen: dict[tuple[str, float], Run] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        chosen.setdefault((run.line, run.sparsity), run)
    return [run for run in runs if chosen[run.line, run.sparsity] is run]


def _folders(path: Path) -> list[Path]:
    if RunFolder(path).begun:
        return [path]
    inside = sorted(p for p in path.iterdir() if RunFolder(p).begun) if path.is_dir() else []
    if not inside:
        raise BadInput(
            f"{path} is no run folder and holds none; give a run's folder, or a sweep's."
        )
    return inside


def _run(folder: Path, line: str, record: Mapping[str, Any]) -> Run:
    files = RunFolder(folder)
    try:
        rows = files.metrics.read_text(encoding="utf-8").splitlines()
        metrics = tuple(json.loads(row) for row in rows)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {files.metrics}; leave {folder} out.") from error
    if not metrics:
        raise BadInput(f"{files.metrics} is empty; leave {folder} out.")
    return Run(folder, line, record, metrics, load_trace(files.trace, last=record["epochs"]))


def _ordered(lines: Sequence[str]) -> list[str]:
    """Dense first, the others as they come."""
    names = list(dict.fromkeys(lines))
    return sorted(names, key=lambda name: name.split()[0] != "dense")


def _varying(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    """Settings that not all have alike, but for what the table has rows and columns for."""
    names = {name for s in settings for name in s} - _CELL
    return {n for n in names if any(s.get(n) != settings[0].get(n) for s in settings)}


def _name(method: str, settings: Mapping[str, Any], shown: set[str]) -> str:
    parts = [method]
    for name, value in settings.items():
        if name in shown:
            parts.append(value if isinstance(value, str) else f"{name}={value}")
    return " ".join(parts)
