"""Published accuracies with their sources, and finding those that a cell of a table is about."""

from __future__ import annotations

import csv
import re
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

    @property
    def texts(self) -> frozenset[str]:
        """The texts that the number may first have stood in: one, where the source says which."""
        quoted = re.search(r"\(quoting (.+)\)$", self.source)
        told = quoted[1] if quoted else self.source
        return frozenset(re.sub(r" Table \d+$", "", text) for text in re.split(" / | and ", told))


@dataclass(frozen=True)
class Wanted:
    """Which numbers a line of a table stands beside.

    Attributes:
        variants: any of these.
        source: a part of the source's name; empty: any.
        unstated: the numbers are those whose sparsity is not stated.
        dense: the dense network they are to be compared with, where it is not that of their text.
    """

    method: str
    variants: tuple[str, ...] = ("",)
    source: str = ""
    unstated: bool = False
    dense: Wanted | None = None


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


def dense_beside(number: Published) -> Published | None:
    """The dense network of the text that a number first stood in; None where it is not known.

    Texts have dense networks of their own, trained in other ways: GraSP's VGG-19 has 94.23 % on
    CIFAR-10, that of GraNet 93.85 and that of HyperSparse 93.84.
    """
    found = [
        other
        for other in numbers()
        if (other.method, other.model, other.dataset) == ("dense", number.model, number.dataset)
        and other.texts == number.texts
        and len(number.texts) == 1
    ]
    return found[0] if len(found) == 1 else None


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
