"""The run folder: what lies where, whether it can be continued, and what is written when."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from . import checkpoint, lock
from .config import TrainConfig
from .errors import BadInput
from .settings import build, fingerprint, identity, read, to_yaml


class RunFolder:
    """Paths and files of one run.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.record = path / "record.json"
        self.weights = path / "model.safetensors"
        self.history = path / "history.png"
        self.trace = path / "trace"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoint"

    def check(self, config: TrainConfig) -> None:
        """Whether this run may be started, continued or reported here.

        Raises:
            BadInput: `resume: never` and something lies here; or it is no run; or it is another.
        """
        if self.path.exists() and not self.path.is_dir():
            raise BadInput(f"out {self.path} is a file; give a folder.")
        if not self.path.is_dir() or all(map(self._is_nothing, self.path.iterdir())):
            return
        if config.run.resume == "never":
            raise BadInput(
                f"run folder {self.path} exists; with --resume never give another --out."
            )
        if not self.config.is_file():
            raise BadInput(f"{self.path} is not empty and not a run folder; give another --out.")
        differing = differences(identity(self.load_config()), identity(config))
        if differing:
            raise BadInput(
                f"run folder {self.path} was made with other settings: {differing}. "
                "Give the same settings or another --out."
            )

    @property
    def begun(self) -> bool:
        """Whether a run lies here already."""
        return self.config.is_file()

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder, made if absent, for this process alone in the body.

        Raises:
            BadInput: it cannot be made or written, or another process trains in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        with lock.locked(self.path):
            yield

    def create(self, config: TrainConfig) -> None:
        """Put the resolved settings into the folder; half-written files of a killed run go.

        Raises:
            BadInput: it cannot be written.
        """
        try:
            checkpoint.clean(self.path)
            checkpoint.clean(self.checkpoints)
            checkpoint.write_atomic(self.config, to_yaml(config).encode())
        except OSError as error:
            raise self._unwritable(error) from error

    def load_config(self) -> TrainConfig:
        """The settings this folder was made with.

        Raises:
            BadInput: there are none, or they cannot be read.
        """
        if not self.config.is_file():
            raise BadInput(f"{self.path} is not a run folder: it has no {self.config.name}.")
        config = build(read(self.config))
        return replace(config, run=replace(config.run, out=self.path))

    def load_record(self) -> dict[str, Any] | None:
        """The record, if the run is finished.

        Raises:
            BadInput: it is there and cannot be read, or is not whole.
        """
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read {self.record}; remove it to run again.") from error
        if missing := missing_in(record):
            raise BadInput(f"{self.record} has no {missing}; remove it to run again.")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Write `record.json` at once; with it the run is finished."""
        checkpoint.write_atomic(self.record, (json.dumps(record, indent=2) + "\n").encode())

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one epoch."""
        with self.metrics.open("ab") as file:
            file.write(_row(line))

    def write_metrics(self, lines: Sequence[dict[str, Any]]) -> None:
        """Put the epochs of a checkpoint in place of whatever was written since."""
        checkpoint.write_atomic(self.metrics, b"".join(map(_row, lines)))

    def _is_nothing(self, path: Path) -> bool:
        """Whether a file is what a process leaves that was killed before it began."""
        return path in (self.path / lock.NAME, checkpoint.temporary(self.config))

    def _unwritable(self, error: OSError) -> BadInput:
        return BadInput(
            f"cannot write the run folder {self.path}: {error.strerror}. Give another --out."
        )


def missing_in(record: Any) -> str:
    """What a finished run's record must have and this one has not; empty if nothing."""
    if not isinstance(record, dict):
        return "fields"
    parts: dict[str, Any] = {"settings": dict, "sparsity": dict, "seconds": dict, "flops": dict}
    parts |= {"method": str, "epochs": int, "seed": int, "test_accuracy": (int, float)}
    wrong = (name for name, kind in parts.items() if not isinstance(record.get(name), kind))
    return next(wrong, "")


def default_path(config: TrainConfig) -> Path:
    """runs/<dataset>-<model>-<method>-<sparsity>-s<seed>-<hash of the non-default settings>."""
    dataset = Path(config.data.dataset).name
    model = config.model.model.replace(":", "-")  # of timm:NAME; Windows takes none in a name
    name = (
        f"{dataset}-{model}-{config.sparse.method}-{config.sparse.sparsity:g}"
        f"-s{config.run.seed}-{fingerprint(config)}"
    )
    return Path("runs") / name


def _row(line: dict[str, Any]) -> bytes:
    return (json.dumps(line) + "\n").encode()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In which settings two mappings differ, as `epochs 4 there and 6 here`; empty if in none."""
    names = [
        n for n in [*here, *(n for n in there if n not in here)] if there.get(n) != here.get(n)
    ]
    return ", ".join(
        f"{n} {_show(there.get(n, 'absent'))} there and {_show(here.get(n, 'absent'))} here"
        for n in names
    )


def _show(value: Any) -> str:
    return (
        value
        if isinstance(value, str)
        else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
    )
