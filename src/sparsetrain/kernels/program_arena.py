"""Where the rooms of a program lie in the arena of one block of images, and which are rings.

Where steps advance in waves, few rows of a room are in use at a time. Such a room lies row by row,
[row][channel][column][image], and its rows share memory like those of a ring buffer: row y lies
where row y - period lay. The processor's page table does that, so a kernel sees a whole plane. What
is written is then still in the second cache when it is read, and when it is written over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, NamedTuple

from . import program_waves
from .packed import SLACK, Layout
from .program_memory import Rooms
from .program_steps import Conv, Step
from .program_waves import Piece

if TYPE_CHECKING:
    from .program import Program

LINE = 16
"""Floats of a cache line."""
PAGE = 1024
"""Floats of a page of memory; on a machine with larger ones there are no rings."""
APART = 256
"""Rows of a ring are an odd number of these floats apart, so that few share a set of the cache."""
GAIN = 1 << 16
"""Floats that a ring must save."""


class Lie(NamedTuple):
    """How a buffer lies, in floats."""

    start: int  # of its first entry, halo included; -1 for one that is never written
    plane: int  # from one channel to the next
    row: int

    def inner(self, layout: Layout) -> int:
        """The first entry inside the halo."""
        return self.start + layout.halo * (self.row + layout.block)


class Ring(NamedTuple):
    """`whole` floats from `start` on, of which every `period` are the same memory; whole pages."""

    start: int
    period: int
    whole: int


@dataclass(frozen=True)
class Arena:
    """The plan.

    Attributes:
        lies: of each buffer.
        rings: of rooms, one behind the other.
        scratch: where a convolution may lay its input out anew.
        floats: of all.
    """

    lies: tuple[Lie, ...]
    rings: tuple[Ring, ...]
    scratch: int
    floats: int


def plan(program: Program, rooms: Rooms, pieces: Sequence[Piece]) -> Arena:
    """Lay the rooms out for pieces that one thread computes in this order."""
    periods = _periods(program, rooms, pieces)
    found: dict[int, Lie] = {-1: Lie(-1, 0, 0)}
    rings: list[Ring] = []
    at = 0
    for number, layout in enumerate(rooms.layouts):
        if number not in periods:
            found[number] = Lie(at, layout.plane, layout.pitch)
            at += _up(layout.channels * layout.plane + SLACK, LINE)
    scratch = at
    at += _up(max(map(_split_floats, program.steps), default=0) + SLACK, LINE)
    for number, period in periods.items():
        layout, row = rooms.layouts[number], _row(rooms.layouts[number])
        first = _up(at, PAGE) + _up(layout.halo * row, PAGE)
        found[number] = Lie(first - layout.halo * row, layout.pitch, row)
        rings.append(Ring(first, period * row, layout.height * row))
        at = first + layout.height * row + _up(layout.halo * row + SLACK, PAGE)
    lies = tuple(found[number] for number in rooms.of)
    return Arena(lies, tuple(rings), scratch, _up(at, PAGE))


def _periods(program: Program, rooms: Rooms, pieces: Sequence[Piece]) -> dict[int, int]:
    """Rows of each room that is worth a ring."""
    items = [program_waves.item(number, program, rooms) for number in range(len(program.steps))]
    uses: list[list[_Use]] = [[] for _ in rooms.layouts]
    for piece in pieces:
        item = items[piece.step]
        touched: dict[int, _Use] = {}
        for room, rows in item.read(piece.top, piece.bottom):
            touched.setdefault(room, _Use()).reads.update(rows)
        touched.setdefault(item.writes.room, _Use()).writes = range(piece.top, piece.bottom)
        for room, use in touched.items():
            uses[room].append(use)
    fixed = {rooms.of[index] for index in (*program.inputs, *program.outputs)}
    found: dict[int, int] = {}
    for number, layout in enumerate(rooms.layouts):
        row = _row(layout)
        step = PAGE // gcd(PAGE, row)
        most = layout.height - 1 - GAIN // row
        periods = range(step, most + 1, step) if number not in fixed and layout.block > 1 else ()
        period = next((p for p in periods if _suffices(p, uses[number])), None)
        if period is not None:
            found[number] = period
    return found


class _Use:
    """Rows of a room that a piece reads and writes."""

    def __init__(self) -> None:
        self.reads: set[int] = set()
        self.writes: Iterable[int] = ()


def _suffices(period: int, uses: Sequence[_Use]) -> bool:
    """Whether each row that is read still holds what was written there, with a ring this short."""
    held: dict[int, int] = {}
    for use in uses:
        rows = use.reads.union(use.writes)
        if len({row % period for row in rows}) < len(rows):
            return False  # within a piece, reads and writes have no order
        if any(held.get(row % period) != row for row in use.reads):
            return False
        held.update((row % period, row) for row in use.writes)
    return True


def _row(layout: Layout) -> int:
    """Floats from a row of a ring to the next: all rows together fill whole pages."""
    apart = max(APART, PAGE // gcd(PAGE, layout.height))
    count = -(-layout.channels * layout.pitch // apart)
    return (count | 1) * apart


def _split_floats(step: Step) -> int:
    """Room for an input split in phases, as blocks of one image need for a stride."""
    if not isinstance(step, Conv):
        return 0
    channels, split, plane = step.plan.work.sizes[2:5]
    return channels * split * split * plane if split > 1 else 0


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit
