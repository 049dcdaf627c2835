"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import BadInput, InUse

NAME = ".lock"
_TAKEN = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes for the time of the body.

    The operating system drops the lock when the process dies, whichever way. The file stays: to
    remove it would let two processes hold two files of one name. On a file system that cannot lock
    the body runs unprotected.

    Args:
        folder: exists.
    Raises:
        InUse: another process holds it.
        BadInput: the file cannot be made.
    """
    try:
        handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BadInput(
            f"cannot write the run folder {folder}: {error.strerror}. Give another --out."
        ) from error
    try:
        if not _take(handle):
            raise InUse(
                f"run folder {folder} is in use by another process{_holder(handle)}; "
                "wait until it is done or give another --out."
            )
        _sign(handle)
        yield
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether another process holds the folder at the moment."""
    try:
        with locked(folder):
            return False
    except InUse:
        return True
    except BadInput:  # whoever runs there will be told
        return False


def _take(handle: int) -> bool:
    try:
        _lock(handle)
    except OSError as error:
        return error.errno not in _TAKEN  # else: the file system knows no locks
    return True


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, 1 << 20, os.SEEK_SET)  # beyond the text, which others may then read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        return
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sign(handle: int) -> None:
    """Say who holds it; only for people, so a full disk does not matter."""
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"{os.getpid()}\n".encode())


def _holder(handle: int) -> str:
    os.lseek(handle, 0, os.SEEK_SET)
    number = os.read(handle, 20).decode("ascii", "replace").strip()
    return f" ({number})" if number.isdigit() else ""
