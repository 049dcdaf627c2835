"""One row a method, of every family: how it is attached, and the kept weights after each step.

The contracts (tests/test_methods.py, tests/test_dst_processes.py) run every row on one small
network, in which each of the eight steps is an epoch of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

import sparsetrain as st
from sparsetrain import saliency
from sparsetrain.phases import PhaseDriver
from sparsetrain.types import Masks, View
from tests.nets import OPTIMIZERS, batch, train
from tests.oracles import dst

SPARSITY, STEPS = 0.9, 8
TOTAL = 8 * 1 * 9 + 8 * 8 * 9 + 48 * 3  # 792
TARGET = 80  # 792 - 712, the floor of 712.8

Engine: TypeAlias = st.Sparsifier | PhaseDriver


def network(*, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Convolutions, because smart ratio needs them, on the six numbers of `nets.batch`."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 3),
    )
    return net.to(dtype)


@dataclass(frozen=True)
class Row:
    """What the contracts need to know of a method.

    Attributes:
        attach: model, optimizer -> what keeps the model sparse from then on.
        kept: optimizer steps taken -> kept weights, derived without the library.
    """

    attach: Callable[[nn.Module, Optimizer], Engine]
    kept: Callable[[int], int]


def in_loop(name: str) -> Callable[[nn.Module, Optimizer], Engine]:
    def attach(model: nn.Module, optimizer: Optimizer) -> Engine:
        method = st.methods.create(name, sparsity=SPARSITY, total_steps=STEPS)
        return st.Sparsifier(model, optimizer, method)

    return attach


def at_init(name: str) -> Callable[[nn.Module, Optimizer], Engine]:
    def attach(model: nn.Module, optimizer: Optimizer) -> Engine:
        method = st.methods.static(SPARSITY, masks=initial_masks(name, model, SPARSITY))
        return st.Sparsifier(model, optimizer, method)

    return attach


def initial_masks(name: str, model: nn.Module, sparsity: float) -> Masks:
    """The masks of a method that is done before training; smart ratio reads no data."""
    if name == "smart_ratio":
        weights = {n: p.detach() for n, p in st.select(model).items()}
        view = View(0, weights, {}, {}, torch.Generator().manual_seed(0))
        return st.methods.static(sparsity, distribution="smart_ratio").init(view)[0]
    score = {"snip": saliency.snip, "grasp": saliency.grasp, "synflow": saliency.synflow}[name]
    dtype = next(model.parameters()).dtype
    return score(model, F.cross_entropy, [batch(seed=s, dtype=dtype) for s in (0, 1)], sparsity)


def art(model: nn.Module, optimizer: Optimizer) -> Engine:
    """Two dense steps, three that regularise, and three of fine-tuning; see `end_step`."""
    return st.ART(
        model,
        optimizer,
        sparsity=SPARSITY,
        dense_epochs=2,
        max_regularize_epochs=9,
        finetune_epochs=3,
        strength=1e-4,
    )


def imp(model: nn.Module, optimizer: Optimizer) -> Engine:
    """Half of what is left goes after each of the first four steps, then four of the last round."""
    options = {"epochs_per_round": 1, "final_epochs": 4, "fraction": 0.5}
    return st.IMP(model, optimizer, sparsity=SPARSITY, **options)  # type: ignore[arg-type]


ROWS: dict[str, Row] = {
    "dense": Row(in_loop("dense"), lambda step: TOTAL),
    "static": Row(in_loop("static"), lambda step: TARGET),
    "magnitude": Row(in_loop("magnitude"), lambda step: TOTAL if step < 4 else TARGET),
    "gmp": Row(in_loop("gmp"), lambda step: dst.kept(TOTAL, dst.cubic(0.0, 0.9, step, 0, 6))),
    "set": Row(in_loop("set"), lambda step: TARGET),
    "snfs": Row(in_loop("snfs"), lambda step: TARGET),
    "rigl": Row(in_loop("rigl"), lambda step: TARGET),
    "itop": Row(in_loop("itop"), lambda step: TARGET),
    "granet": Row(in_loop("granet"), lambda step: dst.kept(TOTAL, dst.cubic(0.5, 0.9, step, 0, 4))),
    "snip": Row(at_init("snip"), lambda step: TARGET),
    "grasp": Row(at_init("grasp"), lambda step: TARGET),
    "synflow": Row(at_init("synflow"), lambda step: TARGET),
    "smart_ratio": Row(at_init("smart_ratio"), lambda step: TARGET),
    "art": Row(art, lambda step: TOTAL if step < 5 else TARGET),
    "imp": Row(imp, lambda step: max(TARGET, math.ceil(TOTAL / 2**step)) if step < 4 else TARGET),
}
IN_LOOP, AT_INIT, PHASES = (
    [name for name in ROWS if name in st.methods.names(family)]
    for family in ("in-loop", "at-init", "phases")
)


def attached(
    name: str, optimizer: str, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Optimizer, Engine]:
    """A fresh network and optimizer under a method."""
    model = network(seed=seed, dtype=dtype)
    made = OPTIMIZERS[optimizer](model)
    return model, made, ROWS[name].attach(model, made)


def end_step(engine: Engine) -> None:
    """Phases end an epoch; the pruned copy is found better, so ART stops regularising at once."""
    if isinstance(engine, PhaseDriver):
        engine.epoch_end(0.5, lambda _: 0.9)  # type: ignore[attr-defined]


def steps(model: nn.Module, optimizer: Optimizer, engine: Engine, first: int, last: int) -> None:
    """Train from step `first` (exclusive) to step `last`."""
    for step in range(first, last):
        train(model, optimizer, 1, start=step)
        end_step(engine)
