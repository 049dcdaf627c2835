"""Read archives in memory: nothing is extracted, nothing unsafe is followed."""

from __future__ import annotations

import contextlib
import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .dataset import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)
_TAR_BYTES = 1 << 28  # CIFAR, the only one we read, unpacks to 185 MB
_ZIP_BYTES = 1 << 30  # Tiny-ImageNet, likewise, to 280 MB
_ZIP_MEMBER_BYTES = 1 << 24  # its largest member, words.txt, has 2.7 MB
_ZIP_MEMBERS = 1 << 18  # it has 120,609


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


def read_tar(path: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """Some members of a .tar.gz archive.

    Args:
        path: the archive.
        wanted: name -> the most bytes that member may have; all must be there.
    Returns:
        name -> content.
    Raises:
        DataError: the archive is broken, lacks a member, or holds links, absolute paths, paths that
            lead upwards, a wanted member that is too long, or more than 256 MiB.
    """
    found: dict[str, bytes] = {}
    size = 0
    with (
        reading(path),
        gzip.open(path) as packed,
        io.BufferedReader(_Bounded(path, packed)) as stream,
        tarfile.open(fileobj=stream, mode="r:") as archive,
    ):
        for member in archive:
            if not (member.isfile() or member.isdir()):
                raise _unsafe(path, member.name, "is a link or a device")
            size += member.size
            _check_member(path, member.name, size, limit=_TAR_BYTES)
            name = member.name.removeprefix("./")
            if member.isfile() and name in wanted:
                if member.size > wanted[name]:
                    raise _unsafe(path, name, f"has more than {wanted[name]} bytes")
                content = archive.extractfile(member)
                found[name] = content.read() if content is not None else b""
        while stream.read(1 << 20):  # to the end, where gzip's checksum is compared
            pass
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise broken(path, f"it lacks {', '.join(missing)}")
    return found


class _Bounded(io.RawIOBase):
    """An unpacked stream that refuses to become longer than any archive we read.

    What a member declares does not bound what is unpacked: behind the last one, and in the headers
    that hold long names, there can be any amount.
    """

    def __init__(self, path: Path, packed: gzip.GzipFile) -> None:
        self._path, self._packed = path, packed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._packed.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._packed.tell()
        self._check(offset)
        return self._packed.seek(offset)

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        # No more than a mebibyte at a time: how long a piece is shows only when it is unpacked.
        data = self._packed.read(min(len(view), 1 << 20))
        self._check(self._packed.tell())
        view[: len(data)] = data
        return len(data)

    def _check(self, position: int) -> None:
        if position > _TAR_BYTES:
            limit = _mebibytes(_TAR_BYTES)
            raise DataError(
                f"{self._path} is not safe to read: it unpacks to more than {limit}. "
                "Remove the file."
            )


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose members have been checked.

    Args:
        path: the archive.
    Yields:
        the open archive; what a broken member raises in the body becomes a DataError.
    Raises:
        DataError: the archive is broken, or holds links, encrypted members, absolute paths, paths
            that lead upwards, a member of more than 16 MiB, or more than 1 GiB.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        size, members = 0, archive.infolist()
        if len(members) > _ZIP_MEMBERS:
            raise broken(path, f"it has {len(members)} members")
        for member in members:
            if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
                raise _unsafe(path, member.filename, "is a link or encrypted")
            if member.file_size > _ZIP_MEMBER_BYTES:
                limit = _mebibytes(_ZIP_MEMBER_BYTES)
                raise _unsafe(path, member.filename, f"has more than {limit}")
            # zipfile reads no more of a member than it declares, so this bounds what is unpacked.
            size += member.file_size
            _check_member(path, member.filename, size, limit=_ZIP_BYTES)
        yield archive


def _check_member(path: Path, name: str, size: int, *, limit: int) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name:
        raise _unsafe(path, name, "leads out of the archive")
    if size > limit:
        raise _unsafe(path, name, f"brings the content to more than {_mebibytes(limit)}")


def _mebibytes(size: int) -> str:
    return f"{size >> 20} MiB"


def _unsafe(path: Path, name: str, why: str) -> DataError:
    return DataError(f"{path} is not safe to read: its member {name!r} {why}. Remove the file.")
