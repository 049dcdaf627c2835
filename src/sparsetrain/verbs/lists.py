"""The verbs that print tables and pages. Each takes its words and returns the exit code."""

from __future__ import annotations

import re
import sys
from dataclasses import fields

from ..training.errors import BadInput, unknown
from .tables import print_table


def methods(words: list[str]) -> int:
    """The table of methods, or one's page."""
    if _wants_help(words):
        print("usage: sparsetrain methods [NAME]\n\nPrint the table of methods, or one's page.")
        return 0
    from .. import methods

    if words:
        _markdown(methods.card(_one_name("methods", words[:1], words[1:])))
        return 0
    rows = []
    for name in methods.names():
        e = methods.get(name)
        arxiv = e.paper.removeprefix("arXiv ")
        rows.append((name, e.family, e.start, e.drop, e.growth, e.distribution, e.cost, arxiv))
    head = ("method", "family", "start", "drop", "growth", "distribution")
    print_table((*head, "extra cost a step", "arXiv"), rows)
    print(
        "\n`sparsetrain methods NAME` prints a method's page, `sparsetrain cite NAME` its BibTeX."
    )
    return 0


def cite(words: list[str]) -> int:
    """The BibTeX of a method."""
    if not words or (words[0].startswith("-") and _wants_help(words)):
        return _cite_keys()
    from .. import citations
    from ..training.flags import parse
    from ..training.options import options_type

    name = _one_name("cite", words[:1], [])
    about = f"The BibTeX of {name} and of the parts that it is used with."
    kind = options_type(name)
    options = parse(kind, words[1:], prog=f"sparsetrain cite {name}", about=about)
    read = {o.name for o in fields(options)} & set(citations.citable(name))
    print(citations.cite(name, **{o: getattr(options, o) for o in read}), end="")
    return 0


def _cite_keys() -> int:
    from .. import citations, methods

    print("usage: sparsetrain cite NAME [OPTIONS OF THE METHOD]\n")
    rows = [(name, ", ".join(citations.keys(name)) or "nothing") for name in methods.names()]
    return print_table(("method", "cites"), rows)


def _one_name(command: str, given: list[str], more: list[str]) -> str:
    """The method that is named, if it is one and the only one."""
    from .. import methods

    if more:
        raise BadInput(f"`sparsetrain {command}` takes one method, got {more[0]!r} too.")
    if given[0] not in methods.names():
        raise unknown("method", given[0], methods.names(), show="sparsetrain methods")
    return given[0]


def _markdown(text: str) -> None:
    """Rendered on a terminal, as it is written elsewhere; without the generator's markers."""
    text = re.sub(r"<!--.*?-->\n", "", text)
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.print(Markdown(text, hyperlinks=False), width=min(console.width, 110))


def models(words: list[str]) -> int:
    """The table of networks."""
    _no_options("models", words)
    from .. import models

    print_table(("model", "options", "what it is"), list(models.describe()))
    print("\nAlso resnetN with N = 6n + 2, and timm:NAME for a network of timm (pip install timm).")
    return 0


def datasets(words: list[str]) -> int:
    """The table of data sets."""
    _no_options("datasets", words)
    from .. import data

    rows = [
        (
            e.name,
            str(e.classes),
            "x".join(map(str, e.image)),
            f"{e.train:,}",
            f"{e.test:,}",
            e.source,
        )
        for e in data.describe()
    ]
    return print_table(("data set", "classes", "image", "train", "test", "source"), rows)


def _no_options(command: str, words: list[str]) -> None:
    if _wants_help(words):
        print(f"usage: sparsetrain {command}\n\nPrint a table; there are no options.")
        raise SystemExit(0)
    if words:
        raise BadInput(f"`sparsetrain {command}` takes no options, got {words[0]!r}.")


def _wants_help(words: list[str]) -> bool:
    return any(word in ("-h", "--help") for word in words)
