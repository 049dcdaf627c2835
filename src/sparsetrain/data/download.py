"""Fetch one file over HTTP: resumable, checked, and never half-written under its own name."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn, TypeAlias
from urllib.parse import urlsplit

from .dataset import DataError

_log = logging.getLogger(__name__)
_CHUNK = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte
_MOST_BYTES = 1 << 30  # four times the largest file we fetch, Tiny-ImageNet's

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""(file name, bytes so far, bytes in all or None) -> nothing; called after each chunk."""


@dataclass(frozen=True)
class Remote:
    """A file on the web.

    Attributes:
        url: where it is.
        md5: its published checksum, None where nobody publishes one.
    """

    url: str
    md5: str | None

    @property
    def filename(self) -> str:
        """Last part of the address."""
        return PurePosixPath(urlsplit(self.url).path).name


def fetch(remote: Remote, folder: Path, *, progress: Progress | None = None) -> Path:
    """Download a file into a folder, going on where a broken download stopped.

    The bytes go to `<name>.part`, which a broken connection or Ctrl-C leaves behind for the next
    call to continue; it gets its own name only when complete and checked.

    Args:
        remote: what to fetch.
        folder: made if missing; other processes fetching into it wait for this one.
        progress: told of each chunk.
    Returns:
        path of the complete file.
    Raises:
        DataError: no connection, connection broken, wrong checksum, folder not writable, disk full.
    """
    target = folder / remote.filename
    part = target.with_name(target.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            if not target.is_file():  # another process may have fetched it meanwhile
                _download(remote, part, target, progress)
                _check(remote, part)
                part.replace(target)
    except OSError as error:  # the disk; trouble with the network is a DataError already
        with contextlib.suppress(OSError):
            part.unlink()
        raise DataError(
            f"Cannot write {target} ({error}). Make room or give another data folder."
        ) from error
    return target


def _download(remote: Remote, part: Path, target: Path, progress: Progress | None) -> None:
    """Bring `part` to the full length."""
    have = part.stat().st_size if part.is_file() else 0
    with contextlib.ExitStack() as stack:
        try:
            response = stack.enter_context(_open(remote.url, have))
        except urllib.error.HTTPError as error:
            error.close()
            if have and error.code == 416:  # nothing after what we have: complete, or not ours
                _restart_if_longer(error, remote, part, target, progress)
                return
            raise _unreachable(remote, target, error) from error
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(remote, target, error) from error
        if response.status != 206:  # the server sends all of it again
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with part.open("ab" if have else "wb") as file:
            for chunk in _chunks(response, remote):
                file.write(chunk)
                have += len(chunk)
                if have > _MOST_BYTES:
                    _refuse_longer(remote, part)
                if progress is not None:
                    progress(remote.filename, have, total)
    if total is not None and have < total:
        raise DataError(
            f"The download of {remote.url} broke off after {have} of {total} bytes. "
            "Run the same command again to go on from there."
        )


def _refuse_longer(remote: Remote, part: Path) -> NoReturn:
    part.unlink()
    raise DataError(
        f"{remote.url} sends more than {_MOST_BYTES >> 20} MiB, which is not the file expected. "
        "Get the file elsewhere."
    )


def _restart_if_longer(
    error: urllib.error.HTTPError,
    remote: Remote,
    part: Path,
    target: Path,
    progress: Progress | None,
) -> None:
    """After "range not satisfiable": `part` is whole if it has the length the server names."""
    length = error.headers.get("Content-Range", "").rpartition("/")[2]
    if length != str(part.stat().st_size):
        part.unlink()
        _download(remote, part, target, progress)


def _open(url: str, have: int) -> http.client.HTTPResponse:
    # identity: some servers unpack .gz files on the way otherwise.
    headers = {"Accept-Encoding": "identity", "User-Agent": "sparsetrain"}
    if have:
        headers["Range"] = f"bytes={have}-"
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)


def _chunks(response: http.client.HTTPResponse, remote: Remote) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                f"The download of {remote.url} broke off ({error}). "
                "Run the same command again to go on from there."
            ) from error
        if not chunk:
            return
        yield chunk


def _unreachable(remote: Remote, target: Path, error: Exception) -> DataError:
    return DataError(
        f"Cannot download {remote.url} ({error}). "
        f"Check the connection, or put the file at {target} by hand."
    )


def _check(remote: Remote, part: Path) -> None:
    """Compare with the published checksum, or say what was received."""
    if remote.md5 is None:
        _log.warning(
            "No checksum is published for %s; the file received has SHA-256 %s.",
            remote.url,
            _digest(part, "sha256"),
        )
        return
    found = _digest(part, "md5")
    if found != remote.md5:
        part.unlink()
        raise DataError(
            f"The file received from {remote.url} has MD5 {found}, but {remote.md5} is published; "
            "it was removed. Run the same command again, or get the file elsewhere."
        )


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder, so that the ranks of a run or the runs of a sweep download once."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot lock; then processes only download twice.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
