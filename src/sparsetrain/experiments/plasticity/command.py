"""`sparsetrain plasticity`: the study of pruning plasticity, from dense training to its curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ...data.catalog import AnyDataset
from ...patterns import check_reachable, most_sparse
from ...selection import select
from ...training.config import TrainConfig
from ...training.device import cpu_threads, determinism, place
from ...training.errors import BadInput, Interrupted
from ...training.feeds import load_data
from ...training.folder import RunFolder
from ...training.progress import Reporter, counted
from ...training.run import train
from ...training.session import make_model
from ...training.stop import Signals, Stop
from ..cost import epoch_cost, epochs_done
from ..measure import noise
from ..results import make_row
from . import output
from .plan import Plan, plan
from .plan import PlasticityOptions as PlasticityOptions
from .rows import Draw, Rows
from .study import Study
from .variants import Variant, variants


@dataclass(frozen=True)
class Studied:
    """What a study came to.

    Attributes:
        folder: with the rows of all prunings as curves.csv, and the dense run where that was
            trained for it.
        text: the rows in the form that was asked for; after a dry run, what is left.
    """

    folder: Path
    text: str


def plasticity(
    options: PlasticityOptions, *, reporter: Reporter, draw: Draw = lambda _: ()
) -> Studied:
    """Train densely, then prune at each chosen epoch in every way, and train on.

    What is done already is read from the folder; the same command continues. A pruning that is
    stopped on the way is made again.

    Args:
        draw: called with the folder whenever its curves have been written.
    Raises:
        BadInput: an option out of its range, or a run that cannot be used.
        Interrupted: Ctrl-C or SIGTERM.
    """
    wanted = plan(options)
    data = _dataset(wanted.config, reporter, dry=options.dry_run)
    todo = _reachable(
        variants(wanted.epochs, options.fractions, options.structures, options.regrows),
        make_model(wanted.config.model, data, place(wanted.config.run)),
        reporter,
    )
    how = {"recover": wanted.recover, "to_end": options.to_end, "share": options.share}
    rows = Rows(wanted.out, how)
    if options.dry_run:
        return Studied(wanted.out, _left(wanted, todo, rows, to_end=options.to_end))
    folder, record = _dense(wanted, data, reporter)
    study = Study(
        _bare(wanted.config),
        folder.checkpoints,
        data,
        wanted.recover,
        options.to_end,
        options.share,
    )

    def finish(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"gap": row["end"] - record["val_accuracy"]} if options.to_end else row

    def show() -> Sequence[Path]:
        curves = rows.write_curves(finish)
        return () if curves is None else (curves, *draw(wanted.out))

    threads = cpu_threads(study.config.run.threads, step_flops=_step_flops(study.config, record))
    reporter.say(f"plasticity: {counted(len(todo), 'pruning')} -> {wanted.out}")
    with threads, determinism(study.config.run.deterministic):
        found = _measure(study, todo, rows, reporter, show)
    for path in show():
        reporter.say(f"{'curves' if path.suffix == '.csv' else 'picture'}: {path}")
    return Studied(wanted.out, output.shown(list(map(finish, found)), options.format))


def _dataset(config: TrainConfig, reporter: Reporter, *, dry: bool) -> AnyDataset:
    """The images; of a data set in the list, images of its size do where nothing is trained."""
    if dry:
        with suppress(BadInput):
            return noise(config, 1)
    try:
        return load_data(config.data, reporter.download)
    except OSError as error:
        raise BadInput(f"cannot read the data: {error}.") from error
    finally:
        reporter.close()


def _dense(wanted: Plan, data: AnyDataset, reporter: Reporter) -> tuple[RunFolder, dict[str, Any]]:
    """The dense run's folder and record; it is trained where it was not given."""
    assert wanted.config.run.out is not None  # `plan` sees to it
    folder = RunFolder(wanted.config.run.out)
    record = None if wanted.command else folder.load_record()
    if record is None:
        record = train(wanted.config, reporter=reporter, command=wanted.command, dataset=data)
    return folder, record


def _bare(config: TrainConfig) -> TrainConfig:
    """For short trainings from checkpoints, on one process."""
    run = replace(config.run, trace=False, tensorboard=False, parallel="none", compile="none")
    return replace(config, run=run)


def _reachable(wanted: Iterable[Variant], model: nn.Module, reporter: Reporter) -> list[Variant]:
    """Without the fractions that whole filters cannot reach, which are told.

    Raises:
        BadInput: none is left.
    """
    shapes = {name: tuple(p.shape) for name, p in select(model).items()}
    kept, left_out = [], set[float]()
    for variant in wanted:
        try:
            if variant.structure == "channel":
                check_reachable(shapes, variant.fraction)
            kept.append(variant)
        except ValueError:
            left_out.add(variant.fraction)
    if left_out:
        lost = ", ".join(f"{fraction:g}" for fraction in sorted(left_out))
        said = f"whole filters of this network reach {most_sparse(shapes):g} at most"
        if not kept:
            raise BadInput(f"fractions {lost}: {said}; lower them, or take other structures.")
        reporter.say(f"left out: structure channel at {lost}, for {said}.")
    return kept


def _left(wanted: Plan, todo: Sequence[Variant], rows: Rows, *, to_end: bool) -> str:
    """How many prunings and epochs are left, and what they will cost."""
    config, epochs = wanted.config, wanted.config.optim.epochs
    assert config.run.out is not None
    folder = RunFolder(config.run.out)
    left = [variant for variant in todo if rows.find(variant) is None]
    after = len(left) * wanted.recover
    after += sum(epochs - variant.epoch for variant in left) if to_end else 0
    dense = epochs - epochs_done(folder)
    record = folder.load_record()
    cost = epoch_cost(config, () if record is None else (make_row(record),))
    return "\n".join(
        [
            f"plasticity: {counted(len(todo), 'pruning')}, {len(todo) - len(left)} finished, "
            f"{len(left)} to do -> {wanted.out}",
            f"epochs to train: {dense} of the dense network, {after} after prunings",
            cost.line(dense + after),
        ]
    )


def _measure(
    study: Study,
    wanted: Sequence[Variant],
    rows: Rows,
    reporter: Reporter,
    show: Callable[[], object],
) -> list[dict[str, Any]]:
    """A row for each variant; those made before with the same options are read."""
    found: list[dict[str, Any]] = []
    rows.open_()
    signals = Signals()
    try:
        with signals:
            for number, variant in enumerate(wanted, 1):
                row = rows.find(variant)
                if row is None:
                    row = rows.add_(study.measure(variant, check=signals.check))
                    show()
                    reporter.say(f"[{number}/{len(wanted)}] {output.line(row)}")
                found.append(row)
    except (KeyboardInterrupt, Stop):
        raise Interrupted(
            f"stopped with {len(found)} of {len(wanted)} prunings; the same command continues.",
            signals.code,
        ) from None
    return found


def _step_flops(config: TrainConfig, record: dict[str, Any]) -> int:
    """Of the dense run's batch, which decides on the threads; as in its training."""
    return record["flops"]["inference_dense"] * config.optim.batch_size
