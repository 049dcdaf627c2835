"""What an epoch costs on this machine, from a few steps on random images: no data set is needed."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from .. import data
from ..data import Augment, Dataset
from ..data.streamed.decode import decode_cut, random_box
from ..regularizers import HyperSparse
from ..training.config import TrainConfig, validation_share
from ..training.device import cpu_threads
from ..training.errors import BadInput
from ..training.loop import train_epoch
from ..training.options import ArtOptions, options_type
from ..training.session import Session, build_session

# The most in a measured step: one of 128 through ResNet-50 takes a CPU half a minute. Of larger
# images fewer, in proportion to their area, but 16: a step has costs of its own.
_IMAGES, _LEAST, _SIDE = 64, 16, 64
_PHOTO = (500, 375)  # ImageNet's usual size
_DECODED = 24
_SECONDS = 0.5  # of steps after the first
_EVALUATION = 1 / 3  # of a training step: no backward pass


@dataclass(frozen=True)
class Pace:
    """Seconds on this machine.

    Attributes:
        image: to train on one image, dense; where images are decoded as they are needed, that too:
            beside a GPU's work, in turn with a CPU's.
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
    where = (config.data.dataset, config.data.image_size, config.data.workers)
    return (*where, model, config.optim.batch_size, run.device, run.precision)


def measure(config: TrainConfig) -> Pace:
    """Time a few steps.

    Args:
        config: resolved; of its method only the network, the batch and the device count.
    Raises:
        BadInput: the data set is not in the list, or the run cannot be built.
    """
    size = _images(config)
    config = _dense(config, size)
    try:
        session = build_session(config, dataset=noise(config, 3 * size))
    except ValueError as error:
        raise BadInput(str(error)) from error
    with cpu_threads(config.run.threads, step_flops=session.flops.total * size):
        step, decoding = _step(session) / size, _decoding(config)
        beside = session.place.device.type == "cuda"
        image = max(step, decoding) if beside else step + decoding
        return Pace(image, _regularizer(session))


def _images(config: TrainConfig) -> int:
    """Of a measured step."""
    area = _side(config) ** 2
    return min(config.optim.batch_size, max(_LEAST, min(_IMAGES, _IMAGES * _SIDE**2 // area)))


def _side(config: TrainConfig) -> int:
    return config.data.image_size or _entry(config).image[-1]


def _decoding(config: TrainConfig) -> float:
    """Seconds an image on all workers, of a photograph's size and bytes; 0 of data in memory."""
    if not _entry(config).streamed:
        return 0.0
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(_PHOTO, Image.Resampling.BICUBIC), float)
    noisy = np.clip(smooth + generator.normal(0, 9, smooth.shape), 0, 255)
    file = io.BytesIO()
    Image.fromarray(noisy.astype(np.uint8)).save(file, "JPEG", quality=92)
    reading = data.Reading(config.data.workers, reduced=config.data.reduced_decoding)
    started = time.perf_counter()
    for _ in range(_DECODED):
        file.seek(0)
        decode_cut(
            file,
            "photograph",
            lambda width, height: random_box(width, height, generator),
            side=_side(config),
            reduced=reading.reduced,
        )
    return (time.perf_counter() - started) / _DECODED / max(1, reading.worker_count())


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
        optim=replace(config.optim, batch_size=size, epochs=1, warmup=0.0, accumulate=1),
        run=replace(config.run, compile="none", parallel="none"),
    )


def noise(config: TrainConfig, count: int) -> Dataset:
    """Random training images of a data set's size, and one to test; nothing is read.

    Raises:
        BadInput: it is not in the list.
    """
    entry = _entry(config)
    generator = torch.Generator().manual_seed(0)
    channels, height, width = entry.image
    if config.data.image_size is not None:
        height = width = config.data.image_size
    size = (count, channels, height, width)
    images = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % entry.classes
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
