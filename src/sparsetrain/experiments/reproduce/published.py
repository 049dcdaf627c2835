"""Published accuracies with their sources, and finding those that a cell of a table is about."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class Published:
    """One number, as it stands in a public text.

    Attributes:
        method: a name of the table of numbers, mostly one of ours.
        variant: its setting, in the text's words; empty where it has none.
        model: of the source; "resnet32-w2" is of double width.
        sparsity: fraction of zeros; None where the text does not state it.
        top1: test accuracy in percent.
        sd: its standard deviation; None where none is given.
        source: the text; "(quoting X)" is one that quotes another.
        evidence: read: in the text itself; second-hand: in one that quotes it.
        note: what else must be known to compare.
    """

    method: str
    variant: str
    model: str
    dataset: str
    sparsity: float | None
    top1: float
    sd: float | None
    epochs: int | None
    source: str
    evidence: str
    note: str

    @property
    def doubtful(self) -> bool:
        """Whether it should be checked before it is quoted."""
        return "doubtful" in self.note


@dataclass(frozen=True)
class Wanted:
    """Which numbers a line of a table stands beside.

    Attributes:
        variants: any of these.
        source: a part of the source's name; empty: any.
        unstated: the numbers are those whose sparsity is not stated.
    """

    method: str
    variants: tuple[str, ...] = ("",)
    source: str = ""
    unstated: bool = False


@cache
def numbers() -> tuple[Published, ...]:
    """All of them; what is only remembered from a text is not among them."""
    text = files(_PACKAGE).joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_number(row) for row in csv.DictReader(text.splitlines()))


def find(wanted: Wanted, *, model: str, dataset: str, sparsity: float) -> tuple[Published, ...]:
    """The numbers of one cell, in the order of the file; mostly one or none."""
    of: float | None = None if wanted.unstated else sparsity
    return tuple(
        number
        for number in numbers()
        if (number.method, number.model, number.dataset) == (wanted.method, model, dataset)
        and number.variant in wanted.variants
        and number.sparsity == of
        and wanted.source in number.source
    )


def sources(found: Sequence[Published]) -> list[str]:
    """Their sources, each once, in order of appearance."""
    return list(dict.fromkeys(f"{n.source} [{n.evidence}]" for n in found))


def _number(row: dict[str, str]) -> Published:
    return Published(
        method=row["method"],
        variant=row["variant"],
        model=row["model"],
        dataset=row["dataset"],
        sparsity=_maybe(row["sparsity"]),
        top1=float(row["top1"]),
        sd=_maybe(row["top1_sd"]),
        epochs=int(row["epochs"]) if row["epochs"] else None,
        source=row["source"],
        evidence=row["evidence"],
        note=row["note"],
    )


def _maybe(text: str) -> float | None:
    return float(text) if text else None
