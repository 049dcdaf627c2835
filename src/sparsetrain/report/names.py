"""Names of rows in the room that they have, each still unlike the others."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 24
"""Characters of a row's name that are shown."""


def shortened(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """The names themselves where they fit; else the shortest change after which they all differ.

    First the ends are cut, then settings lose their names (`strength=0.1` is `0.1`), then each
    gets the number of its row.

    Args:
        names: all unlike each other.
        longest: characters of each that there is room for; more than the last row's number has.
    Returns:
        As many, all unlike each other, and none longer.
    """
    values = [" ".join(word.partition("=")[2] or word for word in n.split()) for n in names]
    numbered = [f"{place} {name}" for place, name in enumerate(names, 1)]
    shown = [_cut(names, longest), _cut(values, longest), _cut(numbered, longest)]
    return next((found for found in shown if len(set(found)) == len(names)), shown[-1])


def _cut(names: Sequence[str], longest: int) -> list[str]:
    return [n if len(n) <= longest else n[: longest - 1].rstrip() + "…" for n in names]
