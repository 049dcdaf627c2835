"""The command `sparsetrain`: verbs, exit codes, and one sentence for whatever goes wrong."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import tyro

from .training.errors import BadInput, Interrupted, RunFailed, unknown

_HELP = """usage: sparsetrain COMMAND [OPTIONS]

Train sparse neural networks: prune, regrow, run.

  train       train one network; without options: ART + HyperSparse at 90 % zeros on the
              embedded digits, about a minute on a laptop CPU
  eval RUN    test a finished run's network again and compare with its record
  methods     the methods that --method takes
  models      the networks that --model takes
  datasets    the data sets that --dataset takes

`sparsetrain COMMAND --help` lists the options. Exit code: 0 done, 2 bad input, 1 a run failed,
130 interrupted (the same command continues it).
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
        return _fail(error, 130)
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
    print(f"sparsetrain: {error}", file=sys.stderr)
    return code


def _train(words: list[str]) -> int:
    from .training.flags import parse_train

    args = parse_train(words)

    from .training.folder import default_path
    from .training.progress import Reporter
    from .training.run import train
    from .training.summary import summary

    reporter = Reporter()
    record = train(
        args.settings, reporter=reporter, command=shlex.join(["sparsetrain", "train", *words])
    )
    if args.json:
        print(json.dumps(record))
    reporter.say(summary(record, args.settings.run.out or default_path(args.settings)))
    return 0


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


def _methods(words: list[str]) -> int:
    _no_options("methods", words)
    from . import methods

    rows = []
    for name in methods.names():
        entry = methods.get(name)
        rows.append((name, entry.family, entry.summary, entry.paper))
    return _table(("method", "family", "what it does", "source"), rows)


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
    if any(word in ("-h", "--help") for word in words):
        print(f"usage: sparsetrain {command}\n\nPrint a table; there are no options.")
        raise SystemExit(0)
    if words:
        raise BadInput(f"`sparsetrain {command}` takes no options, got {words[0]!r}.")


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
        "methods": _methods,
        "models": _models,
        "datasets": _datasets,
    }
)
