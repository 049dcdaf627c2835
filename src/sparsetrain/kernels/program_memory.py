"""Which of a program's buffers share a room of the arena of one block of images.

Only buffers whose planes lie alike do: the halo, zero from the start, then stays zero without being
cleared in every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .packed import Layout
from .program_steps import Add, Affine, Conv, Step

if TYPE_CHECKING:
    from .program import Program


@dataclass(frozen=True)
class Rooms:
    """The plan.

    Attributes:
        of: number of each buffer's room; -1 for one that is never written.
        layouts: of each room: that of its buffers, with the most channels of all.
    """

    of: tuple[int, ...]
    layouts: tuple[Layout, ...]


def plan(program: Program) -> Rooms:
    """Give every buffer a room for the steps in which it is alive."""
    last = _last_uses(program)
    rooms: list[Layout] = []
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
        # An input comes whole, so that its room could not be a ring for others.
        for index in set(indices).difference(program.inputs):
            free.setdefault(_alike(program.buffers[index]), []).append(taken[index])

    for index in program.inputs:
        claim(index)
    for number, step in enumerate(program.steps):
        dying = {index for index in (*step.reads, step.target) if last[index] == number}
        early = dying & set(_replaceable(step, program.buffers))
        release(sorted(early))
        claim(step.target)
        release(sorted(dying - early))
    return Rooms(tuple(taken), tuple(rooms))


def _alike(layout: Layout) -> Layout:
    """What layouts that may share a room have in common: all but the number of channels."""
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
    """What a step reads only where it writes: its result may take that room."""
    if step.target in step.reads:
        return ()
    if isinstance(step, Conv):
        alone = step.residual is not None and step.residual != step.source
        return (step.residual,) if alone and step.residual is not None else ()
    if isinstance(step, Add | Affine):
        return tuple(index for index in step.reads if buffers[index] == buffers[step.target])
    return ()
