"""Checkpoints that are whole or absent: written aside, checksummed, renamed; the last few kept."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

_NAME = re.compile(r"epoch-(\d+)\.pt")


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` at once: under any failure the old content, or nothing, stays.

    Raises:
        OSError: the disk is full or the folder cannot be written; no partial file is left.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def save(folder: Path, epoch: int, state: dict[str, Any], *, keep: int) -> Path:
    """Write the state after an epoch and drop all but the newest `keep`.

    Args:
        folder: made if absent.
        epoch: epochs finished.
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
    data = buffer.getvalue()
    path = folder / f"epoch-{epoch:05d}.pt"
    checksum = hashlib.sha256(data).hexdigest()
    write_atomic(_sum_of(path), f"{checksum}  {path.name}\n".encode())
    try:
        write_atomic(path, data)
    except BaseException:
        if not path.exists():
            _sum_of(path).unlink(missing_ok=True)
        raise
    for old in listed(folder)[keep:]:
        old.unlink(missing_ok=True)
        _sum_of(old).unlink(missing_ok=True)
    return path


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


def listed(folder: Path) -> list[Path]:
    """Checkpoint files, newest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), reverse=True)


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
