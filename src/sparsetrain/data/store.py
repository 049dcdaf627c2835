"""Where a data set's files lie, and whether missing ones may be fetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .dataset import DataError
from .download import Progress, Remote, fetch


@dataclass(frozen=True)
class Store:
    """The folder of one data set.

    Attributes:
        folder: where its files lie or are put.
        download: whether a missing file is fetched.
        progress: told of downloads.
    """

    folder: Path
    download: bool = True
    progress: Progress | None = None

    def file(self, remote: Remote, *, also: Sequence[Path] = ()) -> Path:
        """Path of a file, fetched if it lies nowhere yet.

        Args:
            remote: the file on the web; its name is the one looked for in the folder.
            also: further places, looked at afterwards.
        Returns:
            path of the complete file.
        Raises:
            DataError: it lies nowhere and cannot or may not be fetched.
        """
        target = self.folder / remote.filename
        for place in (target, *also):
            if place.is_file():
                return place
        if not self.download:
            raise DataError(
                f"{target} is missing and downloading is off. "
                f"Put the file from {remote.url} there, or allow the download."
            )
        return fetch(remote, self.folder, progress=self.progress)


def default_root() -> Path:
    """The data folder: environment variable SPARSETRAIN_DATA, else ~/.cache/sparsetrain."""
    return Path(os.environ.get("SPARSETRAIN_DATA") or "~/.cache/sparsetrain").expanduser()
