"""Ranges of the settings, each with its sentence, and the numbers that follow from others."""

from __future__ import annotations

import math
from dataclasses import replace

from ..masks import check_sparsity
from . import cadence, live
from .config import TrainConfig, validation_share
from .errors import BadInput
from .options import ArtOptions


def resolve(config: TrainConfig) -> TrainConfig:
    """The settings with ranges checked and ART's phases given in epochs.

    Args:
        config: as built from a file and flags.
    Returns:
        The same tree; ART's `dense_epochs` and `max_regularize_epochs` are numbers, `epochs` is the
        most the run can take, `validation` a number, `dense` has no sparsity.
    Raises:
        BadInput: a value out of its range.
    """
    _sparsity(config.sparse.sparsity)
    if config.run.tensorboard:
        live.check_installed()
    _ranges(config)
    if config.sparse.method == "dense":
        config = replace(config, sparse=replace(config.sparse, sparsity=0.0))
    config = replace(config, data=replace(config.data, validation=validation_share(config)))
    if isinstance(config.options, ArtOptions):
        config = _art(config, config.options)
    return config


def _sparsity(value: float) -> None:
    try:
        check_sparsity(value)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _ranges(config: TrainConfig) -> None:
    data, optim, run = config.data, config.optim, config.run
    _at_least("epochs", optim.epochs, 1)
    _at_least("batch_size", optim.batch_size, 1)
    _at_least("keep", run.keep, 1)
    _at_least("prefetch", data.prefetch, 1)
    _within("accumulate", optim.accumulate, 1, optim.batch_size)
    if optim.ema is not None:
        _within("ema", optim.ema, 0, 1, below=True)
    cadence.parse(run.checkpoint_every)
    _at_least("seed", run.seed, 0)
    _at_least("split_seed", data.split_seed, 0)
    for name, number in _optional(config):
        if number is not None:
            _at_least(name, number, 0 if name in ("crop_padding", "workers") else 1)
    _within("validation", validation_share(config), 0, 1, below=True)
    _within("lr", optim.lr, 0, math.inf, below=True, above=True)
    _within("momentum", optim.momentum, 0, 1, below=True)
    _within("warmup", optim.warmup, 0, optim.epochs)
    _within("weight_decay", optim.weight_decay, 0, math.inf, below=True)
    _within("lr_decay", optim.lr_decay, 0, 1, above=True)
    _within("label_smoothing", optim.label_smoothing, 0, 1, below=True)
    for milestone in optim.milestones:
        _within("milestones", milestone, 0, 1, above=True, below=True)
    if optim.nesterov and (optim.optimizer != "sgd" or optim.momentum == 0):
        raise BadInput("nesterov needs optimizer=sgd and momentum above 0.")


def _optional(config: TrainConfig) -> tuple[tuple[str, int | None], ...]:
    return (
        ("width", config.model.width),
        ("crop_padding", config.data.crop_padding),
        ("image_size", config.data.image_size),
        ("workers", config.data.workers),
        ("threads", config.run.threads),
    )


def _art(config: TrainConfig, options: ArtOptions) -> TrainConfig:
    total = config.optim.epochs
    dense, most, finetune = (
        options.dense_epochs,
        options.max_regularize_epochs,
        options.finetune_epochs,
    )
    dense = max(1, total // 4) if dense is None else dense
    most = max(1, (total - dense) // 2) if most is None else most
    _at_least("dense_epochs", dense, 0)
    _at_least("max_regularize_epochs", most, 1)
    if finetune is not None:
        _at_least("finetune_epochs", finetune, 0)
        total = dense + most + finetune
    elif dense + most >= total:
        raise BadInput(
            f"dense_epochs + max_regularize_epochs must be below epochs, so that fine-tuning has "
            f"at least one, got {dense} + {most} of {total}. Raise epochs to {dense + most + 1}."
        )
    if options.strength is not None:
        _within("strength", options.strength, 0, math.inf, below=True)
    if options.strength_factor is not None:
        _within("strength_factor", options.strength_factor, 1, math.inf, below=True)
    if options.window < 1 or options.window % 2 == 0:
        raise BadInput(f"window must be odd and at least 1, got {options.window}.")
    filled = replace(options, dense_epochs=dense, max_regularize_epochs=most)
    return replace(config, options=filled, optim=replace(config.optim, epochs=total))


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise BadInput(f"{name} must be at least {least}, got {value}.")


def _within(
    name: str, value: float, low: float, high: float, *, above: bool = False, below: bool = False
) -> None:
    over = value > low if above else value >= low
    under = value < high if below else value <= high
    if not (over and under):
        allowed = f"{'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
        raise BadInput(f"{name} must be in {allowed}, got {value:g}.")
