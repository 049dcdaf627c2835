"""The command `sparsetrain`: verbs, exit codes, and one sentence for whatever goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from .training.errors import BadInput, Interrupted, RunFailed, unknown
from .verbs import lists, runs, studies

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
        return _fail(_INTERRUPTED.get(words[0], "interrupted."), 130)
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
        from .kernels import native

        print(f"sparsetrain {__version__}")
        print(f"C++ kernels: {native.described()}")
        return 0
    if words[0] not in _COMMANDS:
        raise unknown("command", words[0], _COMMANDS)
    return _COMMANDS[words[0]](words[1:])


def _fail(error: object, code: int) -> int:
    rank = os.environ.get("RANK", "0")
    print(f"sparsetrain{'' if rank == '0' else f' (rank {rank})'}: {error}", file=sys.stderr)
    return code


_GOES_ON = "stopped between two runs; the same command continues."
_INTERRUPTED: Mapping[str, str] = MappingProxyType(
    {"train": "interrupted before training began."}
    | dict.fromkeys(("sweep", "reproduce", "search", "plasticity"), _GOES_ON)
)
_COMMANDS: Mapping[str, Callable[[list[str]], int]] = MappingProxyType(
    {
        "train": runs.train,
        "eval": runs.evaluate,
        "export": runs.export,
        "sweep": studies.sweep,
        "report": runs.report,
        "reproduce": studies.reproduce,
        "bench": runs.bench,
        "search": studies.search,
        "plasticity": studies.plasticity,
        "methods": lists.methods,
        "cite": lists.cite,
        "models": lists.models,
        "datasets": lists.datasets,
    }
)
