"""In which order the rows of a program's steps are computed: in waves, where that saves traffic.

Step after step, an activation of 2 MB and more has left the second cache before the next step reads
it. In a wave several steps advance together, a few rows at a time, each just behind the one that
it reads. What a row's sums are made of, and in which order, stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .packed import Layout
from .program_memory import Rooms
from .program_steps import Conv, Flatten, Pool, Step

if TYPE_CHECKING:
    from .program import Program

BANDS = (2, 1)
"""Rows that a wave's steps with the most rows advance at a time; of equal waves the first."""
SHARE = 0.6
"""Part of the second cache that a wave may fill."""
LARGE = 0.6
"""Part of the second cache from which on a step's activations are large."""
TRIM = 2
"""Lengths of a wave to choose from: the longest that fits, and those just below it."""
USUAL = 1 << 20
"""Bytes of the second cache where the system does not say."""


class Piece(NamedTuple):
    """Rows [top, bottom) of the results of a step."""

    step: int
    top: int
    bottom: int


class Touch(NamedTuple):
    """Rows of a room that a step touches: its row y those from y * stride - up to + down."""

    room: int
    stride: int
    up: int
    down: int
    height: int


class Item(NamedTuple):
    """A step, as far as its order matters."""

    number: int
    rows: int
    reads: tuple[Touch, ...]
    writes: Touch
    weights: int  # bytes

    def read(self, top: int, bottom: int) -> Iterator[tuple[int, range]]:
        """The rooms and their rows that result rows [top, bottom) read."""
        for touch in self.reads:
            yield touch.room, range(_first(touch, top), _last(touch, bottom))


def order(program: Program, rooms: Rooms, room: int | None = None) -> tuple[Piece, ...]:
    """The pieces of all steps in an order that respects what each reads and overwrites.

    Args:
        room: bytes that a wave may keep in use; by default most of the second cache.
    """
    room = int(SHARE * second_cache()) if room is None else room
    bytes_ = [4 * layout.channels * layout.pitch for layout in rooms.layouts]
    items = [item(number, program, rooms) for number in range(len(program.steps))]
    large = [program.block > 1 and _is_large(step, program.buffers) for step in program.steps]
    crossing = _crossing(program)
    pieces: list[Piece] = []
    at = 0
    while at < len(items):
        ends = large.index(False, at) if False in large[at:] else len(items)
        waves = [_longest(items[at:ends], band, room, bytes_, crossing) for band in BANDS]
        wave = max(waves, key=_last_step) or [Piece(at, 0, items[at].rows)]
        pieces += wave
        at = _last_step(wave) + 1
    return tuple(pieces)


def _last_step(wave: Sequence[Piece]) -> int:
    return max((piece.step for piece in wave), default=-1)


def _longest(
    items: Sequence[Item],
    band: int,
    room: int,
    bytes_: Sequence[int],
    crossing: Sequence[int],
) -> list[Piece]:
    """The pieces of the longest wave of two steps or more that keeps within `room`; none if none.

    Of the `TRIM` longest, the one that ends where least is alive: behind a residual block, say.
    """
    waves: list[list[Piece]] = []
    for count in range(2, len(items) + 1):
        wave, live = _wave(items[:count], band, bytes_)
        if live > room:
            break
        waves.append(wave)
    # The longest first: of equal ones `min` takes it.
    return min(waves[: -1 - TRIM : -1], key=lambda w: crossing[_last_step(w)], default=[])


def _crossing(program: Program) -> list[int]:
    """Bytes of the buffers that are written up to each step and read after it."""
    sizes = [4 * x.channels * x.plane for x in program.buffers]
    alive, found = set(program.outputs), []
    for step in reversed(program.steps):
        found.append(sum(sizes[index] for index in alive))
        alive = (alive - {step.target}) | set(step.reads)
    return found[::-1]


