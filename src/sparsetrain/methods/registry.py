"""The table of methods: one line each, and the way from a name to a method."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

from ..types import Method
from .dense import Dense
from .gmp import GMP
from .granet import GraNet
from .itop import ITOP
from .magnitude import Magnitude
from .rigl import RigL
from .set import Set
from .snfs import SNFS
from .static import Static

Family: TypeAlias = Literal["in-loop", "at-init", "phases"]


@dataclass(frozen=True)
class Option:
    """One option of a method: its name, type, default and one line of help."""

    name: str
    type: Any
    default: Any
    help: str


@dataclass(frozen=True)
class Entry:
    """One row of the methods' table.

    Attributes:
        name: what `--method` and `create` take.
        family: in-loop (runs under a Sparsifier), at-init (gives masks), phases (st.ART, st.IMP).
        summary: one line.
        paper: first source.
        make: the method's class, None outside the in-loop family.
        call: the call that serves instead of `create`, outside the in-loop family.
    """

    name: str
    family: Family
    summary: str
    paper: str
    make: type[Any] | None = None
    call: str = ""

    @property
    def options(self) -> tuple[Option, ...]:
        """The method's own options: its fields but `sparsity` and `total_steps`."""
        if self.make is None:
            return ()
        types = get_type_hints(self.make)
        return tuple(
            Option(f.name, types[f.name], f.default, f.metadata["help"])
            for f in dataclasses.fields(self.make)
            if "help" in f.metadata
        )


_TABLE = (
    Entry("dense", "in-loop", "no zeros: the control", "", Dense),
    Entry("static", "in-loop", "a fixed mask, random or given", "arXiv 2202.02643", Static),
    Entry("magnitude", "in-loop", "train, prune once, fine-tune", "arXiv 1506.02626", Magnitude),
    Entry("gmp", "in-loop", "prune gradually by magnitude", "arXiv 1710.01878", GMP),
    Entry("set", "in-loop", "drop the smallest, grow at random", "arXiv 1707.04780", Set),
    Entry("snfs", "in-loop", "drop the smallest, grow by momentum", "arXiv 1907.04840", SNFS),
    Entry("rigl", "in-loop", "drop the smallest, grow by gradient", "arXiv 1911.11134", RigL),
    Entry("itop", "in-loop", "RigL or SET to the very end", "arXiv 2102.02887", ITOP),
    Entry(
        "granet", "in-loop", "prune gradually, drop and grow to the end", "arXiv 2106.10404", GraNet
    ),
    Entry(
        "snip",
        "at-init",
        "keep what the loss depends on",
        "arXiv 1810.02340",
        call="st.saliency.snip(model, loss_fn, batches, sparsity)",
    ),
    Entry(
        "grasp",
        "at-init",
        "keep what the gradient flow needs",
        "arXiv 2002.07376",
        call="st.saliency.grasp(model, loss_fn, batches, sparsity)",
    ),
    Entry(
        "synflow",
        "at-init",
        "keep the strongest paths, without data",
        "arXiv 2006.05467",
        call="st.saliency.synflow(model, None, batches, sparsity)",
    ),
    Entry(
        "art",
        "phases",
        "HyperSparse: regularise until the pruned copy is as accurate, prune, fine-tune",
        "arXiv 2308.07163",
        call="st.ART(model, optimizer, sparsity=…, dense_epochs=…, …)",
    ),
    Entry(
        "imp",
        "phases",
        "train, prune the smallest, rewind, again: lottery tickets",
        "arXiv 1803.03635",
        call="st.IMP(model, optimizer, sparsity=…, epochs_per_round=…, …)",
    ),
)


def names(family: Family | None = None) -> tuple[str, ...]:
    """The methods' names, of one family or of all.

    Raises:
        ValueError: unknown family.
    """
    if family is not None and family not in get_args(Family):
        raise ValueError(f"family must be one of {', '.join(get_args(Family))}, got {family!r}")
    return tuple(entry.name for entry in _TABLE if family in (None, entry.family))


def get(name: str) -> Entry:
    """The table's row of a method.

    Raises:
        ValueError: unknown name; suggests the nearest.
    """
    for entry in _TABLE:
        if entry.name == name:
            return entry
    raise ValueError(f"unknown method {name!r}; {_suggest(name, names())}")


def create(name: str, *, sparsity: float, total_steps: int, **options: Any) -> Method:
    """Make an in-loop method by name.

    Args:
        name: one of `names("in-loop")`.
        sparsity: fraction of zeros to end with, 0 <= sparsity < 1.
        total_steps: optimizer steps of the whole training.
        options: the method's own options, see `get(name).options`, and `masks` where it takes
            given ones.
    Raises:
        ValueError: unknown name or option, a method of another family, or a bad value.
    """
    entry = get(name)
    if entry.make is None:
        raise ValueError(f"{name!r} is a method of family {entry.family!r}; use {entry.call}")
    known = [f.name for f in dataclasses.fields(entry.make)]
    known = [name for name in known if name not in ("sparsity", "total_steps")]
    if unknown := [key for key in options if key not in known]:
        raise ValueError(
            f"method {name!r} has no option {unknown[0]!r}; {_suggest(unknown[0], known)}"
        )
    return entry.make(sparsity=sparsity, total_steps=total_steps, **options)


def _suggest(name: str, known: Sequence[str]) -> str:
    if not known:
        return "it has none"
    near = difflib.get_close_matches(name, known, n=1)
    choices = f"choose from {', '.join(known)}"
    return f"did you mean {near[0]!r}? {choices.capitalize()}" if near else choices
