"""What to cite: the publications behind a method and behind the parts it is used with."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, get_args

from . import methods
from .art import ART
from .imp import IMP
from .types import Method

_PACKAGE = __name__.split(".")[0]

# name -> (key in citations.bib, what is taken from there); the first is the method itself.
_METHODS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "dense": (),
        "static": (("liu2022unreasonable", "static sparse training"),),
        "magnitude": (("han2015learning", "pruning by magnitude"),),
        "gmp": (("zhu2017prune", "GMP, the cubic schedule"),),
        "set": (("mocanu2018scalable", "SET"),),
        "snfs": (("dettmers2019sparse", "SNFS"),),
        "rigl": (("evci2020rigging", "RigL"),),
        "itop": (("liu2021dense", "ITOP"), ("evci2020rigging", "cosine decay of moved weights")),
        "granet": (
            ("liu2021sparse", "GraNet"),
            ("zhu2017prune", "the cubic schedule"),
            ("evci2020rigging", "cosine decay of moved weights"),
        ),
        "snip": (("lee2019snip", "SNIP"),),
        "grasp": (("wang2020picking", "GraSP"),),
        "synflow": (("tanaka2020pruning", "SynFlow"),),
        "smart_ratio": (("su2020sanity", "smart ratios"),),
        "art": (("glandorf2023hypersparse", "ART, HyperSparse"),),
        "imp": (("frankle2019lottery", "lottery tickets by iterative magnitude pruning"),),
    }
)

# option -> value -> (key, what is taken from there); values that are missing cite nothing.
_PARTS: Mapping[str, Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "drop": {
            "set": ("mocanu2018scalable", "dropping by sign"),
            "threshold": ("han2015learning", "dropping below a threshold"),
            "taylor": ("molchanov2019importance", "dropping by Taylor expansion"),
        },
        "growth": {
            "gradient": ("evci2020rigging", "growth by gradient"),
            "random": ("mocanu2018scalable", "random growth"),
            "momentum": ("dettmers2019sparse", "growth by momentum"),
            "random-unfired": ("liu2021dense", "growth where no weight has been"),
        },
        "redistribution": {
            "magnitude": ("dettmers2019sparse", "redistribution by magnitude"),
            "momentum": ("dettmers2019sparse", "redistribution by momentum"),
            "nonzeros": ("dettmers2019sparse", "redistribution by weights left"),
        },
        "distribution": {
            "er": ("mocanu2018scalable", "Erdos-Renyi counts"),
            "erk": ("evci2020rigging", "Erdos-Renyi-kernel counts"),
            "smart_ratio": ("su2020sanity", "smart ratios"),
        },
        "start_mask": {"pruned-and-regrown": ("liu2021sparse", "the pruned and regrown start")},
        "pattern": {"channel": ("li2017pruning", "channels by the sum of their weights")},
        "classifier_sparsity": {"given": ("gale2019state", "the classifier's own sparsity")},
        "rewind": {
            "epoch": ("frankle2020linear", "rewinding to a later step"),
            "learning-rate": ("renda2020comparing", "learning rate rewinding"),
        },
    }
)


def cite(method: Method | ART | IMP | str, **options: Any) -> str:
    """The BibTeX of a method and of the parts that it is used with.

    Args:
        method: an in-loop method, an `ART` or `IMP`, or any name of `methods.names()`.
        options: with a name, parts that are not its defaults: those of `citable(name)`.
    Returns:
        BibTeX entries, the method's own first, each under a comment that says what it stands for.
    Raises:
        ValueError: unknown name, option or value.
    """
    name, used = _named(method)
    if options and not isinstance(method, str):
        raise ValueError(f"options go with a name; this {name} has its own, leave them out")
    for option, value in options.items():
        _check(name, option, value)
    reasons: dict[str, list[str]] = {}
    for key, reason in [*_METHODS[name], *_parts(used | options)]:
        reasons.setdefault(key, []).append(reason)
    if not reasons:
        return f"% {name}: nothing to cite\n"
    found = entries()
    return "\n".join(f"% {', '.join(why)}\n{found[key]}" for key, why in reasons.items())


def citable(name: str) -> tuple[str, ...]:
    """The options of a method that change what `cite` gives.

    Raises:
        ValueError: unknown name.
    """
    entry = methods.get(name)
    if entry.make is None:
        return ("rewind",) if name == "imp" else ()
    known = {*_PARTS, "initial_sparsity", "masks"}
    return tuple(f.name for f in dataclasses.fields(entry.make) if f.name in known)


def keys(name: str) -> tuple[str, ...]:
    """The BibTeX keys that `cite(name)` gives, the method's own first.

    Raises:
        ValueError: unknown name.
    """
    return tuple(re.findall(r"^@\w+\{([^,]+),", cite(name), flags=re.MULTILINE))


@cache
def entries() -> Mapping[str, str]:
    """Every publication: key -> its BibTeX entry, as in citations.bib."""
    text = (files(_PACKAGE) / "citations.bib").read_text(encoding="utf-8")
    found = re.findall(r"(@\w+\{([^,]+),\n.*?\n\}\n)", text, flags=re.DOTALL)
    return MappingProxyType({key: entry for entry, key in found})


def _named(method: Method | ART | IMP | str) -> tuple[str, dict[str, Any]]:
    """The method's name, and the options it has: its own, or the defaults of the name."""
    if isinstance(method, ART):
        return "art", {}
    if isinstance(method, IMP):
        return "imp", {"rewind": method.rule.rewind}
    if isinstance(method, str):
        make = methods.get(method).make
        fields = dataclasses.fields(make) if make is not None else ()
        return method, {f.name: f.default for f in fields}
    for name in methods.names("in-loop"):
        make = methods.get(name).make
        if make is not None and type(method) is make:
            return name, {f.name: getattr(method, f.name) for f in dataclasses.fields(make)}
    raise ValueError(
        f"{type(method).__name__} is none of this library's methods; cite by a name of "
        "st.methods.names()"
    )


def _parts(used: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    unread: set[str] = set()
    if used.get("initial_sparsity") == 0 or used.get("masks") is not None:
        unread = {"distribution", "start_mask"}
    elif used.get("start_mask") == "pruned-global":
        unread = {"distribution"}
    for option, sources in _PARTS.items():
        value = used.get(option)
        if value is None or option in unread:
            continue
        if isinstance(value, int | float):  # a step to rewind to, a sparsity
            value = "epoch" if option == "rewind" else "given"
        if isinstance(value, str) and value in sources:
            yield sources[value]


def _check(name: str, option: str, value: object) -> None:
    if option not in (known := citable(name)):
        what = f"those that do are {', '.join(known)}" if known else "it has none that does"
        raise ValueError(f"{option!r} changes nothing in what {name!r} cites; {what}")
    allowed = ("start", "epoch", "learning-rate")
    if name != "imp":
        kind = next((o.type for o in methods.get(name).options if o.name == option), None)
        allowed = tuple(choice for choice in _flat(kind) if isinstance(choice, str))
    if isinstance(value, str) and value not in allowed:
        raise ValueError(f"{option} must be one of {', '.join(allowed)}, got {value!r}")


def _flat(kind: object) -> Iterator[object]:
    """Every choice of a Literal, also inside a union."""
    for inner in get_args(kind):
        yield from [inner] if isinstance(inner, str) else _flat(inner)
