"""The ways a run ends badly, and the sentence for a mistyped name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):  # noqa: N818 - reads as what it is at every raise
    """What was asked cannot be done: exit code 2, one sentence."""


class InUse(BadInput):
    """Another process trains in the run folder at the moment."""


class RunFailed(RuntimeError):  # noqa: N818
    """A run that was fine to start broke off: exit code 1, one sentence."""


class Diverged(RunFailed):
    """Its numbers became NaN or infinite: the settings' own doing, and no accident."""


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C or SIGTERM, after everything was left in order: one sentence.

    Attributes:
        code: the exit code, 130 or 143.
    """

    def __init__(self, sentence: str, code: int = 130) -> None:
        super().__init__(sentence)
        self.code = code


def unknown(what: str, name: str, known: Iterable[str], *, show: str = "") -> BadInput:
    """The error for a name that is not known, with the nearest one or all of them.

    Args:
        what: the kind of name, as in "model".
        name: what was given.
        known: every name allowed.
        show: the command that lists the names, as in "sparsetrain models".
    Returns:
        The exception, to be raised by the caller.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        hint = f"Did you mean {close[0]!r}?"
    elif show:
        hint = f"`{show}` lists them."
    else:
        hint = f"Allowed: {', '.join(names)}."
    return BadInput(f"unknown {what} {name!r}. {hint}")
