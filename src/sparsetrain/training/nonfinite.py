"""NaN and infinity in loss, gradients and weights: noticed at the step, named by layer."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..finite import is_finite_on_cpu
from ..sharded import local
from .errors import Diverged
from .parallel import ALONE, World

MOST_IN_A_ROW = 20
Mode = Literal["stop", "skip"]


class Guard:
    """Looks at each step of one epoch.

    mode="stop": on the CPU the loss is looked at before each step and the weights after it (those
    under a mask by the engine, the few others here), so the first bad step is the one named.
    Elsewhere the losses are only kept, which costs no kernel, and looked at by `check`; nothing
    waits for the device. mode="skip": loss and all gradients are looked at before each step, on
    every device; on the CPU that is one sum over the gradients, on a GPU one wait a step.

    Args:
        model: every parameter and buffer of it is guarded.
        watched: names of the parameters that the engine looks at itself, after each step.
        mode: stop at the first bad step, or leave it out.
        first: steps of the run before this epoch, so that a step can be named.
        at_once: whether to look during the step; None: on the CPU.
        world: the processes that must stop, or skip, together; looking at once costs a message.
    """

    def __init__(
        self,
        model: nn.Module,
        watched: Collection[str] = (),
        *,
        mode: Mode = "stop",
        first: int = 0,
        at_once: bool | None = None,
        world: World = ALONE,
    ) -> None:
        self._model, self._first, self._world = model, first, world
        self._parameters = dict(model.named_parameters())
        self._others = [p for name, p in self._parameters.items() if name not in watched]
        device = next((p.device for p in self._others or model.parameters()), torch.device("cpu"))
        self._at_once = device.type == "cpu" if at_once is None else at_once
        self._losses: list[Tensor] = []
        self._skips = mode == "skip"
        self._buffers = list(model.buffers()) if self._skips else []
        self._before = [buffer.clone() for buffer in self._buffers]
        self._batch = -1

    def begin(self, batch: int) -> None:
        """Before the forward pass of a batch, counted from 0 in the epoch."""
        self._batch = batch
        # A bad batch spoils the running statistics, which the next forward pass does not show.
        for before, buffer in zip(self._before, self._buffers, strict=True):
            before.copy_(buffer)

    def step(self, optimizer: Optimizer, loss: Tensor, images: Tensor) -> bool:
        """Take the step; after the backward pass.

        Returns:
            Whether it was taken; if not, gradients are dropped and buffers are as before.
        Raises:
            Diverged: mode is stop, and loss or weights are NaN or infinite; it names the layer.
        """
        if self._skips:
            if not self._is_good(loss):
                self._drop(optimizer)
                return False
        elif not self._at_once:
            self._losses.append(loss.detach())
        elif not self._world.all_good(math.isfinite(value := float(loss.detach()))):
            raise self._bad_loss(value, images)
        try:
            optimizer.step()
        except FloatingPointError:
            self._check_weights()
            raise
        if self._at_once:
            good = all(is_finite_on_cpu(local(p)) for p in self._others)
            # Replicas are bad together, shards are not.
            if not (self._world.all_good(good) if self._world.mode == "fsdp" else good):
                self._check_weights()
        return True

    def check(self) -> None:
        """Look now, before a checkpoint and at the end of an epoch; waits for the device.

        Raises:
            Diverged: a loss since the epoch's start, or a weight now, is NaN or infinite.
        """
        if self._at_once:
            return
        if self._losses:
            losses, last = torch.stack(self._losses), self._batch
            self._losses.clear()
            bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
            # The first bad one of any process: the largest number left behind it.
            (behind,) = self._world.most(len(losses) - bad[0] if bad else 0)
            if behind:
                self._batch = last - behind + 1
                what = f"the loss became {float(losses[-behind])}"
                raise self._failed(what, _bad(self._parameters, self._world))
        self._check_weights()

    def too_many(self, in_a_row: int) -> None:
        """Whether skipping has gone on for too long.

        Raises:
            Diverged: it has.
        """
        if in_a_row >= MOST_IN_A_ROW:
            raise self._failed(
                f"{in_a_row} steps in a row had a loss or gradient that is NaN or infinite", []
            )

    def _is_good(self, loss: Tensor) -> bool:
        return self._world.all_good(self._is_good_here(loss))

    def _is_good_here(self, loss: Tensor) -> bool:
        grads = [local(p.grad) for p in self._parameters.values() if p.grad is not None]
        if loss.device.type == "cpu":
            return math.isfinite(float(loss.detach())) and all(map(is_finite_on_cpu, grads))
        grads = [grad for grad in grads if grad.numel()]
        peaks = torch._foreach_norm(grads, ord=torch.inf)  # pyright: ignore[reportPrivateImportUsage]
        return bool(torch.isfinite(torch.stack([loss.detach(), *peaks]).sum()))

    def _drop(self, optimizer: Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        for before, buffer in zip(self._before, self._buffers, strict=True):
            buffer.copy_(before)

    def _check_weights(self) -> None:
        bad = _bad(self._parameters, self._world)
        if bad:  # else a sum overflowed, the weights themselves did not
            raise self._failed("a weight became NaN or infinite", bad)

    def _bad_loss(self, value: float, images: Tensor) -> Diverged:
        where = _first_bad_layer(self._model, images, self._world)
        if math.isfinite(value):  # that process says where
            return self._failed("the loss of another process became NaN or infinite", [])
        return self._failed(f"the loss became {value}", where)

    def _failed(self, what: str, where: list[str]) -> Diverged:
        named = f" in {', '.join(where[:3])}{' and more' if where[3:] else ''}" if where else ""
        step = f"step {self._first + self._batch + 1} of the run"
        return Diverged(f"{what} at {step}{named}; try a lower learning rate.")


def _bad(tensors: dict[str, nn.Parameter], world: World) -> list[str]:
    here = [int(not bool(torch.isfinite(local(tensor)).all())) for tensor in tensors.values()]
    return [name for name, bad in zip(tensors, world.most(*here), strict=True) if bad]


@torch.no_grad()
def _first_bad_layer(model: nn.Module, images: Tensor, world: World) -> list[str]:
    """Where NaN or infinity comes in: the images, else weights, else the first layer's output."""
    weights = _bad(dict(model.named_parameters()), world)
    if weights and bool(torch.isfinite(images).all()):
        return weights
    found: list[str] = []

    def look(name: str, output: object) -> None:
        if not found and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
            found.append(f"the output of {name or 'the network'}")

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: look(name, output))
        for name, module in model.named_modules()
    ]
    try:
        model(images)  # once more: nothing goes on from here, so its running statistics may move
    finally:
        for handle in handles:
            handle.remove()
    if not bool(torch.isfinite(images).all()):
        return ["the images of its batch"]
    return found or ["the loss"]
