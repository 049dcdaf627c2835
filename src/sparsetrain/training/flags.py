"""Command-line flags from the dataclasses: a YAML file first, flags over it, one error sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .config import SECTIONS, TrainConfig
from .errors import BadInput, unknown
from .settings import build, read, section_types

T = TypeVar("T")


@dataclass(frozen=True)
class Command:
    """How the command itself behaves."""

    config: Path | None = None
    """YAML file of settings; flags override it."""
    json: bool = False
    """Print the record as one line on stdout; everything else goes to stderr."""


@dataclass(frozen=True)
class TrainArgs:
    """A parsed `sparsetrain train` line."""

    settings: TrainConfig
    json: bool


def parse_train(argv: Sequence[str]) -> TrainArgs:
    """The settings that a command line asks for.

    Args:
        argv: the words after `sparsetrain train`.
    Returns:
        The settings, types checked, ranges not yet.
    Raises:
        BadInput: an unknown or malformed option or file.
        SystemExit: `--help`, after it was printed.
    """
    file, method = _peek(argv, "config"), _peek(argv, "method")
    values = read(Path(file)) if file is not None else {}
    if method is not None and method != values.get("method", TrainConfig().sparse.method):
        values = _keep_shared(values, method)
    base = build(values)
    kinds, method = section_types(base.sparse.method), base.sparse.method
    # The help's headings are these names; the method's own options stand under the method's.
    heading = {key: method.replace("-", "_") if key == "options" else key for key in SECTIONS}
    layout = dataclasses.make_dataclass(
        "Train",
        [("command", Command, field(default_factory=Command))]
        + [(heading[key], kinds[key], field(default_factory=kinds[key])) for key in SECTIONS],
        frozen=True,
    )
    default = layout(**{heading[key]: getattr(base, key) for key in SECTIONS})
    about = f"Train a sparse network. Options of --method {method} are listed too."
    parsed: Any = parse(layout, argv, prog="sparsetrain train", about=about, default=default)
    settings = TrainConfig(**{key: getattr(parsed, heading[key]) for key in SECTIONS})
    return TrainArgs(settings, parsed.command.json)


def parse(
    kind: type[T], argv: Sequence[str], *, prog: str, about: str, default: T | None = None
) -> T:
    """Flags of a dataclass, by tyro, with its error boxes folded into one sentence.

    Raises:
        BadInput: an unknown option (with the nearest) or a value of the wrong form.
        SystemExit: `--help`, after it was printed.
    """
    import tyro

    _check_names(argv, kind, prog)
    boxes = io.StringIO()
    given = tyro.MISSING_NONPROP if default is None else default
    try:
        with contextlib.redirect_stderr(boxes):
            return tyro.cli(
                kind,
                args=list(argv),
                prog=prog,
                description=about,
                default=given,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            sys.stderr.write(boxes.getvalue())
            raise
        raise BadInput(_sentence(boxes.getvalue(), prog)) from stop


def _peek(argv: Sequence[str], name: str) -> str | None:
    """The last value of `--name VALUE` or `--name=VALUE`, before the flags are known."""
    value = None
    for word, following in zip(argv, [*argv, None][1:], strict=True):
        if word == f"--{name}":
            value = following
        elif word.startswith(f"--{name}="):
            value = word.split("=", 1)[1]
    if value is None and f"--{name}" in argv:
        raise BadInput(f"--{name} needs a value.")
    return value


def _keep_shared(values: dict[str, Any], method: str) -> dict[str, Any]:
    """A file's settings under another method: of the file's own method's options those stay that
    the two explain in the same words; `stop` of granet is not that of itop.
    """
    theirs = _option_helps(values.get("method", TrainConfig().sparse.method))
    ours = _option_helps(method)
    dropped = {name for name, text in theirs.items() if ours.get(name) != text}
    return {k: v for k, v in values.items() if k not in dropped} | {"method": method}


def _option_helps(method: str) -> dict[str, str]:
    """Option -> its help; those without one are told apart by their default."""
    kind = section_types(method)["options"]
    hints = typing.get_type_hints(kind, include_extras=True)
    return {
        f.name: " ".join(extra.help for extra in getattr(hints[f.name], "__metadata__", ()))
        or repr((kind.__name__, f.default))
        for f in dataclasses.fields(kind)
    }


def _names(kind: type) -> dict[str, Any]:
    """Flag name -> type, of a dataclass and those nested in it; positionals left out."""
    names: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            names |= _names(typing.cast("type", hint))
        else:
            names[name.replace("_", "-")] = hint
    return names


def _check_names(argv: Sequence[str], kind: type, prog: str) -> None:
    flags = _names(kind)
    known = {f"--{name}" for name in flags} | {"--help"}
    known |= {f"--no-{name}" for name, hint in flags.items() if hint is bool}
    for word in argv:
        name = word.split("=", 1)[0].replace("_", "-")
        if name.startswith("--") and name not in known:
            raise unknown("option", name, known, show=f"{prog} --help")


def _sentence(boxes: str, prog: str) -> str:
    """The body of tyro's first box as one line; a box is ruled in Unicode or in ASCII."""
    rows = [row.strip("│| ") for row in boxes.splitlines() if row.strip()]
    rows = rows[1:]  # the title
    if rows and _is_rule(rows[0]):
        rows = rows[1:]
    body = " ".join(itertools.takewhile(lambda row: not _is_rule(row), rows))
    text = body.removeprefix("Error parsing ").strip() or "the options could not be read"
    return f"{text.rstrip('.')}. See `{prog} --help`."


def _is_rule(row: str) -> bool:
    return not row.strip("─-╰╯+ ")
