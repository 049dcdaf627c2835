"""Read archives in memory: nothing is extracted, nothing unsafe is followed."""

from __future__ import annotations

import contextlib
import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from .dataset import DataError

_BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)
_TAR_BYTES = 1 << 30  # five times the largest we read, CIFAR
_ZIP_BYTES = 1 << 32  # ten times Tiny-ImageNet


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a broken archive raises into one sentence.

    Args:
        path: the archive read in the body.
    Raises:
        DataError: the body met a broken, truncated or unreadable archive.
    """
    try:
        yield
    except _BROKEN as error:
        raise broken(path, str(error) or type(error).__name__) from error


def broken(path: Path, why: str) -> DataError:
    """The error for a file that is not what it should be.

    Args:
        path: the file.
        why: what is wrong with it.
    Returns:
        the error, to be raised.
    """
    return DataError(
        f"{path} is truncated, damaged or not the file expected ({why}). "
        "Remove it and run again to fetch it afresh."
    )


def read_tar(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Some members of a .tar.gz archive.

    Args:
        path: the archive.
        wanted: names of members; all must be there.
    Returns:
        name -> content.
    Raises:
        DataError: the archive is broken, lacks a member, or holds links, absolute paths, paths that
            lead upwards, or more than 1 GiB.
    """
    found: dict[str, bytes] = {}
    size = 0
    with (
        reading(path),
        gzip.open(path) as stream,
        tarfile.open(fileobj=stream, mode="r:") as archive,
    ):
        for member in archive:
            if not (member.isfile() or member.isdir()):
                raise _unsafe(path, member.name, "is a link or a device")
            size += member.size
            _check_member(path, member.name, size, limit=_TAR_BYTES)
            name = member.name.removeprefix("./")
            if member.isfile() and name in wanted:
                content = archive.extractfile(member)
                found[name] = content.read() if content is not None else b""
        while stream.read(1 << 20):  # to the end, where gzip's checksum is compared
            pass
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise broken(path, f"it lacks {', '.join(missing)}")
    return found


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose members have been checked.

    Args:
        path: the archive.
    Yields:
        the open archive; what a broken member raises in the body becomes a DataError.
    Raises:
        DataError: the archive is broken, or holds links, encrypted members, absolute paths, paths
            that lead upwards, or more than 4 GiB.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        size = 0
        for member in archive.infolist():
            if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
                raise _unsafe(path, member.filename, "is a link or encrypted")
            size += member.file_size
            _check_member(path, member.filename, size, limit=_ZIP_BYTES)
        yield archive


def _check_member(path: Path, name: str, size: int, *, limit: int) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name:
        raise _unsafe(path, name, "leads out of the archive")
    if size > limit:
        raise _unsafe(path, name, f"brings the content to more than {limit >> 30} GiB")


def _unsafe(path: Path, name: str, why: str) -> DataError:
    return DataError(f"{path} is not safe to read: its member {name!r} {why}. Remove the file.")
