"""Files that are whole or absent: written aside, brought to the disk, renamed."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Put `data` at `path` at once: under any failure the old content, or nothing, stays.

    When this returns, the file is on the disk under its name.

    Raises:
        OSError: the disk is full or the folder cannot be written; no partial file is left.
    """
    part = temporary(path)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def temporary(path: Path) -> Path:
    """Where `write_atomic` puts the data before they are whole."""
    return path.with_name(f".{path.name}.part")


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk; Windows has no such call and needs none."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
