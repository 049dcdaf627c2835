"""Finished runs, read from their folders or records, and what tells one from another."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..analysis.trace import Trace, load_trace
from ..training.config import NOT_IDENTITY
from ..training.errors import BadInput
from ..training.folder import RunFolder
from ..training.settings import build, identity
from .records import read_records
from .study import CURVES, read_curves

_CELL = frozenset({"method", "sparsity", "seed"})  # what a table has rows and columns for
_TASK = frozenset({"dataset", "model", "width"})  # what accuracies must share to be compared
_Read = list[dict[str, Any]] | BadInput  # a file's records, or why they cannot be had


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        path: its folder; of one that is known by its record alone, the record's file.
        line: the method, and whatever else tells it from the other runs but sparsity and seed.
        record: of `record.json`, its settings with this version's defaults where it has none.
        metrics: a mapping an epoch; empty where there is the record alone.
        trace: of its course; None where none was kept.
        task: the data set and the network, as far as not all runs have the same.
    """

    path: Path
    line: str
    record: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    trace: Trace | None
    task: str = ""

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
    def recorded(self) -> bool:
        """Whether there is the record alone."""
        return not self.metrics

    @property
    def measured(self) -> str:
        """The accuracy that each epoch's line has: held-out, test or training images.

        Of a run whose lines are there.
        """
        for name in ("val_accuracy", "test_accuracy"):
            if name in self.metrics[0]:
                return name
        return "train_accuracy"


