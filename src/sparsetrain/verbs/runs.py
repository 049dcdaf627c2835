"""The verbs that make or read runs. Each takes its words and returns the exit code."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


def train(words: list[str]) -> int:
    """Train one network."""
    from ..training.flags import parse_train

    args = parse_train(words)

    from ..training.folder import default_path
    from ..training.parallel import is_writer
    from ..training.progress import Reporter
    from ..training.run import train
    from ..training.summary import summary

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


def evaluate(words: list[str]) -> int:
    """Test a finished run again."""
    from ..training.flags import parse

    about = "Test a finished run's network again and compare with its record."
    args = parse(_Eval, words, prog="sparsetrain eval", about=about)

    from ..training.reevaluate import reevaluate

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
    """The file; None is model.compressed.safetensors, model.dense.safetensors or model.onnx in the
    run's folder."""
    values: Literal["float32", "float16", "bfloat16"] | None = None
    """Type that the kept weights of a compressed file are rounded to; None keeps every bit."""
    json: bool = False
    """Print the result as one line on stdout."""


def export(words: list[str]) -> int:
    """Write a finished run's network in another format."""
    from ..training.flags import parse

    about = "Write a finished run's network in another format."
    args = parse(_Export, words, prog="sparsetrain export", about=about)

    from ..training.export import export

    result = export(args.run, format=args.format, out=args.out, values=args.values)
    if args.json:
        print(json.dumps(result))
    else:
        share = f"{100 * result['ratio']:.2f} % of the dense file's {result['dense_bytes']:,}"
        print(f"{result['path']}: {result['bytes']:,} bytes, {share}")
    return 0


def bench(words: list[str]) -> int:
    """Time a network on every engine here."""
    from ..bench import BenchOptions, bench, text
    from ..training.flags import parse

    about = "Time one network on this machine, dense engines beside ours."
    args = parse(BenchOptions, words, prog="sparsetrain bench", about=about)
    result = bench(args)
    print(json.dumps(result) if args.json else text(result))
    return 0


def report(words: list[str]) -> int:
    """Tables and figures of finished runs."""
    from ..report.command import ReportOptions, report
    from ..training.flags import parse

    about = "Tables and figures of finished runs: one page that needs no network."
    print(report(parse(ReportOptions, words, prog="sparsetrain report", about=about)))
    return 0
