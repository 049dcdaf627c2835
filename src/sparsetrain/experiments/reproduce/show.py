"""A table as text, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .outcome import Outcome
from .published import sources
from .tables import Scale, Table

# The field of a record that "ours" is -> its mark in the table, and what the foot says of it.
_STATISTICS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "test_accuracy": ("", "ours: test accuracy after the last epoch"),
        "test_accuracy_best": (
            " †",
            "† ours: test accuracy of the best epoch, which the test set itself chose, as in the "
            "source's code",
        ),
    }
)
HEAD = ("method", "zeros", "published", "ours", "difference", "state")
PERCENT = frozenset({"published", "ours"})


def text(table: Table, found: Sequence[Outcome], scale: Scale) -> str:
    """For a terminal: a block for each problem, then notes and sources."""
    parts = [f"{table.name}: {table.title} ({table.paper}), scale {scale}", ""]
    numbered = marks(found)
    for problem in dict.fromkeys(o.cell.problem for o in found):
        block = [o for o in found if o.cell.problem == problem]
        rows = [HEAD, *(row(o, numbered) for o in block)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
        parts.append(heading(block[0]))
        parts += [
            "  " + "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        parts.append("")
    return "\n".join([*parts, *foot(table, found, scale, numbered)])


def markdown(table: Table, found: Sequence[Outcome], scale: Scale) -> str:
    """For a document."""
    parts = [f"## {table.title}", "", f"{table.name}, {table.paper}, scale {scale}.", ""]
    numbered = marks(found)
    for problem in dict.fromkeys(o.cell.problem for o in found):
        block = [o for o in found if o.cell.problem == problem]
        parts += [f"### {heading(block[0])}", "", f"| {' | '.join(HEAD)} |", "|---" * 6 + "|"]
        parts += [f"| {' | '.join(row(o, numbered))} |" for o in block]
        parts.append("")
    return "\n".join([*parts, *(f"- {line}" for line in foot(table, found, scale, numbered))])


def comma_separated(found: Sequence[Outcome], name: str, scale: Scale) -> str:
    """A line a cell, numbers in full."""
    rows = as_json(found, name, scale)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        flat = {k: "; ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()}
        writer.writerow(flat)
    return out.getvalue().rstrip("\n")


def as_json(found: Sequence[Outcome], name: str, scale: Scale) -> list[dict[str, Any]]:
    """A mapping a cell; accuracies in percent."""
    return [
        {
            "table": name,
            "scale": scale,
            "problem": o.cell.problem,
            "instead_of": o.cell.instead or None,
            "method": o.cell.line,
            "sparsity": o.cell.sparsity,
            "published": [n.top1 for n in o.cell.published],
            "published_sd": [n.sd for n in o.cell.published],
            "source": [n.source for n in o.cell.published],
            "evidence": [n.evidence for n in o.cell.published],
            "source_note": [n.note for n in o.cell.published],
            "published_dense": None if o.cell.control is None else o.cell.control.top1,
            "dense_source": None if o.cell.control is None else o.cell.control.source,
            "ours": None if o.ours is None else o.ours.mean,
            "ours_sd": None if o.ours is None else o.ours.sd,
            "seeds": 0 if o.ours is None else o.ours.n,
            "statistic": None if o.ours is None else o.ours.statistic,
            "difference": o.difference,
            "state": o.state,
            "note": o.cell.note,
            "keys": [run.key for run in o.cell.runs],
        }
        for o in found
    ]


def heading(outcome: Outcome) -> str:
    """The problem that a cell is of, and which of the source's it stands for."""
    cell = outcome.cell
    return f"{cell.problem} (in place of {cell.instead})" if cell.instead else cell.problem


