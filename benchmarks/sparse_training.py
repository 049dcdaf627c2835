"""One training step with a fixed mask: forward, loss, backward, optimizer, masks; sparse and dense.

Dense is the masked network, channels-last and not, with fused SGD in float32, and in bfloat16 where
the processor computes in it. The gates are those of the project's issue on speed: how much faster a
sparse step is at 99 %, and that the choice made for each layer by measurement is never slower than
0.97 of the better of all layers sparse and none. The optimizer's share is that of `step()` in the
sparse step, masking included.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from common import interleaved, machine, ratio, spread
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain.kernels import native

RECORD = Path(__file__).parent / "records" / "sparse-training.json"
NETS = {"resnet32": {"width": 2}, "vgg19": {}}
GATES = {"resnet32": 3.5, "vgg19": 6.0}
CHOICE_GATE = 0.97
SETTLED = 14
BASE = "dense, channels-last"


def stepper(
    model: torch.nn.Module, masks: dict[str, torch.Tensor], data: Any, kind: str, optimizing: Any
) -> Callable[[], None]:
    """A whole training step of its own copy of the network; optimizer times go to `optimizing`."""
    last = torch.contiguous_format if kind == "dense, contiguous" else torch.channels_last
    model = copy.deepcopy(model).to(memory_format=last)  # pyright: ignore[reportCallIssue]
    images, labels = data[0].contiguous(memory_format=last), data[1]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True
    )
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(masks=masks))
    around: AbstractContextManager[object] = nullcontext()
    if kind.endswith("sparse"):
        around = st.SparseCompute(sparsifier, mode="sparse" if kind == "all sparse" else "measured")
    elif kind == "dense, bf16":
        around = torch.autocast("cpu", torch.bfloat16)

    def step() -> None:
        with around:
            loss = F.cross_entropy(model(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        start = time.perf_counter()
        optimizer.step()
        optimizing.setdefault(kind, []).append(1e3 * (time.perf_counter() - start))

    return step


def measure(
    name: str, sparsity: float, *, batch: int, repeats: int, size: int, options: dict[str, Any]
) -> dict[str, Any]:
    torch.manual_seed(0)
    model = st.models.create(name, num_classes=10, in_channels=3, image_size=size, **options)
    shapes = {key: tuple(weight.shape) for key, weight in st.select(model).items()}
    counts = st.distributions.erk(shapes, sparsity)
    masks = st.masks.keep_layerwise({k: torch.rand(shape) for k, shape in shapes.items()}, counts)
    data = (torch.randn(batch, 3, size, size), torch.randint(0, 10, (batch,)))
    kinds = ["sparse", "all sparse", BASE, "dense, contiguous"]
    if "avx512_bf16" in Path("/proc/cpuinfo").read_text():
        kinds.append("dense, bf16")
    optimizing: dict[str, list[float]] = {}
    steps = {kind: stepper(model, masks, data, kind, optimizing) for kind in kinds}
    for _ in range(SETTLED):  # steps are timed both ways before one is chosen
        steps["sparse"]()
    optimizing.clear()
    times = interleaved(steps, repeats, before_each=1)
    optimizer = optimizing["sparse"][-repeats:]
    share = [a / b for a, b in zip(optimizer, times["sparse"], strict=True)]
    best = min(("all sparse", BASE), key=lambda kind: ratio(times, kind, "sparse"))
    return {
        "network": name,
        "sparsity": sparsity,
        "batch": batch,
        "masks": "random, ERK",
        "milliseconds": {kind: spread(found) for kind, found in times.items()},
        "optimizer_milliseconds": spread(optimizer),
        "optimizer_share": statistics.median(share),
        "speedup": {kind: ratio(times, kind, "sparse") for kind in kinds[1:]},
        "gate": GATES.get(name) if sparsity == 0.99 else None,
        "best_own": best,
        "choice_gate": CHOICE_GATE,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.9, 0.99])
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in ["resnet8"] if options.smoke else options.nets:
        for sparsity in options.sparsities:
            small = {"batch": 16, "repeats": 1, "size": 8, "options": {}}
            full = {"batch": 64, "repeats": options.repeats, "size": 32}
            how = small if options.smoke else full | {"options": NETS[name]}
            row = measure(name, sparsity, **how)
            rows.append(row)
            times = {k: round(v["median"], 1) for k, v in row["milliseconds"].items()}
            over = {kind: round(value, 2) for kind, value in row["speedup"].items()}
            share = f"optimizer {100 * row['optimizer_share']:.1f} %"
            print(f"{name} {sparsity:g}: ms {times}, over sparse {over}, {share}", flush=True)
    found = native.library()
    record = {"benchmark": "a training step with a fixed mask, CPU", **machine(), "results": rows}
    record["kernels"] = "C++" if found is not None else "PyTorch"
    out = options.out or (None if options.smoke else RECORD)
    if out is not None:
        known = json.loads(out.read_text())["results"] if out.exists() else []
        cells = {(row["network"], row["sparsity"]) for row in rows}
        kept = [row for row in known if (row["network"], row["sparsity"]) not in cells]
        record["results"] = kept + rows
        out.write_text(json.dumps(record, indent=2) + "\n")
    missed = [r for r in rows if r["gate"] and r["speedup"][BASE] < r["gate"]]
    missed += [r for r in rows if r["speedup"][r["best_own"]] < r["choice_gate"]]
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
