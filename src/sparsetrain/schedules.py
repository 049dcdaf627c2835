"""Values over optimizer steps: constant, linear, cosine, cubic, geometric; and when to update."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from .types import Schedule


@dataclass(frozen=True)
class _Constant:
    value: float

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class _Ramp(ABC):
    """From `initial` to `final` between two steps; a kind says how. Both ends are hit exactly."""

    initial: float
    final: float
    start: int
    stop: int

    def __post_init__(self) -> None:
        _check_numbers(initial=self.initial, final=self.final)
        _check_window(self.start, self.stop)

    def __call__(self, step: int) -> float:
        if step >= self.stop:
            return self.final
        if step <= self.start:
            return self.initial
        return self._between((step - self.start) / (self.stop - self.start))

    @abstractmethod
    def _between(self, u: float) -> float:
        """The value at the fraction `u` of the way, 0 < u < 1."""


class _Linear(_Ramp):
    def _between(self, u: float) -> float:
        return self.initial + (self.final - self.initial) * u


class _Cosine(_Ramp):
    def _between(self, u: float) -> float:
        return self.final + (self.initial - self.final) * (1 + math.cos(math.pi * u)) / 2


class _Cubic(_Ramp):
    def _between(self, u: float) -> float:
        return self.final + (self.initial - self.final) * (1 - u) ** 3


class _Geometric(_Ramp):
    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("initial", self.initial), ("final", self.final)):
            if value <= 0:
                raise ValueError(
                    f"{name} must be above 0 for a geometric schedule, got {value}. "
                    "Use linear or cubic to reach 0."
                )

    def _between(self, u: float) -> float:
        return self.initial * (self.final / self.initial) ** u


def constant(value: float) -> Schedule:
    """The same value at every step.

    Raises:
        ValueError: the value is not finite.
    """
    _check_numbers(value=value)
    return _Constant(value)


def linear(initial: float, final: float, start: int, stop: int) -> Schedule:
    """A straight line from `initial` at step `start` to `final` at step `stop`, flat outside.

    Args:
        initial: value up to and at `start`.
        final: value at `stop` and after, exactly.
        start: optimizer step.
        stop: optimizer step, at least `start`; equal steps make a jump.

    Returns:
        step -> value; picklable, and equal to another of the same arguments.

    Raises:
        ValueError: a value that is not finite, or stop < start.
    """
    return _Linear(initial, final, start, stop)


def cosine(initial: float, final: float, start: int, stop: int) -> Schedule:
    """Half a cosine wave: final + (initial - final)(1 + cos(pi u)) / 2, u from 0 to 1.

    Args:
        initial: value up to and at `start`.
        final: value at `stop` and after, exactly.
        start: optimizer step where u = 0.
        stop: optimizer step where u = 1, at least `start`.

    Returns:
        step -> value; picklable, and equal to another of the same arguments.

    Raises:
        ValueError: a value that is not finite, or stop < start.

    Source: Dettmers & Zettlemoyer 2019, arXiv 1907.04840. Deviates: stays at `final` after `stop`,
    where the recursion of PyTorch's CosineAnnealingLR rises again.
    """
    return _Cosine(initial, final, start, stop)


def cubic(initial: float, final: float, start: int, stop: int) -> Schedule:
    """Fast first, slow last: final + (initial - final)(1 - u)^3, u from 0 to 1.

    Args:
        initial: value up to and at `start`, usually a sparsity.
        final: value at `stop` and after, exactly.
        start: optimizer step where u = 0.
        stop: optimizer step where u = 1, at least `start`.

    Returns:
        step -> value; picklable, and equal to another of the same arguments.

    Raises:
        ValueError: a value that is not finite, or stop < start.

    Source: Zhu & Gupta 2017, arXiv 1710.01878, eq. 1. Deviates: the step is clamped to
    [start, stop], so the end point is hit exactly.
    """
    return _Cubic(initial, final, start, stop)


def geometric(initial: float, final: float, start: int, stop: int) -> Schedule:
    """Equal ratios in equal times: initial * (final / initial)^u, u from 0 to 1.

    Args:
        initial: value up to and at `start`, above 0.
        final: value at `stop` and after, exactly; above 0.
        start: optimizer step where u = 0.
        stop: optimizer step where u = 1, at least `start`.

    Returns:
        step -> value; picklable, and equal to another of the same arguments.

    Raises:
        ValueError: a value that is not finite and above 0, or stop < start.
    """
    return _Geometric(initial, final, start, stop)


@dataclass(frozen=True)
class Every:
    """Whether a step is one to update at: each multiple of `interval` in [start, stop], and stop.

    Attributes:
        interval: steps between two updates, at least 1.
        start: first step that may be one; 0 is before training.
        stop: last one, always an update, so that a schedule's end point is reached.

    Raises:
        ValueError: interval < 1, start < 0 or stop < start.
    """

    interval: int
    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"interval must be a number of steps >= 1, got {self.interval}.")
        _check_window(self.start, self.stop)

    def __call__(self, step: int) -> bool:
        """Whether optimizer step `step` is one of them."""
        if step == self.stop:
            return True
        return self.start <= step < self.stop and step % self.interval == 0


def default_interval(total_steps: int) -> int:
    """Steps between two mask updates where nobody says: a hundred, or a twentieth of a short run.

    Args:
        total_steps: optimizer steps of the whole training.

    Returns:
        At least 1, at most 100.
    """
    return min(100, max(1, total_steps // 20))


def _check_numbers(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}.")


def _check_window(start: int, stop: int) -> None:
    if start < 0:
        raise ValueError(f"start must be an optimizer step >= 0, got {start}.")
    if stop < start:
        raise ValueError(f"stop must be at or after start, got start={start}, stop={stop}.")
