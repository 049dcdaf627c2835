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
from .program_memory import Memory
from .program_steps import Conv, Flatten, Pool, Step

if TYPE_CHECKING:
    from .program import Program

BANDS = (2, 1)
"""Rows that the steps with the most rows advance at a time; the first that fits is taken."""
SHARE = 0.8
"""Part of the second cache that a wave may fill."""
USUAL = 1 << 20
"""Bytes of the second cache where the system does not say."""


class Piece(NamedTuple):
    """Rows [top, bottom) of the results of a step."""

    step: int
    top: int
    bottom: int


class Touch(NamedTuple):
    """Rows of a place that a step touches: its row y those from y * stride - up to + down."""

    place: int
    stride: int
    up: int
    down: int
    height: int


class _Item(NamedTuple):
    """A step, as far as its order matters."""

    number: int
    rows: int
    reads: tuple[Touch, ...]
    writes: Touch
    weights: int  # bytes


def order(program: Program, memory: Memory, room: int | None = None) -> tuple[Piece, ...]:
    """The pieces of all steps in an order that respects what each reads and overwrites.

    Args:
        room: bytes that a wave may keep in use; by default most of the second cache.
    """
    room = int(SHARE * second_cache()) if room is None else room
    pieces: list[Piece] = []
    row_bytes: dict[int, int] = {}
    for place, layout in zip(memory.places, program.buffers, strict=True):
        row_bytes[place] = max(row_bytes.get(place, 0), 4 * layout.channels * layout.pitch)
    at = 0
    while at < len(program.steps):
        found = [_longest(at, band, program, memory, room, row_bytes) for band in BANDS]
        end, wave = max(found, key=lambda pair: pair[0])
        pieces += wave
        at = end
    return tuple(pieces)


def _longest(
    start: int,
    band: int,
    program: Program,
    memory: Memory,
    room: int,
    row_bytes: dict[int, int],
) -> tuple[int, list[Piece]]:
    """The longest wave from a step on that keeps within `room`: where it ends, and its pieces."""
    end, items = start + 1, []
    best = [Piece(start, 0, _rows(program.steps[start], program.buffers))]
    for number in range(start, len(program.steps) if program.block > 1 else start):
        if not _is_large(program.steps[number], program.buffers, room):
            break
        items.append(_item(number, program, memory))
        wave, live = _wave(items, band, row_bytes)
        if live > room:
            break
        if len(items) > 1:
            best, end = wave, number + 1
    return end, best


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


def _is_large(step: Step, buffers: Sequence[Layout], room: int) -> bool:
    """Whether a step's activations would leave the cache before the next step reads them."""
    ends = (buffers[step.source], buffers[step.target])
    return not isinstance(step, Flatten) and sum(4 * x.channels * x.plane for x in ends) > room


def _item(number: int, program: Program, memory: Memory) -> _Item:
    step, buffers, places = program.steps[number], program.buffers, memory.places
    height = buffers[step.target].height
    stride, up, down, weights = 1, 0, 0, 0
    if isinstance(step, Conv):
        g = step.plan.geometry
        stride, up, down = g.stride, g.padding[0], g.kernel[0] - 1 - g.padding[0]
        weights = 8 * step.plan.kept
    elif isinstance(step, Pool):
        stride, up, down = step.stride[0], step.padding[0], step.kernel[0] - 1 - step.padding[0]
    source = Touch(places[step.source], stride, up, down, buffers[step.source].height)
    others = tuple(Touch(places[i], 1, 0, 0, height) for i in step.reads[1:])
    return _Item(
        number, height, (source, *others), Touch(places[step.target], 1, 0, 0, height), weights
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


def _wave(items: Sequence[_Item], band: int, row_bytes: dict[int, int]) -> tuple[list[Piece], int]:
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
        most = max(most, _live(items, done, row_bytes))

    last = items[-1].rows
    step = max(1, band * last // max(item.rows for item in items))
    for rows in (*range(step, last, step), last):
        advance(len(items) - 1, rows)
    for index, item in enumerate(items):
        advance(index, item.rows)
    return pieces, most + weights


def _needed(earlier: _Item, later: _Item, rows: int) -> int:
    """Rows of the earlier step that the later one's first `rows` rows must find done."""
    need, written = 0, later.writes.place
    for read in later.reads:
        if read.place == earlier.writes.place:
            need = max(need, _last(read, rows))
    for touch in (*earlier.reads, earlier.writes):
        if touch.place == written:
            need = max(need, _until(touch, rows, earlier.rows))
    return min(need, earlier.rows)


def _live(items: Sequence[_Item], done: Sequence[int], row_bytes: dict[int, int]) -> int:
    """Bytes of rows that were touched and will be again."""
    return sum(row_bytes[place] * max(0, high - low) for place, low, high in _windows(items, done))


def _windows(items: Sequence[_Item], done: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Each place's rows from the first that will be touched to the last that has been."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for item, rows in zip(items, done, strict=True):
        for touch in (*item.reads, item.writes):
            low = touch.height if rows == item.rows else _first(touch, rows)
            spans.setdefault(touch.place, []).append((low, _last(touch, rows)))
    for place, found in spans.items():
        yield place, min(low for low, _ in found), max(high for _, high in found)
