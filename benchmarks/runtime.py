"""Whole sparse networks against the fastest dense engine installed, by sparsity.

    python benchmarks/runtime.py --net resnet32 --batch 64 [--threads 1] [--repeats 7]
        [--sparsities 0.9,0.95,0.98,0.99,0.995,0.998] [--smoke] [--out FILE]

ResNet-32 of width 2 and VGG-19, 32x32 images, ERK-random masks, float32, batch norm with random
statistics. All contenders of a run take turns. The dense engines get the network of the first
sparsity: their time does not depend on the values. Every output is compared with eager PyTorch's
before anything is timed. Each run adds its rows to the record and replaces older ones of the same
network, batch, threads and sparsity. Exit code 1: a gate is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import interleaved, machine, ratio, spread
from engines import engines, versions
from packed_networks import lower, randomised
from torch import Tensor, nn

import sparsetrain as st
from sparsetrain.kernels import native
from sparsetrain.kernels.program import Conv, Executor, Program

RECORD = Path(__file__).parent / "records" / "runtime.json"
IMAGE = (3, 32, 32)
SPARSITIES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998)
# Ratio best dense / ours, one thread, for these sparsities; None: an aim to report.
GATES: dict[tuple[str, int], tuple[float | None, ...]] = {
    ("resnet32", 64): (2.5, 4.5, 8.5, 13, 20, 28),
    ("vgg19", 64): (2, 4, 8, 13, 23, 42),
    ("resnet32", 1): (None, None, 4.2, 6.5, 9, 12),
    ("vgg19", 1): (None, None, 2.8, 4.7, 8, 14),
}
CLOSE = 1e-5


def network(name: str, sparsity: float) -> nn.Module:
    """A network in evaluation mode, masked, its activations of a trained network's size."""
    torch.manual_seed(0)
    options = {"width": 2} if name == "resnet32" else {}
    model = st.models.create(name, num_classes=10, in_channels=3, image_size=32, **options)
    weights = st.select(model)
    counts = st.distributions.erk({n: tuple(w.shape) for n, w in weights.items()}, sparsity)
    masks = {}
    for key, weight in weights.items():
        chosen = torch.randperm(weight.numel())[: counts[key]]
        scale = (weight.numel() / max(1, counts[key])) ** 0.5  # the variance of a dense layer
        masks[key] = torch.zeros(weight.numel()).index_fill_(0, chosen, scale).view_as(weight)
    return randomised(model, masks)


def checked(name: str, run: Callable[[], Tensor], expected: Tensor) -> None:
    """Refuse to time what is wrong."""
    error = ((run() - expected).abs().max() / expected.abs().max()).item()
    if not error <= CLOSE:
        raise SystemExit(f"{name} differs from eager PyTorch by {error:.1e}, allowed is {CLOSE}.")


def products(program: Program) -> int:
    """Multiply-adds of one image."""
    convs = [step for step in program.steps if isinstance(step, Conv)]
    return sum(c.plan.kept * c.plan.target.height * c.plan.target.width for c in convs)


def measure(
    name: str, batch: int, sparsities: tuple[float, ...], repeats: int
) -> list[dict[str, Any]]:
    """One row for each sparsity; all take turns."""
    images, block = torch.randn(batch, *IMAGE), 16 if batch >= 8 else 1
    model = network(name, sparsities[0])
    expected, turns = model(images), engines(model, images)
    for engine, run in turns.items():
        checked(engine, run, expected)
    dense, programs = list(turns), {}
    for sparsity in sparsities:
        model = network(name, sparsity)
        key, program = f"{sparsity:g}", lower(model, IMAGE, block=block)
        run = _packed(Executor(program), images)
        checked(key, run, model(images))
        turns[key], programs[key] = run, program
    times = interleaved(turns, repeats)
    best = min(dense, key=lambda engine: spread(times[engine])["median"])
    whole = products(lower(network(name, 0.0), IMAGE, block=block))
    return [
        {
            "network": name,
            "batch": batch,
            "threads": torch.get_num_threads(),
            "sparsity": float(key),
            "density of products": products(program) / whole,
            "milliseconds": spread(times[key]),
            "dense_milliseconds": {engine: spread(times[engine]) for engine in dense},
            "best dense": best,
            "speedup": ratio(times, best, key),
            "gate": _gate(name, batch, float(key)),
        }
        for key, program in programs.items()
    ]


def _packed(run: Executor, images: Tensor) -> Callable[[], Tensor]:
    return lambda: run(images)[0].flatten(1)


def _gate(name: str, batch: int, sparsity: float) -> float | None:
    gates = GATES.get((name, batch))
    known = gates is not None and torch.get_num_threads() == 1 and sparsity in SPARSITIES
    return gates[SPARSITIES.index(sparsity)] if gates is not None and known else None


def merged(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The record's rows and these, which replace their like."""

    def key(row: dict[str, Any]) -> tuple[object, ...]:
        return tuple(row[field] for field in ("network", "batch", "threads", "sparsity"))

    old = json.loads(path.read_text())["results"] if path.exists() else []
    new = {key(row) for row in rows}
    return sorted([row for row in old if key(row) not in new] + rows, key=key)


def show(row: dict[str, Any]) -> None:
    gate, best = row["gate"], row["best dense"]
    verdict = "" if gate is None else f"  gate {gate:g}: {'met' if met(row) else 'MISSED'}"
    print(
        f"{row['network']:9s} batch {row['batch']:3d}  threads {row['threads']}  "
        f"{100 * row['sparsity']:5g} %  {row['milliseconds']['median']:8.3f} ms  "
        f"{row['speedup']:6.2f}x {best} ({row['dense_milliseconds'][best]['median']:.2f} ms)"
        f"{verdict}",
        flush=True,
    )


def met(row: dict[str, Any]) -> bool:
    return row["gate"] is None or row["speedup"] >= row["gate"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", choices=("resnet32", "vgg19"), default="resnet32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sparsities", default=",".join(map(str, SPARSITIES)))
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    if native.library() is None:
        raise SystemExit("the C++ kernels are not built; their twin would be timed. Build them.")
    torch.set_num_threads(options.threads)
    sparsities = tuple(float(sparsity) for sparsity in options.sparsities.split(","))
    batch, repeats = options.batch, options.repeats
    if options.smoke:
        batch, repeats, sparsities = 2, 1, (0.99,)
    with torch.no_grad():
        rows = measure(options.net, batch, sparsities, repeats)
    for row in rows:
        show(row)
    out = options.out or (None if options.smoke else RECORD)
    if out is not None:
        record = {
            "benchmark": "whole networks: best dense engine installed against packed programs",
            **machine(),
            "engines": versions(),
            "masks": "random, by ERK",
            "results": merged(out, rows),
        }
        out.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(map(met, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
