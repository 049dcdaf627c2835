"""The generated parts of the methods' pages: the table of methods, and each one's options."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import sparsetrain as st
from sparsetrain.training.options import options_type

SELF_EXPLAINED = ("self", "sparsity", "total_steps")
"""Arguments that every method has alike."""

NO_FLAG = {"masks": "in Python only", "compat": "on the command line `--compat paper`"}
"""Fields of in-loop methods that have no flag of their own."""

RULE = {"smart_ratio": "st.distributions.smart_ratio"}
"""Methods that are a rule of one argument of another call: where the rule's own arguments are."""


def methods_table() -> str:
    """All methods by their parts, each with a link to its card, seen from docs/."""
    rows = [
        "| method | family | what it does | start | drop | growth | distribution | "
        "extra cost a step | paper |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in st.methods.names():
        e = st.methods.get(name)
        arxiv = e.paper.removeprefix("arXiv ")
        paper = f"[{arxiv}](https://arxiv.org/abs/{arxiv})" if arxiv else ""
        cells = (e.family, e.summary, e.start, e.drop, e.growth, e.distribution, e.cost, paper)
        link = f"[`{name}`](../src/sparsetrain/{e.card})"
        # A bar inside a cell would end it.
        escaped = (cell.replace("|", "\\|") for cell in cells)
        rows.append(f"| {link} | {' | '.join(escaped)} |")
    return "\n".join(rows)


def options_tables(name: str) -> str:
    """What a method can be told: in Python, and on the command line."""
    entry = st.methods.get(name)
    if entry.make is not None:
        rows = list(_fields(entry.make))
        if not rows:
            return f"None: `{name}` has no options of its own."
        head = f"Arguments of `st.methods.{name}`, and flags of `--method {name}`"
        return f"{head} (`drop_fraction` is `--drop-fraction`):\n\n{_table(rows)}"
    call = RULE.get(name, entry.call.split("(")[0])
    flags = list(_attributes(options_type(name)))
    parts = [f"Arguments of `{call}`:", _table(list(_arguments(_resolve(call))))]
    if flags:
        parts += [f"Flags of `--method {name}` (`a_b` is `--a-b`):", _table(flags)]
    return "\n\n".join(parts)


def _table(rows: list[tuple[str, str, str]]) -> str:
    lines = ["| option | default | what it is |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{n}` | {d} | {h} |" for n, d, h in rows)])


def _fields(make: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Name, default and help of a method's fields; those without a flag say so."""
    options = {option.name: option for option in st.methods.get(_name_of(make)).options}
    said = _documented(make)
    for field in dataclasses.fields(make):
        if field.name in SELF_EXPLAINED:
            continue
        option = options.get(field.name)
        if option is None:
            text = f"{said[field.name].rstrip('.')} ({NO_FLAG[field.name]})"
        else:
            text = option.help + _choices(option.type)
        yield field.name, _default(field.default), _cell(text)


def _name_of(make: type[Any]) -> str:
    return next(n for n in st.methods.names("in-loop") if st.methods.get(n).make is make)


def _arguments(call: Any) -> Iterator[tuple[str, str, str]]:
    """Name, default and help of a function's or class's arguments, by its docstring."""
    said = _documented(call) if inspect.isclass(call) else _args_section(call)
    for parameter in inspect.signature(call).parameters.values():
        if parameter.name in SELF_EXPLAINED:
            continue
        empty = parameter.default is inspect.Parameter.empty
        default = "" if empty else _default(parameter.default)
        yield parameter.name, default, _cell(said[parameter.name])


def _attributes(kind: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Name, default and help of a dataclass whose fields have docstrings under them."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    said = {
        node.target.id: ast.literal_eval(below.value)
        for node, below in zip(body.body, body.body[1:], strict=False)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(below, ast.Expr)
    }
    types = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        text = " ".join(said[field.name].split()).rstrip(".")
        yield field.name, _default(field.default), _cell(text + _choices(types[field.name]))


def _documented(kind: type[Any]) -> dict[str, str]:
    """Argument -> text, of a class and those it is made of; the class's own words win."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found |= _args_section(base)
    return found


def _args_section(thing: Any) -> dict[str, str]:
    text = inspect.cleandoc(thing.__doc__ or "")
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, flags=re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^    (\w+): (.*(?:\n      .*)*)", section[1], flags=re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}


def _resolve(call: str) -> Any:
    thing: Any = st
    for part in call.split(".")[1:]:
        thing = getattr(thing, part)
    return thing


def _choices(kind: Any) -> str:
    found = list(_literals(kind))
    return f"; one of {', '.join(f'`{choice}`' for choice in found)}" if found else ""


def _literals(kind: Any) -> Iterator[str]:
    if get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
        return
    for inner in get_args(kind):
        yield from _literals(inner)


def _default(value: Any) -> str:
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").rstrip(".")
