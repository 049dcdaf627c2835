"""torch.compile for forward and backward passes, beside the model, of which no key changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import RunConfig
from .errors import BadInput

BACKEND = "inductor"


@dataclass(frozen=True)
class Compiled:
    """Networks and their compiled calls.

    Attributes:
        mode: torch.compile's.
        sizes: batches of so many images are compiled for; others, such as the last one of an
            epoch, run as they are, because compiling for each costs up to a minute.
    """

    mode: str
    sizes: frozenset[int]
    calls: tuple[tuple[nn.Module, Callable[[Tensor], Tensor]], ...]

    def call_of(self, network: nn.Module, images: int) -> Callable[[Tensor], Tensor]:
        """What is called on a batch of so many images."""
        if images in self.sizes:
            for module, call in self.calls:
                if module is network:
                    return call
        return network


def compile_mode(run: RunConfig, device: torch.device, parallel: str) -> str | None:
    """What `compile` means here; None is not to compile.

    Args:
        run: its `compile` and `deterministic`.
        device: where the run computes.
        parallel: how the network is spread over processes.
    Raises:
        BadInput: FSDP2 and a mode asked for by name.
    """
    if run.compile == "none":
        return None
    if run.compile == "auto":
        # On a CPU compiling takes a minute and a C++ compiler, for less than a third of the time of
        # a step; and a compiler that times its kernels may choose others in the next run.
        wanted = device.type == "cuda" and parallel != "fsdp" and not run.deterministic
        return "default" if wanted else None
    if parallel == "fsdp":
        raise BadInput(
            f"compile={run.compile} does not go with parallel=fsdp, whose hooks gather the weights "
            "inside the forward pass; take --compile none or --parallel ddp."
        )
    return run.compile


def compile_calls(networks: Iterable[nn.Module], mode: str, sizes: Iterable[int]) -> Compiled:
    """Compiled calls of some modules, which stay as they are, with their keys and copies.

    Masks change in place and the learning rate is the optimizer's, so neither compiles anew. There
    is one graph for each of training and evaluation and each size that occurs in it.

    What was compiled before in this process is forgotten, and compiled anew if it is called.
    """
    # torch gives up after 8 graphs of one function, and the networks of a sweep share theirs.
    torch.compiler.reset()
    # Not nn.Module.compile: in torch 2.13 it passes over torch's own modules, as Sequential is.
    return Compiled(
        mode,
        frozenset(sizes),
        # Static shapes: a graph for any size is slower, and CUDA graphs need each size anyway.
        tuple((n, torch.compile(n, backend=BACKEND, mode=mode, dynamic=False)) for n in networks),
    )
