"""`sparsetrain search`: from a file to the best settings found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import tyro
import yaml

from ...training.errors import BadInput, Interrupted
from ...training.folder import default_path
from ...training.progress import Reporter
from ...training.session import check_model
from ...training.settings import flatten
from .. import pool
from ..command import train_command
from ..turns import in_turn
from ..worker import Bench, Job, Outcome
from .space import Search, load
from .study import Study, Trial


@dataclass(frozen=True)
class SearchOptions:
    """Options of `sparsetrain search`."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The search, a YAML file: defaults, space, trials, seeds."""
    out: Path | None = None
    """Folder of the run folders and of the study; None is runs/ and the file's name."""
    trials: int | None = None
    """How many are wanted in all; None is the file's number."""
    jobs: int = 1
    """Runs at a time; more share the CPU's threads and the GPUs. The same command on another
    machine, with --storage of a database that both reach, works on the same search."""
    storage: str | None = None
    """Optuna storage: a file of SQLite or a URL; None is study.db in the folder."""
    json: bool = False
    """Print a line for each finished trial on stdout; everything else goes to stderr."""


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        trials: finished, the best first.
        text: the best ones, and the command that trains with the best.
    """

    trials: tuple[Trial, ...]
    text: str


def search(options: SearchOptions, *, reporter: Reporter) -> Searched:
    """Make the trials that are left; test images are never looked at to choose.

    Raises:
        BadInput: the file or an option cannot be used.
        Interrupted: Ctrl-C or SIGTERM; the same command continues, runs under way included.
    """
    if options.jobs < 1:
        raise BadInput(f"jobs must be at least 1, got {options.jobs}.")
    wanted = load(options.file)
    if options.trials is not None:
        if options.trials < 1:
            raise BadInput(f"trials must be at least 1, got {options.trials}.")
        wanted = replace(wanted, trials=options.trials)
    out = options.out or Path("runs") / wanted.path.stem
    out.mkdir(parents=True, exist_ok=True)
    study = Study(wanted, options.storage or str(out / "study.db"))
    taken = study.take_up()
    done = len(study.finished())
    again = f", {taken} taken up again" if taken else ""
    reporter.say(
        f"search {wanted.path.stem}: {wanted.trials} trials, {done} finished{again} -> {out}"
    )
    try:
        _make(wanted, study, out, options.jobs, reporter)
    except (KeyboardInterrupt, Interrupted) as stop:
        code = stop.code if isinstance(stop, Interrupted) else 130
        done = len(study.finished())
        raise Interrupted(
            f"stopped with {done} of {wanted.trials} trials finished; the same command continues.",
            code,
        ) from None
    trials = tuple(study.finished())
    if trials:
        best = {**wanted.defaults, **trials[0].values}
        (out / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False), encoding="utf-8")
    return Searched(trials, _text(wanted, trials, out))


def _make(wanted: Search, study: Study, out: Path, jobs: int, reporter: Reporter) -> None:
    bench = Bench()
    if study.left():
        config = wanted.config({n: a.middle for n, a in wanted.space.items()}, wanted.seeds[0])
        check_model(config.model)
        bench.load(config.data, reporter)
        reporter.close()
    while left := study.left():
        trials = [study.ask() for _ in range(min(left, jobs))]
        ended = _run(wanted, trials, out, jobs, bench, reporter)
        for trial, outcomes in zip(trials, ended, strict=True):
            errors = [o.error for o in outcomes if o.record is None]
            accuracy = None
            if not errors:
                accuracy = mean(o.record["val_accuracy"] for o in outcomes if o.record)
            study.tell(trial, accuracy, "; ".join(errors))
            reporter.say(_line(wanted, trial, accuracy, errors))


def _run(
    wanted: Search, trials: Sequence[Trial], out: Path, jobs: int, bench: Bench, reporter: Reporter
) -> list[list[Outcome]]:
    """The outcomes of each trial's seeds, in order."""
    found: list[list[Outcome]] = [[] for _ in trials]
    work: list[Job] = []
    for place, trial in enumerate(trials):
        try:
            configs = [wanted.config(trial.values, seed) for seed in wanted.seeds]
        except BadInput as error:  # values that do not go together
            found[place].append(Outcome(place, error=str(error)))
            continue
        for config in configs:
            settings = {**flatten(config), "out": str(out / default_path(config).name)}
            work.append(Job(place, settings, train_command(config)))
    if work:
        for outcome in in_turn(
            work,
            lambda some: pool.run_all(some, workers=min(jobs, len(some)), bench=bench),
            lambda taken: reporter.say(f"{len(taken)} runs under way in another process; waiting."),
        ):
            found[outcome.index].append(outcome)
    return found


def _line(wanted: Search, trial: Trial, accuracy: float | None, errors: Sequence[str]) -> str:
    width = len(str(wanted.trials))
    said = f"val {100 * accuracy:5.2f} %" if accuracy is not None else f"failed: {errors[0]}"
    return f"[{trial.number + 1:>{width}}] {said}  {_values(trial.values)}"


def _values(values: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


def _text(wanted: Search, trials: Sequence[Trial], out: Path) -> str:
    if not trials:
        return "no trial has finished."
    lines = ["the best by held-out images:"]
    lines += [f"  val {100 * (t.accuracy or 0):5.2f} %  {_values(t.values)}" for t in trials[:5]]
    config = wanted.config(trials[0].values, wanted.seeds[0])
    lines += [f"settings of the best: {out / 'best.yaml'}", train_command(config)]
    return "\n".join(lines)
