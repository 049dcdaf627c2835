"""One process against two on this machine's CPU: images a second, and what the masks cost.

    python benchmarks/scaling.py [--net resnet32] [--batch 128] [--smoke]

A step is forward, backward and optimizer on one global batch; every process computes on one thread
and takes its share. Within a group of processes the contenders take turns, step by step: dense,
fixed masks, RigL at an update, HyperSparse. Groups are started in turn, some rounds each, so that
noise which lasts hits all alike. There is no gate: what two processes gain depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from common import interleaved, machine, ratio, spread
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

import sparsetrain as st
from sparsetrain.training.parallel import World, replicated, shard_

RECORD = Path(__file__).parent / "records" / "scaling.json"
GROUPS = (("none", 1), ("ddp", 2), ("fsdp", 2))
SPARSITY = 0.9
Attach = Callable[[nn.Module, Optimizer], object]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        net: a name of `st.models`.
        batch: images a step, of all processes together.
        side: pixels of an image's edge.
        repeats: timed steps of each contender in each round.
        rounds: how often each group of processes is started.
    """

    net: str = "resnet32"
    batch: int = 128
    side: int = 32
    repeats: int = 10
    rounds: int = 3


CONTENDERS: dict[str, Attach] = {
    "dense": lambda model, optimizer: None,
    "masks": lambda model, optimizer: st.Sparsifier(
        model, optimizer, st.methods.static(sparsity=SPARSITY)
    ),
    "update": lambda model, optimizer: st.Sparsifier(
        model,
        optimizer,
        st.methods.rigl(sparsity=SPARSITY, total_steps=10**6, update_every=1),
    ),
    "hypersparse": lambda model, optimizer: st.Sparsifier(
        model,
        optimizer,
        st.methods.dense(),
        regularizer=st.HyperSparse(SPARSITY),
        strength=5e-6,
    ),
}


def measure(rank: int, mode: str, ranks: int, port: int, folder: str, size: Size) -> None:
    """Milliseconds of every contender's steps in one group; rank 0 writes them."""
    torch.set_num_threads(1)
    if ranks > 1:
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=ranks)
    world = World(rank, ranks, mode)
    generator = torch.Generator().manual_seed(rank)
    images = torch.randn(size.batch // ranks, 3, size.side, size.side, generator=generator)
    labels = torch.randint(10, (len(images),), generator=generator)
    steps = {
        name: step_of(attach, world, size, images, labels) for name, attach in CONTENDERS.items()
    }
    times = interleaved(steps, size.repeats)
    if rank == 0:
        (Path(folder) / "times.json").write_text(json.dumps(times))
    if ranks > 1:
        dist.destroy_process_group()


def step_of(
    attach: Attach, world: World, size: Size, images: torch.Tensor, labels: torch.Tensor
) -> Callable[[], None]:
    """One training step of a network of its own."""
    torch.manual_seed(0)
    model = st.models.create(size.net, num_classes=10, in_channels=3, image_size=size.side)
    if world.mode == "fsdp":
        shard_(model, images.device)
    network = replicated(model, world)
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    attach(model, optimizer)  # the optimizer's hooks keep it alive

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def group_times(mode: str, ranks: int, size: Size) -> dict[str, list[float]]:
    """Start a group of processes once."""
    with socket.socket() as s, tempfile.TemporaryDirectory() as folder:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        s.close()
        spawn(measure, args=(mode, ranks, port, folder, size), nprocs=ranks, join=True)
        return json.loads((Path(folder) / "times.json").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", default=Size.net)
    parser.add_argument("--batch", type=int, default=Size.batch)
    parser.add_argument("--smoke", action="store_true", help="a toy size, nothing is recorded")
    words = parser.parse_args()
    size = Size(net=words.net, batch=words.batch)
    if words.smoke:
        size = Size(net="resnet8", batch=8, side=8, repeats=2, rounds=1)
    rounds: dict[str, list[dict[str, list[float]]]] = {mode: [] for mode, _ in GROUPS}
    for _ in range(size.rounds):
        for mode, ranks in GROUPS:
            rounds[mode].append(group_times(mode, ranks, size))
    record: dict[str, Any] = {"size": vars(size), "machine": machine() | {"threads": 1}}
    for mode, ranks in GROUPS:
        times = {n: [t for one in rounds[mode] for t in one[n]] for n in CONTENDERS}
        dense = statistics.median(times["dense"])
        record[mode] = {
            "processes": ranks,
            "images_per_second": 1e3 * size.batch / dense,
            "step_ms": {name: spread(values) for name, values in times.items()},
            "over_dense": {n: ratio(times, n, "dense") for n in CONTENDERS if n != "dense"},
        }
        costs = "  ".join(f"{n} {r:.3f}" for n, r in record[mode]["over_dense"].items())
        rate = record[mode]["images_per_second"]
        print(f"{mode:<5} x {ranks}  {rate:8.1f} images/s  over a dense step: {costs}")
    for mode in ("ddp", "fsdp"):
        gain = record[mode]["images_per_second"] / record["none"]["images_per_second"]
        record[mode]["speed_up"] = gain
        print(f"{mode}: {gain:.2f} times the images a second of one process")
    if not words.smoke:
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
