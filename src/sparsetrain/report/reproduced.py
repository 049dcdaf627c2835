"""A published table and our runs of it as one page: both numbers, difference, what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from ..experiments.reproduce import show
from ..experiments.reproduce.outcome import Outcome
from ..experiments.reproduce.tables import Scale
from ..experiments.reproduce.tables import Table as Wanted
from .chart import Chart, Color, Figure, Series
from .html import document, figure_section, table_block
from .table import Cell, Table

_Pair = tuple[float | None, float | None]  # ours, published
_INTRO = (
    "Every cell of the table, beside the numbers of the texts named below; a dash is a number that "
    "nobody has published, or a cell that has not been run. Click a heading to sort."
)
_ACCURACY = (
    "Points with lines are ours, bars one standard deviation over seeds (n − 1) up and down; rings "
    "are the published numbers."
)
_ELSEWHERE = " Those are of other data and another network: {}."
_COST = (
    "Accuracy less that of a dense network: ours less our dense one, a published number "
    "less the dense one of its own text. What has no dense number beside it is left out."
)


def reproduced_page(wanted: Wanted, found: Sequence[Outcome], scale: Scale) -> str:
    """The page's text; it needs nothing from the network.

    Args:
        wanted: the table.
        found: an outcome for each of its cells.
        scale: of our runs.
    """
    figures = reproduced_figures(found, scale)
    marks = show.marks(found)
    tables = "".join(
        f"<h3>{escape(show.heading(block[0]))}</h3>"
        f"{table_block(_rows(block, marks), f'cells-{place}')}"
        for place, block in enumerate(_problems(found), 1)
    )
    cells = (
        f'<section id="results"><h2>Every cell</h2><p class="intro">{escape(_INTRO)}</p>'
        f"{tables}</section>"
    )
    foot = "".join(f"<li>{escape(line)}</li>" for line in show.foot(wanted, found, scale, marks))
    return document(
        wanted.title,
        facts=f"{wanted.name}, {wanted.paper}, scale {scale}: {show.states(found)}.",
        links=[*((figure.key, figure.title) for figure in figures), ("results", "Every cell")],
        main="\n".join([*map(figure_section, figures), cells]),
        foot=f"<h2>Sources and notes</h2><ul>{foot}</ul>",
    )


def reproduced_figures(found: Sequence[Outcome], scale: Scale) -> list[Figure]:
    """Accuracy against sparsity, and at the smaller scales what sparsity costs; a panel a problem.

    Args:
        found: the outcomes of a table.
        scale: of our runs.
    """
    blocks = [block for block in _problems(found) if any(not o.cell.dense for o in block)]
    text = _ACCURACY
    if scale != "full":
        text += _ELSEWHERE.format("; ".join(block[0].cell.instead for block in blocks))
    accuracy = _panels(blocks, "test accuracy (%)", _accuracies)
    figures = [Figure("accuracy", "Accuracy against sparsity", text, accuracy)] if accuracy else []
    if scale != "full":
        dense = {o.cell.problem: o.ours.mean for o in found if o.cell.dense and o.ours is not None}

        def costs(o: Outcome) -> _Pair:
            ours, there = _accuracies(o)
            own, control = dense.get(o.cell.problem), o.cell.control
            return (
                None if ours is None or own is None else ours - own,
                None if there is None or control is None else there - control.top1,
            )

        panels = _panels(blocks, "accuracy less dense (points)", costs)
        figures += [Figure("cost", "What sparsity costs", _COST, panels)] if panels else []
    return figures


def _problems(found: Sequence[Outcome]) -> list[list[Outcome]]:
    blocks: dict[str, list[Outcome]] = {}
    for outcome in found:
        blocks.setdefault(outcome.cell.problem, []).append(outcome)
    return list(blocks.values())


def _rows(block: Sequence[Outcome], marks: dict[str, str]) -> Table:
    head = (*(f"{name}{' (%)' if name in show.PERCENT else ''}" for name in show.HEAD), "epochs")
    rows = []
    for o in block:
        epochs = o.cell.runs[0].config.optim.epochs if o.cell.runs else None
        values = (
            *(o.cell.line, o.cell.sparsity),
            o.cell.published[0].top1 if o.cell.published else None,
            None if o.ours is None else o.ours.mean,
            *(o.difference, o.state, epochs),
        )
        texts = (*show.row(o, marks), "-" if epochs is None else str(epochs))
        rows.append(tuple(map(Cell, texts, values)))
    return Table(head, tuple(rows))


def _accuracies(o: Outcome) -> _Pair:
    there = o.cell.published[0].top1 if o.cell.published else None
    return None if o.ours is None else o.ours.mean, there


def _panels(
    blocks: Sequence[Sequence[Outcome]], label: str, of: Callable[[Outcome], _Pair]
) -> tuple[Chart, ...]:
    """A panel for each problem of which there is a number."""
    names = dict.fromkeys(o.cell.line for block in blocks for o in block if not o.cell.dense)
    colors: dict[str, Color] = {name: place for place, name in enumerate(names)}
    charts = []
    for block in blocks:
        lines = [
            s for n in names for s in _line([o for o in block if o.cell.line == n], colors[n], of)
        ]
        if lines:
            ticks = tuple(sorted({x for series in lines for x in series.x}))
            levels = [_level("dense", ticks[0], 0.0, None)]
            if of is _accuracies:
                levels = _levels([o for o in block if o.cell.dense], ticks[0], len(names))
            charts.append(
                Chart(
                    show.heading(block[0]),
                    "zeros",
                    label,
                    (*lines, *levels),
                    x_scale="zeros",
                    x_ticks=ticks,
                    dodge=True,
                )
            )
    return tuple(charts)


def _line(cells: Sequence[Outcome], color: Color, of: Callable[[Outcome], _Pair]) -> list[Series]:
    """Of one method: ours, and the published numbers as rings."""
    ours = [(o.cell.sparsity, y, _ours_sd(o)) for o in cells if (y := of(o)[0]) is not None]
    there = [(o.cell.sparsity, y, _their_sd(o)) for o in cells if (y := of(o)[1]) is not None]
    found = []
    if ours:
        x, y, spread = map(list, zip(*ours, strict=True))
        found.append(Series(cells[0].cell.line, x, y, spread, color, "both"))
    if there:
        x, y, spread = map(list, zip(*there, strict=True))
        name, rings = f"{cells[0].cell.line}, published", tuple(range(len(x)))
        # The legend has a method once.
        found.append(Series(name, x, y, spread, color, "points", hollow=rings, listed=not ours))
    return found


def _levels(dense: Sequence[Outcome], x: float, colors: int) -> list[Series]:
    """Accuracy of the dense networks: ours in the text's colour, the published one in the next."""
    found = []
    for o in dense:
        ours, there = _accuracies(o)
        for name, y, color in ((o.cell.line, ours, None), ("published dense", there, colors)):
            if y is not None:
                found.append(_level(name, x, y, color))
    return found


def _level(name: str, x: float, y: float, color: Color) -> Series:
    return Series(name, (x,), (y,), color=color, dashed=True, level=True)


def _ours_sd(o: Outcome) -> float:
    return 0.0 if o.ours is None or o.ours.sd is None else o.ours.sd


def _their_sd(o: Outcome) -> float:
    return o.cell.published[0].sd or 0.0
