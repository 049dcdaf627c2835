"""Where values stand on an axis, and which of them are written there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .chart import Scale


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        scale: of it.
        low: value at `start`.
        high: value at `stop`.
        start: coordinate.
        stop: coordinate.
    """

    scale: Scale
    low: float
    high: float
    start: float
    stop: float

    def place(self, value: float) -> float:
        """The coordinate of a value; values beyond the ends stand beyond them."""
        to = _transform(self.scale)
        low, high = to(self.low), to(self.high)
        share = (to(value) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.stop - self.start)


def fitted(
    values: Sequence[float],
    scale: Scale,
    *,
    start: float,
    stop: float,
    wanted: tuple[float, float] | None = None,
    room: float = 0.04,
) -> Axis:
    """An axis on which all values have a place.

    Args:
        values: finite ones are looked at; on a log scale, those above 0. Where there are none, the
            axis is that of 0 and 1, a log one of 1 and 10.
        wanted: ends that it has at least; None for none.
        room: share of the axis left free beyond the outermost values, where nothing is wanted.
    """
    found = [v for v in values if math.isfinite(v) and (scale != "log" or v > 0)]
    found = found or ([1.0, 10.0] if scale == "log" else [0.0, 1.0])
    low, high = min(found), max(found)
    if wanted is not None:
        return Axis(scale, min(low, wanted[0]), max(high, wanted[1]), start, stop)
    to, back = _transform(scale), _inverse(scale)
    first, last = to(low), to(high)
    spare = room * (last - first) or (0.15 if scale != "linear" else abs(first) * 0.05 or 0.5)
    return Axis(scale, back(first - spare), back(last + spare), start, stop)


def ticks(axis: Axis, wanted: int = 5, *, whole: bool = False) -> list[float]:
    """Round values within the axis, about as many as wanted; with `whole`, integers alone."""
    if axis.scale == "log":
        return _log_ticks(axis.low, axis.high, wanted)
    if axis.scale == "zeros":
        usual = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
        return [v for v in usual if axis.low <= v <= axis.high]
    return _even_ticks(axis.low, axis.high, wanted, whole=whole)


def written(value: float, scale: Scale) -> str:
    """A tick's text."""
    if scale == "zeros":
        return f"{100 * value:.6g} %"
    if value == 0:
        return "0"
    size = abs(value)
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.4g}{unit}"
    if size < 1e-3:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.6g}"


def thinned(
    places: Sequence[float], widths: Sequence[float], *, gap: float = 8, ends: tuple[float, float]
) -> list[int]:
    """Indices of the labels that can stand side by side.

    Args:
        places: of their middles, in any direction.
        widths: of their texts.
        gap: between two of them.
        ends: where the first may begin and the last must end.
    """
    kept: list[int] = []
    order = sorted(range(len(places)), key=lambda i: places[i])
    edge = ends[0] - gap
    for index in order:
        left, right = places[index] - widths[index] / 2, places[index] + widths[index] / 2
        if left >= edge + gap - 1e-9 and right <= ends[1]:
            kept.append(index)
            edge = right
    return kept


def _transform(scale: Scale) -> Callable[[float], float]:
    if scale == "log":
        return lambda v: math.log10(v) if v > 0 else -math.inf
    if scale == "zeros":
        return lambda v: -math.log10(max(1 - v, 1e-12))
    return float


def _inverse(scale: Scale) -> Callable[[float], float]:
    if scale == "log":
        return lambda t: 10**t
    if scale == "zeros":
        return lambda t: 1 - 10**-t
    return float


def _log_ticks(low: float, high: float, wanted: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**e for e in range(first, last + 1) for m in steps]
        found = [round(v, 15) for v in found if low * 0.999 <= v <= high * 1.001]
        if len(found) <= wanted + 1:
            break
    else:
        found = found[:: math.ceil(len(found) / wanted)]
    return found if len(found) > 1 else _even_ticks(low, high, wanted)


def _even_ticks(low: float, high: float, wanted: int, *, whole: bool = False) -> list[float]:
    step = _round_step((high - low) / max(wanted, 1))
    step = max(1.0, math.floor(step)) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _round_step(step: float) -> float:
    if step <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * 0.999)
