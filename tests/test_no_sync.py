"""On an ordinary step nothing waits for the device.

Meta tensors stand in for a GPU's: every branch for other devices than the CPU is taken, and whoever
reads a value is noticed, because there is none to read.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import sparsetrain as st
from sparsetrain.data.augment import Augment
from sparsetrain.data.loader import Loader
from sparsetrain.training.device import Place
from sparsetrain.training.loop import train_epoch
from sparsetrain.training.nonfinite import Guard

META = torch.device("meta")
STEPS = 4
_READS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_to_copy"}


class Reads(TorchDispatchMode):
    """Counts what would wait for the device, and answers with zeros so that the rest goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        from_meta = any(isinstance(a, Tensor) and a.device == META for a in args)
        if name not in _READS or not from_meta:
            return func(*args, **kwargs)
        if name != "_to_copy":
            self.count += 1
            return {"_local_scalar_dense": 1, "is_nonzero": False, "equal": True}[name]
        target = kwargs.get("device")
        if target is None or torch.device(target) == META:
            return func(*args, **kwargs)
        self.count += 1
        return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)


class _StopError(Exception):
    pass


class _MetaPlace(Place):
    def forward(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(images)  # autocast knows no meta device


def _model() -> nn.Module:
    return st.models.create("resnet8", num_classes=4, in_channels=3, image_size=8)


def _on_meta(method: Any, make: Callable[..., Any], **options: Any) -> tuple[Any, ...]:
    """A Sparsifier that was made on the CPU, moved; the moving may read."""
    model = _model()
    made = st.Sparsifier(model, make(model.parameters()), method, **options)
    model = copy.deepcopy(model).to(META)
    optimizer = make(model.parameters())
    with Reads():
        made.attach(model, optimizer)
    return model, optimizer, made


def _batches(**options: Any) -> Loader:
    images = torch.zeros(STEPS * 8, 3, 8, 8, dtype=torch.uint8)
    augment = Augment(crop_padding=1, flip=True)
    return Loader(
        images,
        torch.zeros(len(images), dtype=torch.int64),
        batch_size=8,
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        augment=augment,
        shuffle=True,
        seed=0,
        device=META,
        **options,
    )


def _reads(model: nn.Module, optimizer: Any, mode: Any = "stop") -> int:
    """How often `STEPS` steps of an epoch read from the device; what ends an epoch is not run."""
    taken = 0

    def after() -> None:
        nonlocal taken
        taken += 1
        if taken == STEPS:
            raise _StopError

    batches = _batches().batches(0)
    guard = Guard(model, mode=mode)
    with pytest.raises(_StopError), Reads() as reads:
        train_epoch(
            model,
            optimizer,
            batches,
            place=_MetaPlace(META, bf16=False, channels_last=True),
            lr=lambda batch: 0.1 / (batch + 1),
            guard=guard,
            after=after,
        )
    return reads.count


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)


METHODS = {
    "dense": lambda: st.methods.dense(),
    "static": lambda: st.methods.static(sparsity=0.9),
    **{
        name: lambda name=name: st.methods.create(
            name, sparsity=0.9, total_steps=100, update_every=STEPS + 1
        )
        for name in ("gmp", "set", "rigl", "granet", "itop")
    },
}


@pytest.mark.parametrize("make", [_sgd, torch.optim.Adam])
@pytest.mark.parametrize("name", METHODS)
def test_an_ordinary_step_reads_nothing(name, make):
    model, optimizer, sparsifier = _on_meta(METHODS[name](), make)
    assert _reads(model, optimizer) == 0
    assert sparsifier.step == STEPS


@pytest.mark.parametrize("regularizer", [st.HyperSparse(0.9), st.L1(), st.L2()], ids=str)
def test_a_regularised_step_reads_nothing(regularizer):
    model, optimizer, _ = _on_meta(METHODS["dense"](), _sgd, regularizer=regularizer, strength=1.0)
    assert _reads(model, optimizer) == 0


def test_reads_are_counted():
    model, optimizer, _ = _on_meta(METHODS["static"](), _sgd)
    # skip is said to look once before each step.
    assert _reads(model, optimizer, "skip") == STEPS
    for read in (Tensor.item, float, bool, Tensor.tolist, Tensor.cpu, math.isfinite):
        with Reads() as reads:
            read(torch.zeros((), device=META))
        assert reads.count == 1, read
