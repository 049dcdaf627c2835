"""Where a program's buffers lie in the arena of one block of images.

Only buffers whose planes lie alike share a place: the halo, zero from the start, then stays zero
without being cleared in every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from .packed import SLACK, Layout
from .program_steps import Add, Affine, Conv, Step

if TYPE_CHECKING:
    from .program import Program

LINE = 16
"""Floats of a cache line."""


@dataclass(frozen=True)
class Memory:
    """The plan.

    Attributes:
        places: floats from the arena's start to each buffer's first entry, halo included; -1 for
            one that is never written.
        scratch: where a convolution may lay its input out anew.
        floats: of the arena.
    """

    places: tuple[int, ...]
    scratch: int
    floats: int


def plan(program: Program) -> Memory:
    """Give every buffer a place for the steps in which it is alive."""
    last = _last_uses(program)
    rooms: list[Layout] = []  # a place: of the most channels that lie there
    free: dict[Layout, list[int]] = {}
    taken = [-1] * len(program.buffers)

    def claim(index: int) -> None:
        if taken[index] >= 0:
            return
        layout = program.buffers[index]
        able = free.setdefault(_alike(layout), [])
        if not able:
            able.append(len(rooms))
            rooms.append(layout)
        # The room that fits best, else the widest, so that little is added.
        able.sort(key=lambda room: rooms[room].channels)
        fits = [room for room in able if rooms[room].channels >= layout.channels]
        room = fits[0] if fits else able[-1]
        able.remove(room)
        taken[index] = room
        rooms[room] = max(rooms[room], layout, key=lambda x: x.channels)

    def release(indices: Iterable[int]) -> None:
        for index in indices:
            free.setdefault(_alike(program.buffers[index]), []).append(taken[index])

    for index in program.inputs:
        claim(index)
    for number, step in enumerate(program.steps):
        dying = {index for index in (*step.reads, step.target) if last[index] == number}
        early = dying & set(_replaceable(step, program.buffers))
        release(sorted(early))
        claim(step.target)
        release(sorted(dying - early))
    starts = list(accumulate((_lines(x.channels * x.plane + SLACK) for x in rooms), initial=0))
    floats = starts[-1]
    places = tuple(-1 if room < 0 else starts[room] for room in taken)
    scratch = max((_split_floats(step) for step in program.steps), default=0)
    return Memory(places, floats, floats + _lines(scratch + SLACK))


def _alike(layout: Layout) -> Layout:
    """What layouts that may share a place have in common: all but the number of channels."""
    return replace(layout, channels=1)


def _last_uses(program: Program) -> list[int]:
    """The last step that reads or writes each buffer; outputs live beyond the end."""
    last = [-1] * len(program.buffers)
    for number, step in enumerate(program.steps):
        for index in (*step.reads, step.target):
            last[index] = number
    for index in program.outputs:
        last[index] = len(program.steps)
    return last


def _replaceable(step: Step, buffers: Sequence[Layout]) -> tuple[int, ...]:
    """What a step reads only where it writes: its result may take that place."""
    if step.target in step.reads:
        return ()
    if isinstance(step, Conv):
        alone = step.residual is not None and step.residual != step.source
        return (step.residual,) if alone and step.residual is not None else ()
    if isinstance(step, Add | Affine):
        return tuple(index for index in step.reads if buffers[index] == buffers[step.target])
    return ()


def _split_floats(step: Step) -> int:
    """Room for an input split in phases, as blocks of one image need for a stride."""
    if not isinstance(step, Conv):
        return 0
    channels, split, plane = step.plan.work.sizes[2:5]
    return channels * split * split * plane if split > 1 else 0


def _lines(floats: int) -> int:
    return -(-floats // LINE) * LINE
