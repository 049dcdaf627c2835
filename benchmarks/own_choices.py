"""What compile_sparse chooses against our other choices, and two threads against one.

    python benchmarks/own_choices.py --net resnet32 --batch 64 [--repeats 9]
        [--sparsities 0.7,0.9,0.99] [--smoke] [--out FILE]

The measured choice must never be slower than 0.97 of the best of our own: all layers sparse, all
dense, and the mixture of the cost model; where it is the best one's own set of kernels, a ratio
below is noise, and the gate is met. At batch 64 two threads must be 1.8 times as fast as one. All
contenders take turns, each called untimed for 0.1 s before its timed call: a core that was idle
wakes up slowly. ERK-random masks, 32x32 images, float32. Each run adds its rows to the record. Exit
code 1: a gate is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import interleaved, machine, ratio, spread
from random_networks import IMAGE, network
from runtime_table import merged
from torch import Tensor

import sparsetrain as st
from sparsetrain.inference import CompiledNetwork
from sparsetrain.kernels import native

RECORD = Path(__file__).parent / "records" / "own-choices.json"
KEY = ("network", "batch", "sparsity")
OTHERS = ("sparse", "dense", "model")
LEAST, TWO_THREADS = 0.97, 1.8
MEASURED, PARALLEL = "measured", "measured, two threads"


def on_threads(threads: int, call: CompiledNetwork, images: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        torch.set_num_threads(threads)
        return call(images)

    return run


def measure(name: str, batch: int, sparsity: float, repeats: int) -> dict[str, Any]:
    """A row: all choices in turn."""
    model, images = network(name, sparsity), torch.randn(batch, *IMAGE)
    compiled = {MEASURED: st.compile_sparse(model, images)}
    compiled |= {choice: st.compile_sparse(model, images, choice=choice) for choice in OTHERS}
    turns = {key: on_threads(1, call, images) for key, call in compiled.items()}
    if batch >= 64:
        torch.set_num_threads(2)  # which kernels are fastest depends on it
        turns[PARALLEL] = on_threads(2, st.compile_sparse(model, images), images)
    times = interleaved(turns, repeats, before_each=1, warm_ms=100)
    torch.set_num_threads(1)
    best = min(OTHERS, key=lambda key: spread(times[key])["median"])
    same = compiled[best].kernels(batch) == compiled[MEASURED].kernels(batch)
    row = {
        "network": name,
        "batch": batch,
        "sparsity": sparsity,
        "milliseconds": {key: spread(found) for key, found in times.items()},
        "best other": best,
        "best other over measured": ratio(times, best, MEASURED),
        "same kernels": same,
        "two threads": ratio(times, MEASURED, PARALLEL) if PARALLEL in times else None,
    }
    return row | {"met": met(row)}


def met(row: dict[str, Any]) -> bool:
    chosen_well = row["same kernels"] or row["best other over measured"] >= LEAST
    return chosen_well and (row["two threads"] is None or row["two threads"] >= TWO_THREADS)


def line(row: dict[str, Any]) -> str:
    times = "  ".join(f"{k} {v['median']:.3f}" for k, v in row["milliseconds"].items())
    two = "" if row["two threads"] is None else f"  two threads {row['two threads']:.2f}x"
    same = " (the same kernels)" if row["same kernels"] else ""
    return (
        f"{row['network']:9s} batch {row['batch']:3d}  {100 * row['sparsity']:5g} %  ms: {times}  "
        f"{row['best other']} over measured {row['best other over measured']:.2f}{same}{two}  "
        f"{'met' if row['met'] else 'MISSED'}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", choices=("resnet32", "vgg19"), default="resnet32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sparsities", default="0.7,0.9,0.99")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    if native.library() is None:
        raise SystemExit("the C++ kernels are not built; their twin would be timed. Build them.")
    torch.set_num_threads(1)
    name, batch, repeats = options.net, options.batch, options.repeats
    sparsities = [float(sparsity) for sparsity in options.sparsities.split(",")]
    if options.smoke:
        name, batch, repeats, sparsities = "resnet8", 2, 1, [0.9]
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        os.environ["XDG_CACHE_HOME"] = folder
        for sparsity in sparsities:
            rows.append(measure(name, batch, sparsity, repeats))
            print(line(rows[-1]), flush=True)
    out = options.out or (None if options.smoke else RECORD)
    if out is not None:
        title = "compile_sparse's measured choice against our others, and two threads against one"
        record = {"benchmark": title, **machine(), "masks": "random, by ERK"}
        record["results"] = merged(out, rows, KEY)
        out.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
