"""Sparse convolutions, layer by layer, against PyTorch's dense ones in the faster memory format.

    python benchmarks/sparse_conv.py [--threads 1] [--repeats 9] [--batch 64] [--smoke]

Layers of ResNet-32 (width 2) and VGG-19 with random masks, the same share kept in every layer.
Forward alone, and forward with both gradients. Float32; the activations stay in the packed layout,
as within a network, and the packing is timed on its own. GFLOP/s counts kept weights alone. A turn
is four calls of one contender: within a network, too, the layer before has just written the input.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import interleaved, machine, ratio, spread
from torch.nn import functional as F

from sparsetrain.kernels import sparse_conv as sc

RECORD = Path(__file__).parent / "records" / "sparse-conv.json"
CALLS = 4  # of a turn
SPARSITIES = (0.9, 0.95, 0.98, 0.99, 0.998)
FORMATS = {"dense": torch.contiguous_format, "dense channels-last": torch.channels_last}


@dataclass(frozen=True)
class Layer:
    """One convolution of a network: kernel 3, padding 1."""

    name: str
    channels: int
    outputs: int
    size: int
    stride: int = 1

    def geometry(self) -> sc.Geometry:
        square = (self.size, self.size)
        return sc.Geometry(self.channels, self.outputs, (3, 3), self.stride, (1, 1), *square)


LAYERS = (
    Layer("resnet32 stage 1", 32, 32, 32),
    Layer("resnet32 stage 2, first", 32, 64, 32, 2),
    Layer("resnet32 stage 2", 64, 64, 16),
    Layer("resnet32 stage 3", 128, 128, 8),
    Layer("vgg19 64 at 32", 64, 64, 32),
    Layer("vgg19 128 at 16", 128, 128, 16),
    Layer("vgg19 256 at 8", 256, 256, 8),
    Layer("vgg19 512 at 4", 512, 512, 4),
    Layer("vgg19 512 at 2", 512, 512, 2),
)
TOY = (Layer("toy", 4, 6, 5), Layer("toy with stride", 4, 6, 5, 2))


class Bed:
    """One layer and batch; what is timed are its methods' results."""

    def __init__(self, layer: Layer, batch: int, block: int) -> None:
        torch.manual_seed(0)
        self.layer, self.batch, self.block = layer, batch, block
        self.geometry = g = layer.geometry()
        self.images = torch.randn(batch, g.channels, g.height, g.width)
        self.out_grad = torch.randn(batch, g.outputs, g.out_height, g.out_width)
        self.weight = torch.randn(g.outputs, g.channels, *g.kernel)
        self.order = torch.rand(self.weight.numel()).argsort()

    def dense(self, memory: torch.memory_format, *, backward: bool) -> Callable[[], object]:
        images, weight, grad = (
            tensor.contiguous(memory_format=memory)
            for tensor in (self.images, self.weight, self.out_grad)
        )
        stride = self.geometry.stride
        if not backward:
            return lambda: F.conv2d(images, weight, None, stride, 1)
        inputs = [images.requires_grad_(), weight.requires_grad_()]
        return lambda: torch.autograd.grad(F.conv2d(images, weight, None, stride, 1), inputs, grad)

    def plan(self, sparsity: float) -> sc.ConvPlan:
        mask = torch.zeros(self.weight.shape, dtype=torch.bool)
        mask.view(-1)[self.order[: self.order.numel() - int(sparsity * self.order.numel())]] = True
        return sc.plan(mask, self.geometry, block=self.block)

    def sparse(self, plan: sc.ConvPlan, *, backward: bool) -> Callable[[], object]:
        images, values = sc.pack(self.images, plan.source), sc.gather(plan, self.weight)
        out = plan.target.framed(self.batch)
        if not backward:
            return lambda: sc.forward(plan, images, values, out=out)
        grad, in_grad = sc.pack(self.out_grad, plan.target), plan.source.framed(self.batch)

        def all_three() -> None:
            sc.forward(plan, images, values, out=out)
            sc.input_grad(plan, grad, values, in_grad)
            sc.weight_grad(plan, images, grad)

        return all_three

    def packing(self, plan: sc.ConvPlan) -> Callable[[], object]:
        return lambda: sc.unpack(sc.pack(self.images, plan.source), plan.source, self.batch)


def several(run: Callable[[], object]) -> None:
    for _ in range(CALLS):
        run()


def measure(bed: Bed, sparsities: tuple[float, ...], repeats: int) -> Iterator[dict[str, Any]]:
    """One row for each direction and sparsity; all contenders of a direction take turns."""
    plans = {f"{sparsity:g}": bed.plan(sparsity) for sparsity in sparsities}
    g = bed.geometry
    for backward in (False, True)[: 2 if bed.block > 1 else 1]:
        turns = {name: bed.dense(memory, backward=backward) for name, memory in FORMATS.items()}
        turns |= {name: bed.sparse(plan, backward=backward) for name, plan in plans.items()}
        turns["pack and unpack"] = bed.packing(plans[f"{sparsities[0]:g}"])
        turns = {name: partial(several, run) for name, run in turns.items()}
        times = {
            name: [total / CALLS for total in totals]
            for name, totals in interleaved(turns, repeats, warmup=1).items()
        }
        base = min(FORMATS, key=lambda name: spread(times[name])["median"])
        for name, plan in plans.items():
            flop = 2 * plan.kept * g.out_height * g.out_width * bed.batch * (3 if backward else 1)
            found = spread(times[name])
            yield {
                "layer": bed.layer.name,
                "what": "forward and backward" if backward else "forward",
                "sparsity": float(name),
                "milliseconds": found,
                "gflops": flop / found["median"] / 1e6,
                "baseline": base,
                "baseline_milliseconds": spread(times[base]),
                "packing_milliseconds": spread(times["pack and unpack"]),
                "speedup": ratio(times, base, name),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--block", type=int, default=None, help="images side by side")
    parser.add_argument("--layers", default="", help="only layers whose name has this")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    batch, repeats = (3, 1) if options.smoke else (options.batch, options.repeats)
    block = options.block or (16 if batch >= 8 or options.smoke else 1)
    rows = []
    for layer in TOY if options.smoke else LAYERS:
        if options.layers not in layer.name:
            continue
        for row in measure(Bed(layer, batch, block), SPARSITIES, repeats):
            rows.append(row)
            print(
                f"{row['layer']:24s} {row['what']:20s} {100 * row['sparsity']:5g} % "
                f"{row['milliseconds']['median']:9.3f} ms {row['gflops']:6.0f} GFLOP/s "
                f"{row['speedup']:6.2f}x {row['baseline']} "
                f"({row['baseline_milliseconds']['median']:.2f} ms)",
                flush=True,
            )
    record = {
        "benchmark": "sparse convolutions by layer, CPU",
        **machine(),
        "batch": batch,
        "block": block,
        "masks": "random, the same share in every layer",
        "results": rows,
    }
    out = options.out or (None if options.smoke or options.layers else RECORD)
    if out is not None:
        out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
