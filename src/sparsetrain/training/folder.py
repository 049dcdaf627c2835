"""The run folder: what lies where, whether it can be continued, and what is written when."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from . import checkpoint
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
        self.checkpoints = path / "checkpoint"

    def check(self, config: TrainConfig) -> None:
        """Whether this run may be started, continued or reported here.

        Raises:
            BadInput: `resume: never` and something lies here; or it is no run; or it is another.
        """
        if self.path.exists() and not self.path.is_dir():
            raise BadInput(f"out {self.path} is a file; give a folder.")
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return
        if config.run.resume == "never":
            raise BadInput(
                f"run folder {self.path} exists; with --resume never give another --out."
            )
        if not self.config.is_file():
            raise BadInput(f"{self.path} is not empty and not a run folder; give another --out.")
        differing = _differences(identity(self.load_config()), identity(config))
        if differing:
            raise BadInput(
                f"run folder {self.path} was made with other settings: {differing}. "
                "Give the same settings or another --out."
            )

    def create(self, config: TrainConfig) -> None:
        """Make the folder and put the resolved settings into it.

        Raises:
            BadInput: it cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            checkpoint.write_atomic(self.config, to_yaml(config).encode())
        except OSError as error:
            raise BadInput(
                f"cannot write the run folder {self.path}: {error.strerror}. Give another --out."
            ) from error

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
            BadInput: it is there and cannot be read.
        """
        try:
            return json.loads(self.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read {self.record}; remove it to run again.") from error

    def write_record(self, record: dict[str, Any]) -> None:
        """Write `record.json` at once; with it the run is finished."""
        checkpoint.write_atomic(self.record, (json.dumps(record, indent=2) + "\n").encode())

    def append_metrics(self, line: dict[str, Any]) -> int:
        """Add one epoch; returns the file's length after it, in bytes."""
        with self.metrics.open("ab") as file:
            file.write((json.dumps(line) + "\n").encode())
            return file.tell()

    def cut_metrics(self, length: int) -> None:
        """Forget the epochs after a checkpoint: those that are trained again."""
        with self.metrics.open("ab") as file:
            file.truncate(length)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every epoch so far."""
        return [json.loads(row) for row in self.metrics.read_text(encoding="utf-8").splitlines()]


def default_path(config: TrainConfig) -> Path:
    """runs/<dataset>-<model>-<method>-<sparsity>-s<seed>-<hash of the non-default settings>."""
    dataset = Path(config.data.dataset).name
    name = (
        f"{dataset}-{config.model.model}-{config.sparse.method}-{config.sparse.sparsity:g}"
        f"-s{config.run.seed}-{fingerprint(config)}"
    )
    return Path("runs") / name


def _differences(there: dict[str, Any], here: dict[str, Any]) -> str:
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
