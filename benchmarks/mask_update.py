"""What masks cost on CPU: an ordinary step of a masked network, and an update of the masks.

    python benchmarks/mask_update.py [--threads N] [--rounds 6] [--smoke]

Ordinary step: ResNet-32 (width 2), batch 64, channels-last, fused SGD with momentum, as the trainer
runs it; static masks against none. Gate: at most 1.03 dense steps.

Update: the 54 prunable tensors of the ImageNet ResNet-50, 25,502,912 weights, with random dense
gradients. Timed is the whole `optimizer.step()` in which the masks change: SGD, masking, ranking.
The rounds cover the first half of a training. The dense training step beside it is that of
resnet50-cifar on 32x32 images at batch 64: 1.3 GMAC an image, a third of what the ImageNet network
costs at 224x224, so the gate is harder this way. Gate: at most one such step, in the faster of
float32 and bfloat16 autocast. All contenders take turns and are in memory together, about 5 GB.

Memory: by how much the first update lifts the process's peak, each method in its own process.
Exits with 1 where a gate is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import interleaved, machine, ratio, spread
from torch import Tensor, nn
from torch.nn import functional as F

import sparsetrain as st

RECORD = Path(__file__).parent / "records" / "mask-update.json"
STEP_GATE, UPDATE_GATE = 1.03, 1.0
SPARSITY, LAST = 0.9, torch.channels_last
METHODS = ("gmp", "granet", "rigl", "itop", "set", "snfs", "magnitude")
FEW = ("gmp", "granet", "rigl")
Times = dict[str, list[float]]
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        small: network of the ordinary step, and its options.
        large: network of the dense step beside the updates.
        width: channels of the ResNet-50 shapes' first stage; 64 is the ImageNet network.
        batch: images a step.
        image: their side in pixels.
        steps: timed ordinary steps a side.
        rounds: timed updates of each method.
        peaks: methods whose memory is measured.
    """

    small: tuple[str, dict[str, int]] = ("resnet32", {"width": 2})
    large: str = "resnet50-cifar"
    width: int = 64
    batch: int = 64
    image: int = 32
    steps: int = 20
    rounds: int = 6
    peaks: tuple[str, ...] = METHODS


SMOKE = Size(("resnet8", {}), "resnet8", 2, 2, 8, steps=2, rounds=2, peaks=("gmp",))


def resnet50_layers(width: int = 64) -> list[nn.Module]:
    """The 53 convolutions and the classifier of the ImageNet ResNet-50, without bias."""
    inputs, layers = width, [nn.Conv2d(3, width, 7, bias=False)]
    for inside, blocks in zip((width, 2 * width, 4 * width, 8 * width), (3, 4, 6, 3), strict=True):
        for block in range(blocks):
            shapes = [(inputs, inside, 1), (inside, inside, 3), (inside, 4 * inside, 1)]
            shapes += [(inputs, 4 * inside, 1)] if block == 0 else []
            layers += [nn.Conv2d(i, o, k, bias=False) for i, o, k in shapes]
            inputs = 4 * inside
    return [*layers, nn.Linear(inputs, 1000, bias=False)]


