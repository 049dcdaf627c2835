"""The verbs that make many runs. Each takes its words and returns the exit code."""

from __future__ import annotations

import json

from .tables import print_table


def sweep(words: list[str]) -> int:
    """Make every run of a recipe."""
    from ..experiments.sweep import SweepOptions, sweep
    from ..training.flags import parse
    from ..training.progress import Reporter

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


def reproduce(words: list[str]) -> int:
    """Make the runs of a published table."""
    from ..experiments.reproduce.command import ReproduceOptions, listing, reproduce
    from ..experiments.saved import write
    from ..report.reproduced import reproduced_page
    from ..training.flags import parse
    from ..training.progress import Reporter

    about = "Make the runs of a published table and print both; without NAME, list the tables."
    args = parse(ReproduceOptions, words, prog="sparsetrain reproduce", about=about)
    if not args.name:
        print_table(("table", "cells", "with numbers", "what it is"), listing())
        print(
            "\n`sparsetrain reproduce NAME` runs one on the digits, --scale full as its source.\n"
            "The pruning-plasticity study of arXiv 2106.10404, which gives curves and no table, is "
            "`sparsetrain plasticity`."
        )
        return 0
    reporter = Reporter()
    result = reproduce(args, reporter=reporter)
    text = result.text
    if args.page is not None or args.format == "html":
        page = reproduced_page(result.table, result.found, args.scale)
        text = page if args.format == "html" and not args.json else text
        if args.page is not None:
            write(args.page, page)
            reporter.say(f"page: {args.page}")
    print(text)
    return 1 if result.failed else 0


def search(words: list[str]) -> int:
    """Search over settings."""
    from ..experiments.search.command import SearchOptions, search
    from ..training.flags import parse
    from ..training.progress import Reporter

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


def plasticity(words: list[str]) -> int:
    """Prune a dense training at each epoch."""
    from ..experiments.plasticity.command import PlasticityOptions, plasticity
    from ..report.study import write_pictures
    from ..training.flags import parse
    from ..training.progress import Reporter

    about = "Pruning plasticity: train densely (or take RUN), prune at each epoch, train on."
    args = parse(PlasticityOptions, words, prog="sparsetrain plasticity", about=about)
    print(plasticity(args, reporter=Reporter(), draw=write_pictures).text)
    return 0