@lru_cache(maxsize=1)
def second_cache() -> int:
    """Bytes of the second cache of this machine's first processor."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(text.rstrip("KM")) << (20 if text.endswith("M") else 10)
    except (OSError, ValueError):
        return USUAL


def _rows(step: Step, buffers: Sequence[Layout]) -> int:
    return buffers[step.source if isinstance(step, Flatten) else step.target].height


def _is_large(step: Step, buffers: Sequence[Layout]) -> bool:
    """Whether a step's activations would leave the cache before the next step reads them."""
    ends = (buffers[step.source], buffers[step.target])
    size = sum(4 * layout.channels * layout.plane for layout in ends)
    return not isinstance(step, Flatten) and size > LARGE * second_cache()


def item(number: int, program: Program, rooms: Rooms) -> Item:
    """What a step touches."""
    step, buffers = program.steps[number], program.buffers
    height = buffers[step.target].height
    stride, up, down, weights = 1, 0, 0, 0
    if isinstance(step, Conv):
        g = step.plan.geometry
        stride, up, down = g.stride, g.padding[0], g.kernel[0] - 1 - g.padding[0]
        weights = 8 * step.plan.kept
    elif isinstance(step, Pool):
        stride, up, down = step.stride[0], step.padding[0], step.kernel[0] - 1 - step.padding[0]
    elif isinstance(step, Flatten):
        down = buffers[step.source].height - 1
    source = Touch(rooms.of[step.source], stride, up, down, buffers[step.source].height)
    others = tuple(Touch(rooms.of[i], 1, 0, 0, height) for i in step.reads[1:])
    return Item(
        number, height, (source, *others), Touch(rooms.of[step.target], 1, 0, 0, height), weights
    )


def _last(touch: Touch, rows: int) -> int:
    """One beyond the last row touched by result rows below `rows`."""
    return 0 if rows == 0 else max(0, min(touch.height, (rows - 1) * touch.stride + touch.down + 1))


def _first(touch: Touch, row: int) -> int:
    """The first row that result rows from `row` on touch."""
    return max(0, min(touch.height, row * touch.stride - touch.up))


def _until(touch: Touch, row: int, rows: int) -> int:
    """How many result rows must be done so that no later one touches a row below `row`."""
    return max(0, min(rows, -(-(row + touch.up) // touch.stride)))


def _wave(items: Sequence[Item], band: int, bytes_: Sequence[int]) -> tuple[list[Piece], int]:
    """The items' pieces, and the most bytes in use between two uses of a row."""
    done, pieces, most = [0] * len(items), [], 0
    weights = sum(item.weights for item in items)

    def advance(index: int, rows: int) -> None:
        if done[index] >= rows:
            return
        for earlier in range(index):
            advance(earlier, _needed(items[earlier], items[index], rows))
        pieces.append(Piece(items[index].number, done[index], rows))
        done[index] = rows
        nonlocal most
        most = max(most, _live(items, done, bytes_))

    last = items[-1].rows
    step = max(1, band * last // max(item.rows for item in items))
    for rows in (*range(step, last, step), last):
        advance(len(items) - 1, rows)
    for index, item in enumerate(items):
        advance(index, item.rows)
    return pieces, most + weights


def _needed(earlier: Item, later: Item, rows: int) -> int:
    """Rows of the earlier step that the later one's first `rows` rows must find done."""
    need, written = 0, later.writes.room
    for read in later.reads:
        if read.room == earlier.writes.room:
            need = max(need, _last(read, rows))
    for touch in (*earlier.reads, earlier.writes):
        if touch.room == written:
            need = max(need, _until(touch, rows, earlier.rows))
    return min(need, earlier.rows)


def _live(items: Sequence[Item], done: Sequence[int], bytes_: Sequence[int]) -> int:
    """Bytes of rows that were touched and will be again."""
    return sum(bytes_[number] * max(0, high - low) for number, low, high in _windows(items, done))


def _windows(items: Sequence[Item], done: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Each room's rows from the first that will be touched to the last that has been."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for item, rows in zip(items, done, strict=True):
        for touch in (*item.reads, item.writes):
            low = touch.height if rows == item.rows else _first(touch, rows)
            spans.setdefault(touch.room, []).append((low, _last(touch, rows)))
    for place, found in spans.items():
        yield place, min(low for low, _ in found), max(high for _, high in found)