@dataclass(frozen=True)
class Found:
    """What lay in the folders and files that were named.

    Attributes:
        runs: finished ones, by line, sparsity and seed; each settings and seed once.
        unfinished: folders of runs that are not, and that no record is of.
        copies: folder of a run -> that of the one in `runs` with its settings and seed; a file of
            records where the accuracies of the two are not equal.
        damaged: folder or file -> why it is left out.
        studies: folder of a study of pruning plasticity -> the rows of its curves.
    """

    runs: tuple[Run, ...]
    unfinished: tuple[Path, ...] = ()
    copies: Mapping[Path, Path] = field(default_factory=dict)
    damaged: Mapping[Path, str] = field(default_factory=dict)
    studies: Mapping[Path, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def find(paths: Sequence[Path]) -> Found:
    """Read runs.

    Args:
        paths: run folders; folders of run folders, such as a sweep's or a study's, or of records;
            files of a record, or of those that a sweep saved. A run that has a folder is read from
            there, whatever records say.
    Raises:
        BadInput: one of them is none of these, or no run is finished.
    """
    sources = [_sources(path) for path in paths]
    folders = dict.fromkeys(folder.resolve() for found, _ in sources for folder in found)
    files = {file.resolve(): read for _, found in sources for file, read in found.items()}
    runs: dict[str, Run] = {}
    unfinished: list[Path] = []
    copies: dict[Path, Path] = {}
    damaged: dict[Path, str] = {}
    for folder in folders:
        try:
            run = _run(folder)
        except BadInput as error:
            damaged[folder] = str(error)
            continue
        if run is None:
            unfinished.append(folder)
        elif (first := runs.setdefault(_identity(run), run)) is not run:
            copies[folder] = first.path
    _add_recorded(runs, files, copies, damaged)
    if not runs:
        raise _nothing(paths, damaged)
    unfinished = [folder for folder in unfinished if _begun_identity(folder) not in runs]
    named = _named(list(runs.values()))
    studies = _studies(paths, damaged)
    return Found(tuple(named), tuple(unfinished), copies, damaged, studies)


def _add_recorded(
    runs: dict[str, Run],
    files: Mapping[Path, _Read],
    copies: dict[Path, Path],
    damaged: dict[Path, str],
) -> None:
    """Add the runs that files of records have and that have not been found before."""
    for file, read in files.items():
        if isinstance(read, BadInput):
            damaged[file] = str(read)
            continue
        for record in read:
            run = Run(file, "", record | {"settings": _settings(record["settings"])}, (), None)
            first = runs.setdefault(_identity(run), run)
            if first.accuracy != run.accuracy:
                copies[file] = first.path


def _studies(
    paths: Sequence[Path], damaged: dict[Path, str]
) -> dict[Path, Sequence[Mapping[str, Any]]]:
    """Folder -> rows, of the studies among the paths; what cannot be read is added to damaged."""
    found: dict[Path, Sequence[Mapping[str, Any]]] = {}
    for path in paths:
        if (path / CURVES).is_file():
            try:
                found[path.resolve()] = read_curves(path / CURVES)
            except BadInput as error:
                damaged[path.resolve()] = str(error)
    return found


def line_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each run, equal where only sparsity and seed differ.

    Args:
        records: of the runs.
    Returns:
        The method, followed by the settings in which its runs differ: `art l1`, `gmp epochs=20`.
        What differs between methods but not within one is not named, unless it is data or model.
    """
    everywhere = _varying([r["settings"] for r in records]) & _TASK
    own = {
        method: _varying([r["settings"] for r in records if r["method"] == method]) | everywhere
        for method in {r["method"] for r in records}
    }
    return [" ".join([r["method"], *_words(r["settings"], own[r["method"]])]) for r in records]


def task_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Data set and network of each run, in words, as far as they differ: `digits mlp`."""
    shown = _varying([r["settings"] for r in records]) & _TASK
    return [" ".join(_words(r["settings"], shown)) for r in records]


def one_seed(runs: Sequence[Run]) -> list[Run]:
    """The run of the lowest seed of each line and sparsity, of those with a folder if any has."""
    chosen: dict[tuple[str, float], Run] = {}
    for run in sorted(runs, key=lambda run: (run.recorded, run.seed)):
        chosen.setdefault((run.line, run.sparsity), run)
    return [run for run in runs if chosen[run.line, run.sparsity] is run]


def _sources(path: Path) -> tuple[list[Path], dict[Path, _Read]]:
    """The run folders and the files of records that a path stands for."""
    if RunFolder(path).begun:
        return [path], {}
    if path.is_file():
        files = _records([path])
        if not files:
            raise BadInput(f"{path} is no record of a run, and no sweep saved it.")
        return [], files
    inside = sorted(path.iterdir()) if path.is_dir() else []
    folders = [p for p in inside if RunFolder(p).begun]
    files = _records(p for p in inside if p.suffix == ".json")
    if not folders and not files:
        raise BadInput(
            f"{path} is no run folder and holds none, nor a record; give a run's folder, a "
            "sweep's, or records."
        )
    return folders, files


def _records(files: Iterable[Path]) -> dict[Path, _Read]:
    """What those of the files hold that have records, or should have."""
    found: dict[Path, _Read] = {}
    for file in files:
        try:
            read: _Read = read_records(file)
        except BadInput as error:
            read = error
        if read:
            found[file] = read
    return found


def _nothing(paths: Sequence[Path], damaged: Mapping[Path, str]) -> BadInput:
    if damaged:
        return BadInput(f"no run can be reported: {' '.join(damaged.values())}")
    return BadInput(
        f"no run in {', '.join(map(str, paths))} is finished; continue one with "
        "`sparsetrain train`, then report it."
    )


def _run(folder: Path) -> Run | None:
    """A run without its line's name yet; None where it is not finished.

    Raises:
        BadInput: a file of it is damaged.
    """
    files = RunFolder(folder)
    record = files.load_record()
    if record is None:
        return None
    try:
        rows = files.metrics.read_text(encoding="utf-8").splitlines()
        metrics = tuple(json.loads(row) for row in rows)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {files.metrics}.") from error
    if not metrics or not all(isinstance(row, dict) and "epoch" in row for row in metrics):
        raise BadInput(f"{files.metrics} is empty, or has lines that are no epochs.")
    record["settings"] = _settings(record["settings"])
    return Run(folder, "", record, metrics, load_trace(files.trace, last=record["epochs"]))


def _settings(recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record's settings as a sweep compares them: what its version did not know is the default.

    Those that it has and no more, where this version does not know one of them.
    """
    try:
        return identity(build(recorded))
    except BadInput:
        return {n: v for n, v in recorded.items() if n not in NOT_IDENTITY}


def _identity(run: Run) -> str:
    """Equal of runs with the same settings and seed, wherever and how fast they ran."""
    return _as_key(run.record["settings"])


def _begun_identity(folder: Path) -> str | None:
    """The identity of a run by its settings alone; None where these cannot be read."""
    try:
        return _as_key(identity(RunFolder(folder).load_config()))
    except BadInput:
        return None


def _as_key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _named(runs: Sequence[Run]) -> list[Run]:
    """With their lines' names, in order."""
    records = [run.record for run in runs]
    lines, tasks = line_names(records), task_names(records)
    first = {line: index for index, line in reversed(list(enumerate(_ordered(lines))))}
    named = [replace(r, line=n, task=t) for r, n, t in zip(runs, lines, tasks, strict=True)]
    return sorted(named, key=lambda run: (first[run.line], run.sparsity, run.seed))


def _ordered(lines: Sequence[str]) -> list[str]:
    """Dense first, the others as they come."""
    names = list(dict.fromkeys(lines))
    return sorted(names, key=lambda name: name.split()[0] != "dense")


def _varying(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    """Settings that not all have alike, but for what the table has rows and columns for."""
    names = {name for s in settings for name in s} - _CELL
    return {n for n in names if any(s.get(n) != settings[0].get(n) for s in settings)}


def _words(settings: Mapping[str, Any], shown: Collection[str]) -> list[str]:
    """Settings by their values, with their names where these are no words."""
    told = [(name, value) for name, value in settings.items() if name in shown]
    return [value if isinstance(value, str) else f"{name}={value}" for name, value in told]
