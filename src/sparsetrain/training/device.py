"""Where a run computes and in what precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .compiled import Compiled
from .config import RunConfig
from .errors import BadInput
from .parallel import ALONE, World, local_rank

_SMALL_STEP = 5e8


@dataclass(frozen=True)
class Place:
    """A device, how forward and backward passes are computed on it, and who else computes."""

    device: torch.device
    bf16: bool
    channels_last: bool
    world: World = ALONE
    compiled: Compiled | None = None

    def autocast(self) -> torch.autocast:
        """The number format of forward passes."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def forward(self, network: nn.Module, images: Tensor) -> Tensor:
        """What a network makes of a batch; the backward pass is computed alike."""
        call = network if self.compiled is None else self.compiled.call_of(network, len(images))
        with self.autocast():
            return call(images)

    def __str__(self) -> str:
        kind = f"{self.device} {'bf16' if self.bf16 else 'fp32'}"
        kind += "" if self.compiled is None else f" compiled ({self.compiled.mode})"
        return kind if self.world.size == 1 else f"{kind}, {self.world.mode} x {self.world.size}"


def place(run: RunConfig, world: World = ALONE) -> Place:
    """Turn `device` and `precision`, "auto" included, into what this machine has.

    Raises:
        BadInput: the device is not there, or is no device.
    """
    device = _device(run.device)
    if world.size > 1 and device.type == "cuda":
        device = torch.device("cuda", local_rank())
    bf16 = _has_bf16(device) if run.precision == "auto" else run.precision == "bf16"
    # FSDP2 takes contiguous parameters only.
    return Place(device, bf16, run.channels_last and world.mode != "fsdp", world)


def device_name(device: torch.device) -> str:
    """The hardware's own name, for the record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = _cpuinfo().splitlines()
    names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    return names[0] if names else device.type


@contextmanager
def determinism(enabled: bool) -> Iterator[None]:
    """Deterministic kernels inside, the earlier setting afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(enabled or before, warn_only=True)
    torch.backends.cudnn.benchmark = not enabled
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def cpu_threads(asked: int | None, *, step_flops: int) -> Iterator[int]:
    """Compute with so many threads inside, with the earlier number afterwards.

    Args:
        asked: a number, or None to decide by the size of a step.
        step_flops: of one batch's forward pass.
    """
    before = torch.get_num_threads()
    # Threads wait for each other at every layer: 40 epochs of digits took 6 s on one thread, and
    # on two, with the cores shared, 34 to 99 s.
    chosen = asked or (1 if step_flops < _SMALL_STEP else before)
    torch.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"device must be auto, cpu or cuda[:N], got {name!r}.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise BadInput(f"device {name!r} is not there: torch sees {count} CUDA GPUs here.")
    elif device.type != "cpu":
        raise BadInput(f"device must be auto, cpu or cuda[:N], got {name!r}.")
    return device


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "avx512_bf16" in _cpuinfo()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
