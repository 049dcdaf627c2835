"""`sparsetrain report`: from run folders and records to one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..training.checkpoint import write_atomic
from ..training.errors import BadInput
from .facts import headline, left_out, unequal
from .figures.every import figures
from .figures.plasticity import study_figures
from .page import page
from .runs import Found, find
from .table import as_csv, as_markdown, every_run, summary


@dataclass(frozen=True)
class ReportOptions:
    """Options of `sparsetrain report`."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN…")]
    """Run folders, or folders of them, such as a sweep's or a plasticity study's. Records, too:
    copies of a record.json, folders of such, or what `sweep --save` wrote; a run that has a folder
    is read from there."""
    out: Path | None = None
    """The file to write; None is report.html, or report.md or report.csv by the format."""
    format: Literal["html", "md", "csv"] | None = None
    """html: tables and figures on one page. md: the table of methods. csv: a row a run. None: what
    the name of --out ends in, else html."""
    title: str = "Sparse training"
    """Heading of the page."""


def report(options: ReportOptions) -> str:
    """Write a report.

    Returns:
        What was written where, after a line for each folder or file that is left out.
    Raises:
        BadInput: no finished run, a form that is none of the three, or a file that cannot be
            written.
    """
    if not options.runs:
        raise BadInput("name at least one run folder: `sparsetrain report RUN… --out report.html`.")
    form = _form(options)
    out = Path(f"report.{form}") if options.out is None else options.out
    found = find(options.runs)
    text = _text(found, form, options.title)
    try:
        write_atomic(out, text.encode())
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror}. Give another --out.") from error
    said = f"{headline(found)} Report: {out} ({_size(len(text.encode()))})"
    return "\n".join([*left_out(found), said])


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _form(options: ReportOptions) -> str:
    if options.format is not None:
        return options.format
    suffix = "html" if options.out is None else options.out.suffix.lstrip(".").lower()
    if suffix not in ("html", "md", "csv"):
        raise BadInput(f"--out {options.out} must end in .html, .md or .csv; or give --format.")
    return suffix


def _text(found: Found, form: str, title: str) -> str:
    if form == "csv":
        return as_csv(every_run(found.runs))
    if form == "md":
        said = [f"# {title}", headline(found), *unequal(found.runs)]
        return "\n\n".join([*said, as_markdown(summary(found.runs))])
    return page(found, [*study_figures(found.studies), *figures(found.runs)], title=title)
