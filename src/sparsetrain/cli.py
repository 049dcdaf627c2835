"""The command `sparsetrain`: verbs, exit codes, and one sentence for whatever goes wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import tyro

from .training.errors import BadInput, Interrupted, RunFailed, unknown

_HELP = """usage: sparsetrain COMMAND [OPTIONS]

Train sparse neural networks: prune, regrow, run.

  train       train one network; without options: ART + HyperSparse at 90 % zeros on the
              embedded digits, about a minute on a laptop CPU
  eval RUN    test a finished run's network again and compare with its record
  export RUN  a finished run's network as a small file without zeros, or dense, or ONNX
  sweep FILE  make every run of a recipe, those left after a break too, and print their table
  report RUN… tables and figures of finished runs, as one HTML page, Markdown or CSV
  reproduce   make the runs of a published table and print both; without a name, the tables
  search FILE search over settings by held-out images
  plasticity  prune a dense training at each epoch in many ways: how well does it recover?
  bench       is it faster here: a finished run (`bench RUN`) or `--model NAME --sparsity S` on
              every engine that is installed, ours beside them, with a verdict
  methods     the methods that --method takes, by their parts; `methods NAME` prints one's page
  cite NAME   the BibTeX of a method and of the parts that it is used with
  models      the networks that --model takes
  datasets    the data sets that --dataset takes

`sparsetrain COMMAND --help` lists the options. Exit code: 0 done, 2 bad input, 1 a run failed,
130 Ctrl-C, 143 SIGTERM (the same command continues it).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: the words after `sparsetrain`; None takes the process's own.
    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except BadInput as error:
        return _fail(error, 2)
    except RunFailed as error:
        return _fail(error, 1)
    except Interrupted as error:
        return _fail(error, error.code)
    except KeyboardInterrupt:
        return _fail("interrupted before training began.", 130)
    except BrokenPipeError:
        # The reader of a pipe went away, as `| head` does; nothing is left to say to it.
        sys.stdout = None
        return 0
    except SystemExit as stop:  # --help
        return stop.code if isinstance(stop.code, int) else 0


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if words[0] == "--version":
        from . import __version__

        print(f"sparsetrain {__version__}")
        return 0
    if words[0] not in _COMMANDS:
        raise unknown("command", words[0], _COMMANDS)
    return _COMMANDS[words[0]](words[1:])


def _fail(error: object, code: int) -> int:
    rank = os.environ.get("RANK", "0")
    print(f"sparsetrain{'' if rank == '0' else f' (rank {rank})'}: {error}", file=sys.stderr)
    return code


def _train(words: list[str]) -> int:
    from .training.flags import parse_train

    args = parse_train(words)

    from .training.folder import default_path
    from .training.parallel import is_writer
    from .training.progress import Reporter
    from .training.run import train
    from .training.summary import summary

    reporter = Reporter()
    record = train(
        args.settings, reporter=reporter, command=shlex.join(["sparsetrain", "train", *words])
    )
    if not is_writer():
        return 0
    if args.json:
        print(json.dumps(record))
    reporter.say(summary(record, args.settings.run.out or default_path(args.settings)))
    return 0


def _sweep(words: list[str]) -> int:
    from .experiments.sweep import SweepOptions, sweep
    from .training.flags import parse
    from .training.progress import Reporter

    about = "Make every run of a recipe that is not there yet, and print their table."
    args = parse(SweepOptions, words, prog="sparsetrain sweep", about=about)
    reporter = Reporter()
    swept = sweep(args, reporter=reporter)
    for row in swept.rows if args.json else ():
        print(json.dumps(row))
    if args.json:
        reporter.say(swept.text)
    else:
        print(swept.text)
    return 1 if swept.failed else 0


def _report(words: list[str]) -> int:
    from .report.command import ReportOptions, report
    from .training.flags import parse

    about = "Tables and figures of finished runs: one page that needs no network."
    print(report(parse(ReportOptions, words, prog="sparsetrain report", about=about)))
    return 0


def _search(words: list[str]) -> int:
    from .experiments.search.command import SearchOptions, search
    from .training.flags import parse
    from .training.progress import Reporter

    about = "Search over settings by Optuna, judged by held-out images alone."
    args = parse(SearchOptions, words, prog="sparsetrain search", about=about)
    reporter = Reporter()
    found = search(args, reporter=reporter)
    for trial in found.trials if args.json else ():
        print(json.dumps({"val_accuracy": trial.accuracy, **trial.values}))
    if args.json:
        reporter.say(found.text)
    else:
        print(found.text)
    return 0 if found.trials else 1


def _plasticity(words: list[str]) -> int:
    from .experiments.plasticity.command import PlasticityOptions, plasticity
    from .training.flags import parse
    from .training.progress import Reporter

    about = "The study of pruning plasticity: train densely, prune at each epoch, train on."
    args = parse(PlasticityOptions, words, prog="sparsetrain plasticity", about=about)
    print(plasticity(args, reporter=Reporter()))
    return 0


def _reproduce(words: list[str]) -> int:
    from .experiments.reproduce.command import ReproduceOptions, listing, reproduce
    from .training.flags import parse
    from .training.progress import Reporter

    about = "Make the runs of a published table and print both; without NAME, list the tables."
    args = parse(ReproduceOptions, words, prog="sparsetrain reproduce", about=about)
    if not args.name:
        _table(("table", "cells", "with numbers", "what it is"), listing())
        print(
            "\n`sparsetrain reproduce NAME` runs one on the digits, --scale full as its source.\n"
            "The pruning-plasticity study of arXiv 2106.10404, which gives curves and no table, is "
            "`sparsetrain plasticity`."
        )
        return 0
    result = reproduce(args, reporter=Reporter())
    print(result.text)
    return 1 if result.failed else 0


