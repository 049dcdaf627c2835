"""A regularising epoch of ART, ours against a trainer written as the published ones are.

    python benchmarks/art_epoch.py [--net resnet32 vgg19] [--precision auto] [--smoke]

Both sides train on the same images, made in the format of CIFAR-10, in turn and in one process.
Measured: training steps with their loading, the pruning of a copy (ours is also compiled to use its
zeros, but for the tracing of the network: two seconds, once a run), and a slice of its evaluation
on the training images. An epoch is 782 steps, one pruning and the evaluation of 50,000 images.
Also: one step of ours with the regulariser, and one with fixed masks, over a dense step of ours.
Exits with 1 where a gate is missed.
"""

from __future__ import annotations

import argparse
import copy
import io
import itertools
import json
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import interleaved, machine, ratio, spread
from naive_trainer import Images, NaiveTrainer
from torch import Tensor, nn

from sparsetrain.training.check import resolve
from sparsetrain.training.loop import evaluate, train_epoch
from sparsetrain.training.session import build_session
from sparsetrain.training.settings import build

RECORD = Path(__file__).parent / "records" / "art-epoch.json"
EPOCH_STEPS, EPOCH_IMAGES, SPARSITY, STRENGTH = 782, 50_000, 0.98, 5e-6
NETS: dict[str, dict[str, Any]] = {
    "resnet32": {"model": "resnet32", "width": 2},
    "vgg19": {"model": "vgg19"},
}
# The naive epoch over ours, at least; a regularised and a masked step over a dense one, at most.
GATES = {"resnet32": (3.0, 1.04, 1.03), "vgg19": (8.0, 1.10, 1.06)}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        images: made and trained on.
        steps: timed steps a side, `chunk` at a time, the sides in turn.
        evaluated: images of the evaluated slice.
        batch: images a step.
    """

    images: int = 5_120
    steps: int = 20
    chunk: int = 2
    evaluated: int = 1_280
    batch: int = 64

    @property
    def rounds(self) -> int:
        return self.steps // self.chunk


SMOKE = Size(images=160, steps=2, chunk=1, evaluated=16, batch=8)


def write_cifar10(folder: Path, images: int) -> None:
    """An archive in the format of CIFAR-10's binary version, with random pixels."""
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (images + 10, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    parts = [*np.array_split(records[:-10], 5), records[-10:]]
    names = [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
    members = {name: part.tobytes() for name, part in zip(names, parts, strict=True)}
    members["batches.meta.txt"] = "\n".join(f"class{n}" for n in range(10)).encode()
    path = folder / "cifar10" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


class Ours:
    """A run as `sparsetrain train` makes it, a few steps at a time."""

    def __init__(self, folder: Path, net: str, method: str, size: Size, precision: str) -> None:
        options: dict[str, Any] = {}
        if method == "art":
            options = {"dense_epochs": 0, "max_regularize_epochs": 1000, "finetune_epochs": 1}
            options |= {"strength": STRENGTH, "strength_factor": 1.0}
        values = {
            "dataset": "cifar10",
            "data_dir": str(folder),
            "download": False,
            "validation": 0.0,
            "method": method,
            "sparsity": SPARSITY,
            "batch_size": size.batch,
            "precision": precision,
        }
        self.session = build_session(resolve(build(values | NETS[net] | options)))
        self.size = size
        self._batches = itertools.chain.from_iterable(
            self.session.train.batches(epoch) for epoch in itertools.count()
        )
        self._call: Callable[[Tensor], Tensor] | None = None

    def steps(self) -> None:
        """One chunk of training steps, loading included."""
        s, chunk = self.session, itertools.islice(self._batches, self.size.chunk)
        train_epoch(s.model, s.optimizer, chunk, place=s.place, lr=lambda _: 0.01)

    def prune(self) -> None:
        """Prune the copy, remember it and go back; a copy that is always wrong never ends ART."""
        judge = self.session.judge

        def compiled(model: nn.Module) -> float:
            self._call = None if judge is None else judge.call_of(model)
            return 0.0

        self.session.plan.end_epoch(0, 1.0, compiled)

    def evaluate(self) -> None:
        """Accuracy of the copy pruned last over the slice of the training images.

        A copy that is evaluated dense takes as long as the model, whose weights are back.
        """
        s = self.session
        batches = itertools.islice(s.train.batches(0), self.size.evaluated // self.size.batch)
        evaluate(s.model, batches, place=s.place, call=self._call)

    @property
    def judged(self) -> str:
        """What evaluates the copy."""
        return "dense" if self._call is None else "kept weights alone, fp32"


class Naive:
    """The other side, through the same calls."""

    def __init__(self, ours: Ours) -> None:
        data = ours.session.dataset
        pixels = data.train_images.permute(0, 2, 3, 1).contiguous().numpy()
        mean, std = torch.tensor(data.mean), torch.tensor(data.std)
        images = Images(pixels, data.train_labels.numpy(), mean, std)
        # The same network in torch's own memory layout; a deepcopy has no hooks to lose.
        model = copy.deepcopy(ours.session.model)
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.size = ours.size
        self.trainer = NaiveTrainer(model, images, batch_size=ours.size.batch, lr=0.01)
        self._batches: Iterator[Any] = self.trainer.batches()

    def steps(self) -> None:
        for _ in range(self.size.chunk):
            self.trainer.step(next(self._batches), sparsity=SPARSITY, strength=STRENGTH)

    def prune(self) -> None:
        self.trainer.pruned_copy(SPARSITY)

    def evaluate(self) -> None:
        self.trainer.evaluate(self.trainer.model, self.size.evaluated // self.size.batch)


def measure(net: str, folder: Path, size: Size, precision: str) -> dict[str, Any]:
    """Times, ratios and whether the gates are met, of one network."""
    art = Ours(folder, net, "art", size, precision)
    naive, dense = Naive(art), Ours(folder, net, "dense", size, precision)
    masked = Ours(folder, net, "static", size, precision)
    sides = {"naive": naive, "art": art, "dense": dense, "masked": masked}
    steps = interleaved({name: side.steps for name, side in sides.items()}, size.rounds)
    few = max(2, size.rounds // 4)
    parts = {"naive": naive, "art": art}
    prune = interleaved({name: side.prune for name, side in parts.items()}, few, warmup=1)
    judge = interleaved({name: side.evaluate for name, side in parts.items()}, few, warmup=1)
    slices = EPOCH_IMAGES / (size.evaluated // size.batch * size.batch)
    epochs = {
        name: EPOCH_STEPS / size.chunk * statistics.median(steps[name])
        + statistics.median(prune[name])
        + slices * statistics.median(judge[name])
        for name in parts
    }
    found = (
        epochs["naive"] / epochs["art"],
        ratio(steps, "art", "dense"),
        ratio(steps, "masked", "dense"),
    )
    gates = GATES[net]
    return {
        "net": net,
        "precision": str(art.session.place),
        "pruned_copy": art.judged,
        "milliseconds": {
            "step": {n: spread([t / size.chunk for t in v]) for n, v in steps.items()},
            "prune": {n: spread(v) for n, v in prune.items()},
            "evaluate": {n: spread([t * slices for t in v]) for n, v in judge.items()},
        },
        "epoch_seconds": {name: value / 1e3 for name, value in epochs.items()},
        "ratio": dict(zip(("epoch", "art_step", "masked_step"), found, strict=True)),
        "gate": dict(zip(("epoch", "art_step", "masked_step"), gates, strict=True)),
        "met": found[0] >= gates[0] and found[1] <= gates[1] and found[2] <= gates[2],
    }


def show(row: dict[str, Any]) -> None:
    how = f"{row['precision']}, pruned copy by {row['pruned_copy']}"
    print(f"{row['net']}, {how}: {'gates met' if row['met'] else 'GATE MISSED'}")
    for part, sides in row["milliseconds"].items():
        for name, t in sides.items():
            print(f"  {part:9s}{name:8s}{t['median']:10.1f} ms  ({t['min']:.1f} to {t['max']:.1f})")
    epoch = row["epoch_seconds"]
    print(
        f"  epoch of {EPOCH_STEPS} steps, one pruning, {EPOCH_IMAGES:,} images evaluated: "
        f"naive {epoch['naive']:.0f} s, ours {epoch['art']:.0f} s"
    )
    for name, value in row["ratio"].items():
        bound = "at least" if name == "epoch" else "at most"
        print(f"  {name:12s}{value:7.3f}  ({bound} {row['gate'][name]:g})")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--steps", type=int, default=Size.steps, help="timed steps a side")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    size = SMOKE if options.smoke else Size(steps=options.steps)
    with tempfile.TemporaryDirectory() as name:
        write_cifar10(Path(name), size.images)
        rows = [measure(net, Path(name), size, options.precision) for net in options.net]
    for row in rows:
        show(row)
    record = {
        "benchmark": "a regularising epoch of ART, CPU",
        **machine(),
        "steps": size.steps,
        "batch": size.batch,
        "results": rows,
    }
    out = options.out or (None if options.smoke else RECORD)
    if out is not None:
        out.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if options.smoke or all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