def row(o: Outcome, numbered: Mapping[str, str]) -> tuple[str, ...]:
    """One cell under `HEAD`; `numbered` is from `marks`."""
    there = ", ".join(
        f"{n.top1:.2f}{_spread(n.sd)}{'?' if n.doubtful else ''} {numbered[sources([n])[0]]}"
        for n in o.cell.published
    )
    ours = ""
    if o.ours is not None:
        seeds = f" (n={o.ours.n})" if len(o.cell.runs) > 1 else ""
        mark, _ = _STATISTICS[o.ours.statistic]
        ours = f"{o.ours.mean:.2f}{_spread(o.ours.sd)}{seeds}{mark}"
    difference = "" if o.difference is None else f"{o.difference:+.2f}"
    note = f" {numbered[o.cell.note]}" if o.cell.note else ""
    zeros = f"{100 * o.cell.sparsity:g} %"
    return (o.cell.line, zeros, there or "-", ours or "-", difference or "-", o.state + note)


def _spread(sd: float | None) -> str:
    return "" if sd is None else f" ± {sd:.2f}"


def marks(found: Sequence[Outcome]) -> dict[str, str]:
    """Text -> mark: [1], [2] for sources; [a], [b] for notes."""
    controls = [o.cell.control for o in found if o.cell.control is not None and not o.cell.dense]
    texts = sources([*(n for o in found for n in o.cell.published), *controls])
    notes = dict.fromkeys(o.cell.note for o in found if o.cell.note)
    letters = (f"[{chr(ord('a') + i)}]" for i in range(26))
    named = {text: f"[{i}]" for i, text in enumerate(texts, 1)}
    return named | dict(zip(notes, letters, strict=False))


def foot(
    table: Table, found: Sequence[Outcome], scale: Scale, numbered: Mapping[str, str]
) -> list[str]:
    """What is said below a table, a sentence a line; `numbered` is from `marks`."""
    lines = [f"{mark} {what}" for what, mark in numbered.items()]
    if any(n.doubtful for o in found for n in o.cell.published):
        lines.append("? to be checked in the source before it is quoted")
    used = {o.ours.statistic for o in found if o.ours is not None}
    lines += [f"{said}." for name, (_, said) in _STATISTICS.items() if name in used]
    lines += table.notes
    if scale == "full":
        lines.append("difference: ours - published, in points of test accuracy.")
    else:
        lines.append(
            "difference: what sparsity costs here less what it costs there, each against its own "
            "dense network, in points. Other data and another network: compare orders, not numbers."
        )
        lines += [*_controls(found, numbered), *_without_control(found)]
    lines.append(f"{states(found)}.")
    return lines


def states(found: Sequence[Outcome]) -> str:
    """How many cells there are, and how far they are."""
    count = Counter(o.state for o in found)
    return f"{len(found)} cells: {', '.join(f'{n} {state}' for state, n in count.items())}"


def _controls(found: Sequence[Outcome], numbered: Mapping[str, str]) -> list[str]:
    """The published dense networks that are not the table's, and whose lines they are beside."""
    own = {o.cell.problem: o.cell.published for o in found if o.cell.dense}
    groups: dict[str, dict[str, None]] = {}
    for o in found:
        control = o.cell.control
        if control is None or o.cell.dense or control in own.get(o.cell.problem, ()):
            continue
        said = f"{control.top1:.2f}{_spread(control.sd)} {numbered[sources([control])[0]]}"
        groups.setdefault(f"{said}, {o.cell.instead}", {})[o.cell.line] = None
    return [f"The dense network of {', '.join(names)}: {said}." for said, names in groups.items()]


def _without_control(found: Sequence[Outcome]) -> list[str]:
    """Why cells that have both numbers have no difference, if there are such."""
    numbers = [o for o in found if o.ours is not None and o.cell.published and not o.cell.dense]
    bare: dict[str, dict[str, None]] = {}
    for o in numbers:
        if o.difference is None:
            bare.setdefault(o.cell.instead, {})[o.cell.line] = None
    if not bare:
        return []
    told = "; ".join(f"{problem}: {', '.join(names)}" for problem, names in bare.items())
    return [
        "No difference where the dense accuracy beside a number is missing here or not known there "
        f"({told})."
    ]
