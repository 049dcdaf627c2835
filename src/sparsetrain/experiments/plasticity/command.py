"""`sparsetrain plasticity`: the study of pruning plasticity, from dense training to its curves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ...patterns import check_reachable, most_sparse
from ...selection import select
from ...training.check import resolve
from ...training.checkpoint import write_atomic
from ...training.device import cpu_threads, place
from ...training.errors import BadInput, Interrupted
from ...training.feeds import load_data
from ...training.folder import RunFolder
from ...training.progress import Reporter
from ...training.run import train
from ...training.session import make_model
from ...training.settings import build
from ...training.stop import Signals, Stop
from . import output
from .study import Study
from .variants import Regrow, Structure, Variant, variants

# epochs of the dense run, between prunings, at the frozen rate; the settings of the dense run.
_SCALES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "smoke": (8, 3, 1, {"dataset": "digits", "model": "resnet8", "lr": 0.1}),
    "small": (
        20,
        2,
        4,
        {"dataset": "fashion-mnist", "model": "resnet8", "batch_size": 128, "nesterov": True}
        | {"flip": True, "crop_padding": 0, "weight_decay": 2e-4},
    ),
    "full": (
        160,
        10,
        30,
        {"dataset": "cifar10", "model": "resnet20", "batch_size": 128, "nesterov": True}
        | {"weight_decay": 5e-4, "precision": "fp32"},
    ),
}


@dataclass(frozen=True)
class PlasticityOptions:
    """Options of `sparsetrain plasticity`."""

    scale: Literal["full", "small", "smoke"] = "smoke"
    """full: ResNet-20 on CIFAR-10, 160 epochs, 30 to recover; small: ResNet-8 on Fashion-MNIST, 20
    and 4; smoke: digits, 8 and 1, minutes."""
    fractions: tuple[float, ...] = (0.2, 0.5, 0.9, 0.98)
    """Fractions of the weights that are pruned."""
    structures: tuple[Structure, ...] = ("global", "layer", "channel")
    """global: the smallest weights of all layers together; layer: of each layer; channel: whole
    filters."""
    regrows: tuple[Regrow, ...] = ("none", "gradient", "random")
    """Which of the pruned weights come back, while as many of the smallest left go."""
    share: float = 0.1
    """Share of the weights left that regrowth exchanges."""
    every: int | None = None
    """Epochs from one pruning to the next; None is the scale's own."""
    recover: int | None = None
    """Epochs at the frozen learning rate after a pruning; None is the scale's own."""
    epochs: int | None = None
    """Epochs of the dense training; None is the scale's own."""
    to_end: bool = False
    """Also train every pruned network to the end of the schedule."""
    seed: int = 0
    """Seed of the dense training and of random regrowth."""
    out: Path | None = None
    """Folder of the dense run and the results; None is runs/plasticity-SCALE."""
    format: Literal["text", "csv", "json"] = "text"
    """How the curves are printed; curves.csv in the folder has them in any case."""


@dataclass(frozen=True)
class Studied:
    """What a study came to.

    Attributes:
        folder: with the dense run, and the rows of all prunings as curves.csv.
        text: the rows in the form that was asked for.
    """

    folder: Path
    text: str


def plasticity(options: PlasticityOptions, *, reporter: Reporter) -> Studied:
    """Train densely, then prune at each chosen epoch in every way, and train on.

    What is done already is read from the folder; the same command continues. A pruning that is
    stopped on the way is made again.

    Raises:
        BadInput: an option out of its range.
        Interrupted: Ctrl-C or SIGTERM.
    """
    epochs, every, recover, settings = _SCALES[options.scale]
    epochs = epochs if options.epochs is None else options.epochs
    every = every if options.every is None else options.every
    recover = recover if options.recover is None else options.recover
    _check(options, epochs=epochs, every=every, recover=recover)
    out = options.out or Path("runs") / f"plasticity-{options.scale}"
    values = settings | {"method": "dense", "epochs": epochs, "seed": options.seed}
    # A tenth is held out: the curves are of these images, not of the test set.
    values |= {"validation": 0.1, "keep": epochs, "out": str(out / "dense")}
    config = resolve(build(values))
    data = load_data(config.data, reporter.download)
    reporter.close()
    epochs_of = tuple(range(every, epochs + 1, every))
    wanted = _reachable(
        variants(epochs_of, options.fractions, options.structures, options.regrows),
        make_model(config.model, data, place(config.run)),
        reporter,
    )
    command = f"sparsetrain plasticity --scale {options.scale}"
    record = train(config, reporter=reporter, command=command, dataset=data)
    checkpoints = RunFolder(out / "dense").checkpoints
    study = Study(config, checkpoints, data, recover, options.to_end, options.share)
    rows = _measure(study, wanted, out / "results.jsonl", reporter)
    if options.to_end:
        rows = [row | {"gap": row["end"] - record["val_accuracy"]} for row in rows]
    write_atomic(out / "curves.csv", output.as_csv(rows).encode())
    reporter.say(f"curves: {out / 'curves.csv'}")
    return Studied(out, output.shown(rows, options.format))


def _check(options: PlasticityOptions, *, epochs: int, every: int, recover: int) -> None:
    for name, value, least in (("epochs", epochs, 1), ("every", every, 1), ("recover", recover, 0)):
        if value < least:
            raise BadInput(f"{name} must be at least {least}, got {value}.")
    if every > epochs:
        raise BadInput(f"every must be at most epochs, {epochs}, got {every}: nothing is pruned.")
    for name, value in [("share", options.share), *(("fractions", f) for f in options.fractions)]:
        if not 0 < value < 1:
            raise BadInput(f"{name} must be in (0, 1), got {value:g}.")


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


def _measure(
    study: Study, wanted: Sequence[Variant], path: Path, reporter: Reporter
) -> list[dict[str, Any]]:
    """A row for each variant; those made before with the same options are read."""
    how = {"recover": study.recover, "to_end": study.to_end, "share": study.share}
    done = _done(path)
    # Without the half line that a killed process may have left: rows are appended.
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in done).encode())
    rows: list[dict[str, Any]] = []
    reporter.say(f"plasticity: {len(wanted)} prunings -> {path.parent}")
    signals = Signals()
    try:
        with cpu_threads(study.config.run.threads, step_flops=_step_flops(study)), signals:
            for place, variant in enumerate(wanted, 1):
                key = variant.about() | how
                row = next((r for r in done if key.items() <= r.items()), None)
                if row is None:
                    row = study.measure(variant, check=signals.check) | how
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    reporter.say(f"[{place}/{len(wanted)}] {output.line(row)}")
                rows.append(row)
    except (KeyboardInterrupt, Stop):
        raise Interrupted(
            f"stopped with {len(rows)} of {len(wanted)} prunings; the same command continues.",
            signals.code,
        ) from None
    return rows


def _step_flops(study: Study) -> int:
    """Of the dense run's batch, which decides on the threads; as in its training."""
    record = RunFolder(study.checkpoints.parent).load_record() or {}
    return record["flops"]["inference_dense"] * study.config.optim.batch_size


def _done(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last one of a killed process
                rows.append(json.loads(line))
    return rows
