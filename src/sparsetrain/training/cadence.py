"""How often a checkpoint is written: every so many steps, epochs or minutes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .errors import BadInput

_FORM = re.compile(r"(\d+(?:\.\d+)?)(it|ep|min)")


@dataclass(frozen=True)
class Cadence:
    """An interval.

    Attributes:
        count: above 0; whole for steps and epochs.
        unit: "it" optimizer steps, "ep" epochs, "min" minutes of wall clock.
    """

    count: float
    unit: Literal["it", "ep", "min"]


def parse(text: str) -> Cadence:
    """Read 500it, 1ep or 10min.

    Raises:
        BadInput: of another form, zero, or a part of a step or epoch.
    """
    match = _FORM.fullmatch(text.strip())
    count = float(match[1]) if match else 0.0
    unit = match[2] if match else ""
    if unit == "min" and count > 0:
        return Cadence(count, "min")
    if count < 1 or count % 1 or unit == "min":
        raise BadInput(
            f"checkpoint_every must be a number of steps, epochs or minutes above 0, "
            f"as 500it, 1ep or 10min, got {text!r}."
        )
    return Cadence(count, "it" if unit == "it" else "ep")


class Due:
    """Tells when the next checkpoint is due.

    Args:
        cadence: the interval.
        clock: seconds, never going back.
    """

    def __init__(self, cadence: Cadence, clock: Callable[[], float] = time.monotonic) -> None:
        self._cadence, self._clock = cadence, clock
        self._written = clock()

    def after_step(self, step: int) -> bool:
        """Whether one is due after optimizer step `step` of the run, from 1."""
        if self._cadence.unit == "it":
            return step % self._cadence.count == 0
        if self._cadence.unit == "min":
            return self._clock() - self._written >= 60 * self._cadence.count
        return False

    def after_epoch(self, epoch: int) -> bool:
        """Whether one is due after epoch `epoch` of the run, from 1."""
        return self._cadence.unit == "ep" and epoch % self._cadence.count == 0

    def written(self) -> None:
        """Note that one was written just now."""
        self._written = self._clock()
