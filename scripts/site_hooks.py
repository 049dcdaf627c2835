"""What mkdocs does to the pages of docs/ on the way to the site (mkdocs.yml names this file).

- The methods' cards, which lie beside their code, become pages under cards/.
- A line `::: st.NAME` becomes the docstring of that public name.
- A docstring's `::` before an example becomes a colon.
- Lists and tables may follow a line of text without an empty line, as on GitHub.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import sparsetrain as st

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "sparsetrain"
_CARD_LINK = re.compile(r"\((?:\.\./)+src/sparsetrain/(?:\w+/)?(\w+)\.md\)")
_LIST = re.compile(r"[-*] |\d+\. ")


def on_config(config: Any) -> Any:
    """Put the cards into the navigation, in the order of the table of methods."""
    for section in config.nav:
        for title, entries in section.items():
            if isinstance(entries, list) and "cards" in entries:
                place = entries.index("cards")
                cards = [{name: f"cards/{name}.md"} for name in st.methods.names()]
                section[title] = entries[:place] + cards + entries[place + 1 :]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the cards."""
    for name in st.methods.names():
        files.append(File.generated(config, f"cards/{name}.md", content=st.methods.card(name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Write what mkdocs reads for what the page says."""
    up = "../" * page.file.src_uri.count("/")
    markdown = _CARD_LINK.sub(rf"({up}cards/\1.md)", markdown)
    markdown = markdown.replace(" ± ", "\u00a0±\u00a0")  # a number and its spread in one line
    markdown = re.sub(r"^\|.*$", _bound_units, markdown, flags=re.MULTILINE)
    markdown = re.sub(r"^::: (st\.[\w.]+)$", _directive, markdown, flags=re.MULTILINE)
    return spaced(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings announce an example by two colons, as Python's own do."""
    return html.replace("::</p>", ":</p>")


def _bound_units(row: re.Match[str]) -> str:
    """A table's row with no break between a number and its unit."""
    return re.sub(r"(?<=\d) (?=(%|ms|s|[MG]i?B)( |$))", "\u00a0", row[0])


def _directive(found: re.Match[str]) -> str:
    name = found[1]
    return f"::: {definition(name)}\n    options:\n      heading: {name}\n      toc_label: {name}\n"


def definition(name: str) -> str:
    """Where a public name is defined: `st.prune` is `sparsetrain.prune.prune`."""
    parts = name.split(".")[1:]
    owner, thing = None, st
    for part in parts:
        owner, thing = thing, getattr(thing, part)
    if inspect.isclass(thing) or inspect.isfunction(thing):  # not an alias of a type
        return f"{thing.__module__}.{thing.__qualname__}"
    return f"{owner.__name__}.{parts[-1]}"


def spaced(markdown: str) -> str:
    """The text with an empty line before each list and around each comment, outside of code."""
    lines: list[str] = []
    fenced, before = False, ""
    for line in markdown.splitlines():
        if not fenced and _begins(line, before):
            lines.append("")
        fenced ^= line.lstrip().startswith("```")
        lines.append(line)
        before = line
    return "\n".join(lines) + "\n"


def _begins(line: str, before: str) -> bool:
    if not before.strip():
        return False
    if before.startswith("<!--") or line.startswith("<!--"):
        return True
    text = not (_LIST.match(before) or before.startswith(("  ", "|", "#", ">")))
    return text and bool(_LIST.match(line))
