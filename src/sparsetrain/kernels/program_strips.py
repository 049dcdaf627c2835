"""In which order the rows of a program's steps are made.

Step by step, large activations leave the second cache before the next step reads them. So short
stretches of steps run row by row instead: a row is made as soon as the rows that it reads are
there, and before further rows of the earlier steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .packed import Layout
from .program_memory import Memory
from .program_steps import Conv, Flatten, Pool, Step

if TYPE_CHECKING:
    from .program import Program

SECOND_CACHE = 768 * 1024
"""Bytes of rows that a stretch may keep in use."""


class Strip(NamedTuple):
    """Rows [top, bottom) of what a step writes."""

    step: int
    top: int
    bottom: int


@dataclass(frozen=True)
class _Reach:
    """Output row y of a step reads the input rows from y * stride - above on, `count` of them."""

    stride: int
    above: int
    count: int


def order(program: Program, memory: Memory) -> list[Strip]:
    """All rows of all steps, each once, in an order that keeps every step's inputs intact."""
    strips: list[Strip] = []
    for stretch in _stretches(program):
        if len(stretch) == 1:
            step = program.steps[stretch[0]]
            strips.append(Strip(stretch[0], 0, _rows(step, program.buffers)))
        else:
            strips += _Weaving(program, memory, stretch).strips()
    return strips


def _stretches(program: Program) -> list[list[int]]:
    """Neighbouring steps that together keep few rows in use; most stand alone."""
    stretches: list[list[int]] = []
    used = 0
    for number, step in enumerate(program.steps):
        large = _fits_rows(step, program) and _worth(step, program.buffers)
        needed = _in_use(step, program.buffers) if large else SECOND_CACHE + 1
        if stretches and used + needed <= SECOND_CACHE:
            stretches[-1].append(number)
            used += needed
        else:
            stretches.append([number])
            used = needed
    return stretches


def _fits_rows(step: Step, program: Program) -> bool:
    """Whether a step can make some rows without the rest."""
    splits = isinstance(step, Conv) and step.plan.work.sizes[3] > 1
    return not isinstance(step, Flatten) and not splits


def _worth(step: Step, buffers: Sequence[Layout]) -> bool:
    """Whether the step's buffers do not stay in the cache as a whole."""
    ends = (buffers[step.source], buffers[step.target])
    return sum(4 * x.channels * x.plane for x in ends) > SECOND_CACHE


def _in_use(step: Step, buffers: Sequence[Layout]) -> int:
    """Bytes of the rows that a step reads for its next rows, and of these."""
    source, target, reach = buffers[step.source], buffers[step.target], _reach(step)
    read = (reach.count + (_height(step) - 1) * reach.stride) * source.channels * source.pitch
    return 4 * (read + _height(step) * target.channels * target.pitch)


def _height(step: Step) -> int:
    """Rows made at a time."""
    return step.plan.work.conv[-1] if isinstance(step, Conv) else 1


def _rows(step: Step, buffers: Sequence[Layout]) -> int:
    return buffers[step.source if isinstance(step, Flatten) else step.target].height


def _reach(step: Step) -> _Reach:
    if isinstance(step, Conv):
        entries = step.plan.entries
        return _Reach(step.plan.geometry.stride, entries.padding, entries.taps)
    if isinstance(step, Pool):
        return _Reach(step.stride[0], step.padding[0], step.kernel[0])
    return _Reach(1, 0, 1)


class _Weaving:
    """One stretch: how many rows of each step are done, and what may be made next."""

    def __init__(self, program: Program, memory: Memory, stretch: Sequence[int]) -> None:
        self._program, self._memory, self._stretch = program, memory, stretch
        self._done = dict.fromkeys(stretch, 0)

    def strips(self) -> list[Strip]:
        """Always the latest step that can go on; the earliest unfinished one always can."""
        strips: list[Strip] = []
        while True:
            strip = next(filter(None, map(self._next, reversed(self._stretch))), None)
            if strip is None:
                return strips
            self._done[strip.step] = strip.bottom
            strips.append(strip)

    def _next(self, number: int) -> Strip | None:
        step = self._program.steps[number]
        top, rows = self._done[number], _rows(step, self._program.buffers)
        bottom = min(rows, top + _height(step))
        strip = Strip(number, top, bottom)
        return strip if top < rows and self._may(strip) else None

    def _may(self, strip: Strip) -> bool:
        """Whether what is read has been written, and what is overwritten is read no more."""
        step, places = self._program.steps[strip.step], self._memory.places
        for earlier in self._stretch:
            if earlier >= strip.step:
                return True
            before, done = self._program.steps[earlier], self._done[earlier]
            if done == _rows(before, self._program.buffers):
                continue
            written = places[before.target]
            for index in step.reads:
                if places[index] == written and done < _last_read(step, index, strip.bottom):
                    return False
            if written == places[step.target] and done < strip.bottom:
                return False
            for index in before.reads:
                overwritten = places[index] == places[step.target]
                if overwritten and _first_read(before, index, done) < strip.bottom:
                    return False
        return True


def _last_read(step: Step, index: int, bottom: int) -> int:
    """One more than the last row of a buffer that rows below `bottom` read."""
    if index != step.source:
        return bottom
    reach, rows = _reach(step), (bottom - 1)
    return max(rows * reach.stride - reach.above + reach.count, 0)


def _first_read(step: Step, index: int, top: int) -> int:
    """The first row of a buffer that rows from `top` on read."""
    if index != step.source:
        return top
    reach = _reach(step)
    return top * reach.stride - reach.above