class Trainer:
    """A network's training step on one random batch, masked or dense."""

    def __init__(
        self, name: str, size: Size, *, bf16: bool, masked: bool = False, **options: int
    ) -> None:
        torch.manual_seed(0)
        create = st.models.create
        model = create(name, num_classes=10, in_channels=3, image_size=size.image, **options)
        self.model = model.to(memory_format=LAST)  # type: ignore[call-overload]
        self.optimizer = sgd(model)
        images = torch.randn(size.batch, 3, size.image, size.image)
        self.images = images.contiguous(memory_format=LAST)
        self.labels = torch.randint(0, 10, (size.batch,))
        self.bf16 = bf16
        if masked:
            st.Sparsifier(model, self.optimizer, st.methods.static(sparsity=SPARSITY))

    def step(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.model(self.images)
        loss = F.cross_entropy(logits.float(), self.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


class Updating:
    """Weights under a method that updates the masks at every second optimizer step, or under none.

    The learning rate is so small that the weights stay as they were drawn.
    """

    def __init__(self, method: str | None, layers: nn.Module, grads: list[Tensor], rounds: int):
        self.method, self.layers, self.rounds = method, layers, rounds
        self.start = [p.detach().clone() for p in layers.parameters()] if self.once else []
        for parameter, grad in zip(layers.parameters(), grads, strict=True):
            parameter.grad = grad
        self.attach()

    @property
    def once(self) -> bool:
        """Whether the method prunes one time only, so that each round starts anew."""
        return self.method == "magnitude"

    def attach(self) -> None:
        self.optimizer = sgd(self.layers)
        if self.method is None:
            return
        steps: dict[str, int] = {"total_steps": 4 * self.rounds, "update_every": 2}
        if self.once:
            steps = {"total_steps": 2, "at": 2}
        method = st.methods.create(self.method, sparsity=SPARSITY, **steps)
        self.sparsifier = st.Sparsifier(self.layers, self.optimizer, method)

    @torch.no_grad()
    def again(self) -> None:
        self.sparsifier.detach()
        for parameter, start in zip(self.layers.parameters(), self.start, strict=True):
            parameter.copy_(start)
        self.attach()

    def ordinary(self) -> None:
        assert not self.sparsifier.method.when(self.sparsifier.step + 1)
        self.optimizer.step()

    def update(self) -> None:
        assert self.sparsifier.method.when(self.sparsifier.step + 1)
        self.optimizer.step()

    def turns(self) -> dict[str, Callable[[], None]]:
        """What is timed, by name; starting anew is not shown."""
        if self.method is None:
            return {"sgd": self.optimizer.step}  # type: ignore[dict-item]
        name = self.method
        turns = {f"{name} again": self.again} if self.once else {}
        return {**turns, f"{name} step": self.ordinary, f"{name} update": self.update}


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=True)


def drawn_layers(width: int, dtype: torch.dtype, *, last: bool) -> nn.Module:
    """Random weights as He et al. draw them, in the trainer's memory format or in torch's own."""
    torch.manual_seed(0)
    layers = nn.ModuleList(resnet50_layers(width))
    for parameter in layers.parameters():
        nn.init.normal_(parameter, std=math.sqrt(2 / parameter[0].numel()))
    return layers.to(dtype=dtype, memory_format=LAST if last else torch.contiguous_format)  # type: ignore[call-overload]


def drawn_grads(layers: nn.Module) -> list[Tensor]:
    """Random dense gradients, in the weights' memory format."""
    return [torch.randn_like(parameter) for parameter in layers.parameters()]


def measure_step(size: Size, *, bf16: bool) -> Row:
    """An ordinary masked step over a dense one."""
    name, options = size.small
    sides = {
        side: Trainer(name, size, bf16=bf16, masked=side == "masked", **options)
        for side in ("dense", "masked")
    }
    times = interleaved({side: trainer.step for side, trainer in sides.items()}, size.steps)
    found = ratio(times, "masked", "dense")
    return {
        "measured": "ordinary step",
        "net": name,
        "precision": "bf16" if bf16 else "fp32",
        "baseline": "dense",
        "milliseconds": {side: spread(values) for side, values in times.items()},
        "ratio": {"masked": found},
        "gate": STEP_GATE,
        "met": found <= STEP_GATE,
    }


def measure_updates(
    size: Size,
    methods: Sequence[str],
    dtype: torch.dtype,
    *,
    last: bool,
    dense: Sequence[str] = ("fp32", "bf16"),
) -> Row:
    """Updates over a dense training step in the faster of the precisions, all in one run."""
    trainers = {f"dense {name}": Trainer(size.large, size, bf16=name == "bf16") for name in dense}
    turns, warmup = {name: trainer.step for name, trainer in trainers.items()}, 1
    grads = drawn_grads(drawn_layers(size.width, dtype, last=last))
    for method in (None, *methods):
        layers = drawn_layers(size.width, dtype, last=last)
        turns |= Updating(method, layers, grads, size.rounds + warmup).turns()
    times = interleaved(turns, size.rounds, warmup)
    shown = {name: values for name, values in times.items() if not name.endswith("again")}
    base = min(trainers, key=lambda name: statistics.median(times[name]))
    found = {name: ratio(times, name, base) for name in shown if name.endswith("update")}
    return {
        "measured": "update",
        "net": "ResNet-50's weights",
        "weights": sum(grad.numel() for grad in grads),
        "dtype": str(dtype).removeprefix("torch."),
        "memory_format": "channels-last" if last else "contiguous",
        "baseline": base,
        "milliseconds": {name: spread(values) for name, values in shown.items()},
        "ratio": found,
        "gate": UPDATE_GATE,
        "met": max(found.values()) <= UPDATE_GATE,
    }


def peak_of(method: str, width: int) -> dict[str, float]:
    """MB that the first update adds to this process's peak, in which nothing else has happened."""
    layers = drawn_layers(width, torch.float32, last=True)
    bed = Updating(method, layers, drawn_grads(layers), 1)
    bed.ordinary()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    bed.update()
    return {"before": before, "added": _status("VmHWM") - before}


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def measure_peaks(size: Size, threads: int) -> dict[str, dict[str, float]]:
    """`peak_of` of each method in a process of its own; nothing where Linux's figures lack."""
    if platform.libc_ver()[0] != "glibc":
        return {}
    peaks = {}
    for method in size.peaks:
        command = [sys.executable, __file__, "--peak", method, str(size.width)]
        command += ["--threads", str(threads)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[method] = json.loads(out)
    return peaks


def show(row: Row) -> Row:
    kind = row.get("precision") or f"{row['weights']:,}, {row['dtype']}, {row['memory_format']}"
    print(f"{row['measured']}, {row['net']} ({kind}): {'met' if row['met'] else 'GATE MISSED'}")
    for name, t in row["milliseconds"].items():
        found = f"{row['ratio'][name]:8.3f}x" if name in row["ratio"] else ""
        line = f"  {name:17s}{t['median']:9.1f} ms  ({t['min']:.1f} to {t['max']:.1f})"
        print(f"{line:52s}{found}")
    print(f"  at most {row['gate']:g} of {row['baseline']}", flush=True)
    return row


def measure(size: Size) -> Iterator[Row]:
    """Every row, shown as soon as it is there."""
    for bf16 in (False, True):
        yield show(measure_step(size, bf16=bf16))
    first = show(measure_updates(size, METHODS, torch.float32, last=True))
    yield first
    dense = [first["baseline"].removeprefix("dense ")]
    yield show(measure_updates(size, FEW, torch.float32, last=False, dense=dense))
    yield show(measure_updates(size, FEW, torch.bfloat16, last=True, dense=dense))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=Size.rounds, help="timed updates")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS, metavar=("METHOD", "WIDTH"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(json.dumps(peak_of(options.peak[0], int(options.peak[1]))))
        return 0
    size = SMOKE if options.smoke else Size(rounds=options.rounds)
    if options.smoke:
        print("toy sizes: the gates say nothing")
    rows = list(measure(size))
    peaks = measure_peaks(size, options.threads)
    for method, peak in peaks.items():
        print(f"  {method:10s} update adds {peak['added']:6.0f} MB to {peak['before']:.0f} MB")
    record = {
        "benchmark": "ordinary masked steps and mask updates, CPU",
        **machine(),
        "sparsity": SPARSITY,
        "batch": size.batch,
        "results": rows,
        "update_peak_megabytes": peaks,
    }
    out = options.out or (None if options.smoke else RECORD)
    if out is not None:
        out.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if options.smoke or all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