@dataclass(frozen=True)
class _Eval:
    """Options of `sparsetrain eval`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    data_dir: Path | None = None
    """Where data sets lie; None is what the run used."""
    json: bool = False
    """Print the result as one line on stdout."""


def _eval(words: list[str]) -> int:
    from .training.flags import parse

    about = "Test a finished run's network again and compare with its record."
    args = parse(_Eval, words, prog="sparsetrain eval", about=about)

    from .training.reevaluate import reevaluate

    result = reevaluate(args.run, device=args.device, data_dir=args.data_dir)
    if args.json:
        print(json.dumps(result))
    else:
        print(
            f"test accuracy {100 * result['test_accuracy']:.2f} %, "
            f"in the record {100 * result['recorded_test_accuracy']:.2f} %, "
            f"{100 * result['sparsity']:.4f} % zeros"
        )
    return 0


@dataclass(frozen=True)
class _Export:
    """Options of `sparsetrain export`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    format: Literal["compressed", "dense", "onnx", "2:4"] = "compressed"
    """compressed: safetensors without the zeros; dense: with them; onnx needs sparsetrain[onnx]."""
    out: Path | None = None
    """The file; None is model.FORMAT in the run's folder."""
    values: Literal["float32", "float16", "bfloat16"] | None = None
    """Type that the kept weights of a compressed file are rounded to; None keeps every bit."""
    json: bool = False
    """Print the result as one line on stdout."""


def _export(words: list[str]) -> int:
    from .training.flags import parse

    about = "Write a finished run's network in another format."
    args = parse(_Export, words, prog="sparsetrain export", about=about)

    from .training.export import export

    result = export(args.run, format=args.format, out=args.out, values=args.values)
    if args.json:
        print(json.dumps(result))
    else:
        share = f"{100 * result['ratio']:.2f} % of the dense file's {result['dense_bytes']:,}"
        print(f"{result['path']}: {result['bytes']:,} bytes, {share}")
    return 0


def _bench(words: list[str]) -> int:
    from .bench import BenchOptions, bench, text
    from .training.flags import parse

    about = "Time one network on this machine, dense engines beside ours."
    args = parse(BenchOptions, words, prog="sparsetrain bench", about=about)
    result = bench(args)
    print(json.dumps(result) if args.json else text(result))
    return 0


def _methods(words: list[str]) -> int:
    if _wants_help(words):
        print("usage: sparsetrain methods [NAME]\n\nPrint the table of methods, or one's page.")
        return 0
    from . import methods

    if words:
        _markdown(methods.card(_one_name("methods", words[:1], words[1:])))
        return 0
    rows = []
    for name in methods.names():
        e = methods.get(name)
        arxiv = e.paper.removeprefix("arXiv ")
        rows.append((name, e.family, e.start, e.drop, e.growth, e.distribution, e.cost, arxiv))
    head = ("method", "family", "start", "drop", "growth", "distribution")
    _table((*head, "extra cost a step", "arXiv"), rows)
    print(
        "\n`sparsetrain methods NAME` prints a method's page, `sparsetrain cite NAME` its BibTeX."
    )
    return 0


def _cite(words: list[str]) -> int:
    if not words or (words[0].startswith("-") and _wants_help(words)):
        return _cite_keys()
    from . import citations
    from .training.flags import parse
    from .training.options import options_type

    name = _one_name("cite", words[:1], [])
    about = f"The BibTeX of {name} and of the parts that it is used with."
    kind = options_type(name)
    options = parse(kind, words[1:], prog=f"sparsetrain cite {name}", about=about)
    read = {o.name for o in fields(options)} & set(citations.citable(name))
    print(citations.cite(name, **{o: getattr(options, o) for o in read}), end="")
    return 0


def _cite_keys() -> int:
    from . import citations, methods

    print("usage: sparsetrain cite NAME [OPTIONS OF THE METHOD]\n")
    rows = [(name, ", ".join(citations.keys(name)) or "nothing") for name in methods.names()]
    return _table(("method", "cites"), rows)


def _one_name(command: str, given: list[str], more: list[str]) -> str:
    """The method that is named, if it is one and the only one."""
    from . import methods

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


def _models(words: list[str]) -> int:
    _no_options("models", words)
    from . import models

    return _table(("model", "options", "what it is"), list(models.describe()))


def _datasets(words: list[str]) -> int:
    _no_options("datasets", words)
    from . import data

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
    return _table(("data set", "classes", "image", "train", "test", "source"), rows)


def _no_options(command: str, words: list[str]) -> None:
    if _wants_help(words):
        print(f"usage: sparsetrain {command}\n\nPrint a table; there are no options.")
        raise SystemExit(0)
    if words:
        raise BadInput(f"`sparsetrain {command}` takes no options, got {words[0]!r}.")


def _wants_help(words: list[str]) -> bool:
    return any(word in ("-h", "--help") for word in words)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())
    return 0


_COMMANDS: Mapping[str, Callable[[list[str]], int]] = MappingProxyType(
    {
        "train": _train,
        "eval": _eval,
        "export": _export,
        "sweep": _sweep,
        "report": _report,
        "reproduce": _reproduce,
        "bench": _bench,
        "search": _search,
        "plasticity": _plasticity,
        "methods": _methods,
        "cite": _cite,
        "models": _models,
        "datasets": _datasets,
    }
)
