"""`sparsetrain search`: from a file to the best settings found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import tyro
import yaml
from torch import Tensor

from ... import data
from ...training.config import TrainConfig
from ...training.device import place
from ...training.errors import BadInput, Interrupted
from ...training.folder import default_path
from ...training.progress import Reporter, counted
from ...training.session import check_model
from ...training.settings import flatten
from .. import pool
from ..command import train_command
from ..terminated import exit_code, sigterm_raises
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
    taken = study.take_up() + study.take_up_failed()
    done = len(study.finished())
    again = f", {taken} taken up again" if taken else ""
    reporter.say(
        f"search {wanted.path.stem}: {wanted.trials} trials, {done} finished{again} -> {out}"
    )
    try:
        with sigterm_raises(), study.signs_of_life():
            _make(wanted, study, out, options.jobs, reporter)
    except (KeyboardInterrupt, Interrupted) as stop:
        done = len(study.finished())
        raise Interrupted(
            f"stopped with {done} of {wanted.trials} trials finished; the same command continues.",
            exit_code(stop),
        ) from None
    trials = tuple(study.finished())
    if trials:
        best = {**wanted.defaults, **trials[0].values}
        (out / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False), encoding="utf-8")
    return Searched(trials, _text(wanted, trials, out))


def _make(wanted: Search, study: Study, out: Path, jobs: int, reporter: Reporter) -> None:
    bench = Bench()
    if study.left():
        _prepare(wanted, bench, reporter)
    while left := study.left():
        trials = [study.ask() for _ in range(min(left, jobs))]
        ended = _run(wanted, trials, out, jobs, bench, reporter)
        for trial, outcomes in zip(trials, ended, strict=True):
            outcomes = [_judged(outcome) for outcome in outcomes]
            failed = [o for o in outcomes if o.record is None]
            errors, accuracy = [o.error for o in failed], None
            if not failed:
                accuracy = mean(o.record["val_accuracy"] for o in outcomes if o.record)
            final = any(o.final for o in failed)
            study.tell(trial, accuracy, "; ".join(errors), final=final)
            reporter.say(_line(wanted, trial, accuracy, errors))
        study.take_up()
    if others := study.elsewhere():
        reporter.say(f"{counted(others, 'trial')} under way in other processes.")


def _prepare(wanted: Search, bench: Bench, reporter: Reporter) -> None:
    """Find out now what would make every trial fail."""
    config = wanted.config({n: a.middle for n, a in wanted.space.items()}, wanted.seeds[0])
    try:
        place(config.run)
        check_model(config.model)
        _check_held_out(config, bench.load(config.data, reporter).train_labels)
    except ValueError as error:
        raise BadInput(str(error)) from error
    finally:
        reporter.close()


def _check_held_out(config: TrainConfig, labels: Tensor) -> None:
    share = config.data.validation or 0.0
    _, held = data.split(labels, share, seed=config.data.split_seed)
    if not len(held):
        raise BadInput(
            f"trials are judged by held-out images, and validation {share:g} of {len(labels):,} "
            "images holds out none; raise it."
        )


def _judged(outcome: Outcome) -> Outcome:
    """The outcome; one that cannot be judged has failed."""
    if outcome.record is None or "val_accuracy" in outcome.record:
        return outcome
    error = "it held out no images to be judged by; raise validation."
    return replace(outcome, record=None, error=error, final=True)


def _run(
    wanted: Search, trials: Sequence[Trial], out: Path, jobs: int, bench: Bench, reporter: Reporter
) -> list[list[Outcome]]:
    """The outcomes of each trial's seeds, in order."""
    found: list[list[Outcome]] = [[] for _ in trials]
    work: list[Job] = []
    for number, trial in enumerate(trials):
        try:
            configs = [wanted.config(trial.values, seed) for seed in wanted.seeds]
        except BadInput as error:  # values that do not go together
            found[number].append(Outcome(number, error=str(error), final=True))
            continue
        for config in configs:
            settings = {**flatten(config), "out": str(out / default_path(config).name)}
            work.append(Job(number, settings, train_command(config)))
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
