"""Checkpoints that are whole or absent: written aside, checksummed, renamed; the last few kept."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..atomic import temporary as temporary
from ..atomic import write_atomic as write_atomic

_NAME = re.compile(r"epoch-(\d+)(?:-batch-(\d+))?\.pt")


class Position(NamedTuple):
    """Where a run stands: epochs finished, and batches of the next one; the later is greater."""

    epoch: int
    batch: int = 0


def save(folder: Path, position: Position, state: dict[str, Any], *, keep: int) -> Path:
    """Write the state at a position and drop all but the newest `keep`.

    Args:
        folder: made if absent.
        position: where the run stands; checkpoints of later positions are of a course that was
            given up, and go too.
        state: tensors, numbers, strings and containers of them.
    Returns:
        The file's path; beside it lies `<name>.sha256`.
    Raises:
        OSError: as `write_atomic`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Through memory: a full disk is then an OSError of ours, not a fault inside torch's writer.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    path = folder / _name(position)
    checksum = hashlib.sha256(data).hexdigest()
    # The checksum first: with the data's rename, which is one act, the checkpoint is whole.
    write_atomic(_sum_of(path), f"{checksum}  {path.name}\n".encode())
    try:
        write_atomic(path, data)
    except BaseException:
        if not path.exists():
            _sum_of(path).unlink(missing_ok=True)
        raise
    found = listed(folder)
    for old in [p for p in found if _position(p) > position] + found[found.index(path) + keep :]:
        old.unlink(missing_ok=True)
        _sum_of(old).unlink(missing_ok=True)
    return path


def clean(folder: Path) -> None:
    """Remove what a process that was killed in the middle of writing has left.

    Args:
        folder: nobody else writes in it now; may be absent.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        half_written = path.name.startswith(".") and path.suffix == ".part"
        owner = path.with_suffix("")
        orphan = _sum_of(owner) == path and _NAME.fullmatch(owner.name) and not owner.exists()
        if half_written or orphan:
            path.unlink(missing_ok=True)


def load_newest(folder: Path, report: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest state that is whole.

    Args:
        folder: may be absent.
        report: told, in one sentence each, which files are damaged.
    Returns:
        The state, on the CPU, or None where no whole one lies.
    """
    for path in listed(folder):
        state = _load(path)
        if state is not None:
            return state
        report(f"checkpoint {path} is damaged and was skipped.")
    return None


def of_epoch(folder: Path, epoch: int) -> Path:
    """Where the checkpoint after so many epochs lies, if it was written and is kept."""
    return folder / _name(Position(epoch))


def listed(folder: Path) -> list[Path]:
    """Checkpoint files, newest first."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if _NAME.fullmatch(p.name)]
    return sorted(found, key=_position, reverse=True)


def _name(position: Position) -> str:
    batch = f"-batch-{position.batch:06d}" if position.batch else ""
    return f"epoch-{position.epoch:05d}{batch}.pt"


def _position(path: Path) -> Position:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return Position(int(match[1]), int(match[2] or 0))


def _load(path: Path) -> dict[str, Any] | None:
    try:
        data = path.read_bytes()
        expected = _sum_of(path).read_text(encoding="utf-8").split()[0]
        if hashlib.sha256(data).hexdigest() != expected:
            return None
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (OSError, IndexError, UnicodeDecodeError, RuntimeError, pickle.UnpicklingError):
        return None


def _sum_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
