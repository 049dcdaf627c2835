"""What an epoch costs on this machine, from a few steps on random images: no data set is needed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from .. import data
from ..data import Augment, Dataset
from ..regularizers import HyperSparse
from ..training.config import TrainConfig, validation_share
from ..training.device import cpu_threads
from ..training.errors import BadInput
from ..training.loop import train_epoch
from ..training.options import ArtOptions, options_type
from ..training.session import Session, build_session

_IMAGES = (
    64  # the most in a measured step: a step of 128 through ResNet-50 takes a CPU half a minute
)
_SECONDS = 0.5  # of steps after the first
_EVALUATION = 1 / 3  # of a training step: no backward pass


@dataclass(frozen=True)
class Pace:
    """Seconds on this machine.

    Attributes:
        image: to train on one image, dense.
        regularizer: of one gradient of HyperSparse over all prunable weights.
    """

    image: float
    regularizer: float

    def seconds(self, config: TrainConfig) -> float:
        """A whole run: training, its evaluations, and ART's regulariser and judging.

        Raises:
            BadInput: the data set is not in the list, so its size is not known.
        """
        entry = _entry(config)
        held = round(validation_share(config) * entry.train)
        trained = entry.train - held
        watched = entry.test if config.sparse.compat == "paper" else held
        epoch = self.image * (trained + _EVALUATION * watched)
        total = config.optim.epochs * epoch + _EVALUATION * self.image * entry.test
        if isinstance(config.options, ArtOptions):
            steps = trained / config.optim.batch_size
            judged = _EVALUATION * self.image * (trained + held)
            most = config.options.max_regularize_epochs or 0
            total += most * (steps * self.regularizer + judged)
        return total


def problem(config: TrainConfig) -> tuple[object, ...]:
    """What a pace depends on: runs with equal problems are measured once."""
    model, run = config.model, config.run
    return (config.data.dataset, model, config.optim.batch_size, run.device, run.precision)


def measure(config: TrainConfig) -> Pace:
    """Time a few steps.

    Args:
        config: resolved; of its method only the network, the batch and the device count.
    Raises:
        BadInput: the data set is not in the list, or the run cannot be built.
    """
    size = min(_IMAGES, config.optim.batch_size)
    config = _dense(config, size)
    try:
        session = build_session(config, dataset=_noise(config, 3 * size))
    except ValueError as error:
        raise BadInput(str(error)) from error
    with cpu_threads(config.run.threads, step_flops=session.flops.total * size):
        return Pace(_step(session) / size, _regularizer(session))


def _step(session: Session) -> float:
    stamps: list[float] = []

    def after() -> None:
        if session.place.device.type == "cuda":
            torch.cuda.synchronize(session.place.device)
        stamps.append(time.perf_counter())

    while len(stamps) < 2 or stamps[-1] - stamps[0] < _SECONDS:
        train_epoch(
            session.network,
            session.optimizer,
            session.train.batches(0),
            place=session.place,
            lr=lambda _: 1e-4,
            after=after,
        )
    return (stamps[-1] - stamps[0]) / (len(stamps) - 1)


def _regularizer(session: Session) -> float:
    weights = [p.detach() for p in session.model.parameters() if p.ndim > 1]
    rule = HyperSparse(0.9)
    rule.grad(weights)
    started = time.perf_counter()
    rule.grad(weights)
    if session.place.device.type == "cuda":
        torch.cuda.synchronize(session.place.device)
    return time.perf_counter() - started


def _dense(config: TrainConfig, size: int) -> TrainConfig:
    return replace(
        config,
        sparse=replace(config.sparse, method="dense", sparsity=0.0, compat="none"),
        options=options_type("dense")(),
        data=replace(config.data, validation=0.0),
        optim=replace(config.optim, batch_size=size, epochs=1),
        run=replace(config.run, compile="none", parallel="none"),
    )


def _noise(config: TrainConfig, count: int) -> Dataset:
    entry = _entry(config)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *entry.image), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % entry.classes
    channels = entry.image[0]
    return Dataset(
        name=entry.name,
        train_images=images,
        train_labels=labels,
        test_images=images[:1],
        test_labels=labels[:1],
        classes=tuple(map(str, range(entry.classes))),
        mean=(0.5,) * channels,
        std=(0.3,) * channels,
        augment=Augment(crop_padding=2, flip=True),
    )


def _entry(config: TrainConfig) -> data.Entry:
    for entry in data.describe():
        if entry.name == config.data.dataset:
            return entry
    raise BadInput(f"the size of {config.data.dataset} is not known before it is read.")
