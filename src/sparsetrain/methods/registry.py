"""The table of methods: one line each, and the way from a name to a method."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
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

_PACKAGE = __name__.split(".")[0]


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
        start: the mask before the first step, under the method's defaults.
        drop: which active weights go, and how many or when.
        growth: which inactive weights come.
        distribution: what decides how many weights each layer keeps.
        cost: what an ordinary step needs beyond a step of masked training.
        card: where the method's page lies in the package.
        make: the method's class, None outside the in-loop family.
        call: the call that serves instead of `create`, outside the in-loop family.
    """

    name: str
    family: Family
    summary: str
    paper: str
    start: str
    drop: str = "none"
    growth: str = "none"
    distribution: str = "global"
    cost: str = "none"
    card: str = field(kw_only=True)
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
    Entry(
        "dense",
        "in-loop",
        "no zeros: the control",
        "",
        start="dense",
        distribution="none",
        card="methods/dense.md",
        make=Dense,
    ),
    Entry(
        "static",
        "in-loop",
        "a fixed mask, random or given",
        "arXiv 2202.02643",
        start="random",
        distribution="erk",
        card="methods/static.md",
        make=Static,
    ),
    Entry(
        "magnitude",
        "in-loop",
        "train, prune once, fine-tune",
        "arXiv 1506.02626",
        start="dense",
        drop="magnitude, once",
        card="methods/magnitude.md",
        make=Magnitude,
    ),
    Entry(
        "gmp",
        "in-loop",
        "prune gradually by magnitude",
        "arXiv 1710.01878",
        start="dense",
        drop="magnitude, gradual",
        card="methods/gmp.md",
        make=GMP,
    ),
    Entry(
        "set",
        "in-loop",
        "drop the smallest, grow at random",
        "arXiv 1707.04780",
        start="random",
        drop="magnitude, 30 %",
        growth="random",
        distribution="er",
        card="methods/set.md",
        make=Set,
    ),
    Entry(
        "snfs",
        "in-loop",
        "drop the smallest, grow by momentum",
        "arXiv 1907.04840",
        start="random",
        drop="magnitude, 50 %",
        growth="momentum",
        distribution="uniform, momentum",
        cost="dense gradient + 1 buffer every step",
        card="methods/snfs.md",
        make=SNFS,
    ),
    Entry(
        "rigl",
        "in-loop",
        "drop the smallest, grow by gradient",
        "arXiv 1911.11134",
        start="random",
        drop="magnitude, 30 %",
        growth="gradient",
        distribution="erk",
        cost="dense gradient at updates",
        card="methods/rigl.md",
        make=RigL,
    ),
    Entry(
        "itop",
        "in-loop",
        "RigL or SET to the very end",
        "arXiv 2102.02887",
        start="random",
        drop="magnitude, 50 %",
        growth="gradient",
        distribution="erk",
        cost="dense gradient at updates",
        card="methods/itop.md",
        make=ITOP,
    ),
    Entry(
        "granet",
        "in-loop",
        "prune gradually, drop and grow to the end",
        "arXiv 2106.10404",
        start="random, 50 % zeros",
        drop="magnitude, gradual + 50 %",
        growth="gradient",
        distribution="erk, global",
        cost="dense gradient at updates",
        card="methods/granet.md",
        make=GraNet,
    ),
    Entry(
        "snip",
        "at-init",
        "keep what the loss depends on",
        "arXiv 1810.02340",
        start="scored by |w g|",
        card="saliency/snip.md",
        call="st.saliency.snip(model, loss_fn, batches, sparsity)",
    ),
    Entry(
        "grasp",
        "at-init",
        "keep what the gradient flow needs",
        "arXiv 2002.07376",
        start="scored by w (H g)",
        card="saliency/grasp.md",
        call="st.saliency.grasp(model, loss_fn, batches, sparsity)",
    ),
    Entry(
        "synflow",
        "at-init",
        "keep the strongest paths, without data",
        "arXiv 2006.05467",
        start="scored by |w r|",
        card="saliency/synflow.md",
        call="st.saliency.synflow(model, None, batches, sparsity)",
    ),
    Entry(
        "smart_ratio",
        "at-init",
        "random places, counts by depth: random tickets",
        "arXiv 2009.11094",
        start="random",
        distribution="smart_ratio",
        card="methods/smart_ratio.md",
        call="st.methods.static(sparsity=…, distribution='smart_ratio')",
    ),
    Entry(
        "art",
        "phases",
        "HyperSparse: regularise until the pruned copy is as accurate, prune, fine-tune",
        "arXiv 2308.07163",
        start="dense",
        drop="magnitude, once",
        cost="regulariser's gradient in its phase",
        card="art.md",
        call="st.ART(model, optimizer, sparsity=…, dense_epochs=…, …)",
    ),
    Entry(
        "imp",
        "phases",
        "train, prune the smallest, rewind, again: lottery tickets",
        "arXiv 1803.03635",
        start="dense",
        drop="magnitude, 20 % a round",
        card="imp.md",
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


def card(name: str) -> str:
    """The page of a method: when to use it, formula, options, example, differences, reference.

    Returns:
        Markdown, as it lies in the package beside the code.
    Raises:
        ValueError: unknown name; suggests the nearest.
    """
    return (files(_PACKAGE) / get(name).card).read_text(encoding="utf-8")


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
