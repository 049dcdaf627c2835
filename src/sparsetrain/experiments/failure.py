"""A note beside the folder of a run whose settings made it fail, until it is tried anew."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_ENDING = ".failed"


def note(folder: Path, sentence: str) -> None:
    """Say that the run fails by its own settings, and how; on a full disk nothing is said.

    Beside the folder, for a run that cannot be built has none.
    """
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _beside(folder).write_text(sentence + "\n", encoding="utf-8")


def forget(folder: Path) -> None:
    """The run is tried again: what is known of the last time counts no more."""
    with suppress(OSError):
        _beside(folder).unlink()


def known(folder: Path) -> str:
    """What went wrong with the run when it was last tried; empty where nothing is known."""
    try:
        return _beside(folder).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _beside(folder: Path) -> Path:
    return folder.with_name(folder.name + _ENDING)
