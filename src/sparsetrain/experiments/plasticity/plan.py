"""What a study prunes and when: a training of its own, by a scale, or a run that is there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ...training import checkpoint
from ...training.check import resolve
from ...training.config import TrainConfig
from ...training.errors import BadInput
from ...training.folder import RunFolder
from ...training.settings import build
from .variants import Regrow, Structure

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
# Of a run that is there, as parts of its epochs.
_EVERY, _RECOVER = 10, 5


@dataclass(frozen=True)
class PlasticityOptions:
    """Options of `sparsetrain plasticity`."""

    run: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="RUN")] = None
    """A finished dense run with a checkpoint of each epoch, as `sparsetrain train --method dense
    --keep EPOCHS` leaves; the study has its settings. Without one the scale's is trained."""
    scale: Literal["full", "small", "smoke"] | None = None
    """full: ResNet-20 on CIFAR-10, 160 epochs, 30 to recover; small: ResNet-8 on Fashion-MNIST, 20
    and 4; smoke: digits, 8 and 1, minutes. None is smoke."""
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
    """Epochs from one pruning to the next; None is the scale's own, and a tenth of a RUN."""
    recover: int | None = None
    """Epochs at the frozen learning rate after a pruning; None is the scale's own, and a fifth of a
    RUN."""
    epochs: int | None = None
    """Epochs of the dense training; None is the scale's own."""
    to_end: bool = False
    """Also train every pruned network to the end of the schedule."""
    seed: int | None = None
    """Seed of the dense training and of random regrowth; None is 0, or the RUN's."""
    data_dir: Path | None = None
    """Where data sets lie; None is the user's cache folder, or as the RUN has it."""
    device: str | None = None
    """auto, cpu, cuda, cuda:1, ...; None is auto, or as the RUN has it."""
    out: Path | None = None
    """Folder of the results and of the scale's dense run; None is runs/plasticity-SCALE, or RUN."""
    dry_run: bool = False
    """Print how many prunings and epochs are left and what they will cost, and stop."""
    format: Literal["text", "csv", "json"] = "text"
    """How the curves are printed; curves.csv in the folder has them in any case."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        config: resolved, of the dense run; `out` is its folder.
        epochs: of the dense training, after which is pruned.
        recover: epochs at the frozen learning rate after a pruning.
        out: folder of the results.
        command: what trains the dense run; empty where it is there.
    """

    config: TrainConfig
    epochs: tuple[int, ...]
    recover: int
    out: Path
    command: str


def plan(options: PlasticityOptions) -> Plan:
    """What the options ask for; nothing is trained or written.

    Raises:
        BadInput: an option out of its range, or a run that cannot be used.
    """
    for name, value in [("share", options.share), *(("fractions", f) for f in options.fractions)]:
        if not 0 < value < 1:
            raise BadInput(f"{name} must be in (0, 1), got {value:g}.")
    if options.run is None:
        return _of_scale(options)
    for name in ("scale", "epochs", "seed"):
        if getattr(options, name) is not None:
            raise BadInput(f"{name} is that of {options.run}; leave it out.")
    return _of_run(options, options.run)


def _of_scale(options: PlasticityOptions) -> Plan:
    scale = options.scale or "smoke"
    epochs, every, recover, settings = _SCALES[scale]
    epochs = epochs if options.epochs is None else options.epochs
    when, recover = _when(options, epochs, every, recover)
    out = options.out or Path("runs") / f"plasticity-{scale}"
    values = settings | {"method": "dense", "epochs": epochs, "seed": options.seed or 0}
    # A tenth is held out: the curves are of these images, not of the test set.
    values |= {"validation": 0.1, "keep": epochs, "out": str(out / "dense")}
    command = f"sparsetrain plasticity --scale {scale}"
    return Plan(_placed(resolve(build(values)), options), when, recover, out, command)


def _of_run(options: PlasticityOptions, run: Path) -> Plan:
    folder = RunFolder(run)
    config, record = folder.load_config(), folder.load_record()
    if config.sparse.method != "dense":
        what = f"{run} is a run of {config.sparse.method}"
        raise BadInput(f"{what}, and a dense training is pruned here; give one of --method dense.")
    if record is None:
        again = f"sparsetrain train --config {folder.config} --out {run}"
        raise BadInput(f"{run} is not finished; `{again}` goes on with it.")
    if config.optim.ema is not None:
        raise BadInput(f"{run} was judged by an average of its weights; train one without --ema.")
    if record.get("val_accuracy") is None:
        raise BadInput(f"{run} held out no images to compare by; train one with --validation 0.1.")
    epochs = config.optim.epochs
    every, recover = (max(1, epochs // part) for part in (_EVERY, _RECOVER))
    when, recover = _when(options, epochs, every, recover)
    _check_kept(folder, when, epochs)
    return Plan(_placed(resolve(config), options), when, recover, options.out or run, "")


def _when(
    options: PlasticityOptions, epochs: int, every: int, recover: int
) -> tuple[tuple[int, ...], int]:
    """(epochs of pruning, epochs to recover), checked."""
    every = every if options.every is None else options.every
    recover = recover if options.recover is None else options.recover
    for name, value, least in (("epochs", epochs, 1), ("every", every, 1), ("recover", recover, 0)):
        if value < least:
            raise BadInput(f"{name} must be at least {least}, got {value}.")
    if every > epochs:
        raise BadInput(f"every must be at most epochs, {epochs}, got {every}: nothing is pruned.")
    return tuple(range(every, epochs + 1, every)), recover


def _check_kept(folder: RunFolder, when: tuple[int, ...], epochs: int) -> None:
    lost = [epoch for epoch in when if not checkpoint.of_epoch(folder.checkpoints, epoch).is_file()]
    if lost:
        named = ", ".join(map(str, lost[:3])) + (", …" if len(lost) > 3 else "")
        raise BadInput(
            f"{folder.path} has no checkpoint of epoch {named}; give an --every that passes over "
            f"what it lacks, or train it again with --checkpoint-every 1ep --keep {epochs} and "
            "another --out."
        )


def _placed(config: TrainConfig, options: PlasticityOptions) -> TrainConfig:
    """With the data and the device where the options say."""
    if options.data_dir is not None:
        config = replace(config, data=replace(config.data, data_dir=options.data_dir))
    if options.device is not None:
        config = replace(config, run=replace(config.run, device=options.device))
    return config
