"""Whole sparse networks against the fastest dense engine installed, by sparsity.

    python benchmarks/runtime.py --net resnet32 --batch 64 [--threads 1] [--repeats 7]
        [--sparsities 0.9,0.95,0.98,0.99,0.995,0.998] [--table] [--smoke] [--out FILE]

`st.compile_sparse` with its measured choice, on ResNet-32 of width 2 and VGG-19, 32x32 images,
ERK-random masks, float32, batch norms with random statistics. All contenders of a run take turns,
each called once untimed right before its timed call, so that all find their own data in the caches.
The dense engines get the network of the first sparsity: their time does not depend on the values.
Every output is compared with eager PyTorch's before anything is timed. Each run adds its rows to
the record and replaces older ones of the same network, batch, threads and sparsity; `--table` shows
the record and measures nothing. Exit code 1: a gate is missed.
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
from random_networks import IMAGE, network, products
from runtime_table import KEY, RECORD, SPARSITIES, gate, line, merged, met, table
from torch import Tensor

import sparsetrain as st
from sparsetrain.bench.engines import dense_engines, versions
from sparsetrain.bench.networks import deviation
from sparsetrain.inference import CompiledNetwork
from sparsetrain.kernels import native

CLOSE = 1e-5


def checked(name: str, run: Callable[[], Tensor], expected: Tensor) -> None:
    """Refuse to time what is wrong."""
    error = deviation(run(), expected)
    if not error <= CLOSE:
        raise SystemExit(f"{name} differs from eager PyTorch by {error:.1e}, allowed is {CLOSE}.")


def measure(
    name: str, batch: int, sparsities: tuple[float, ...], repeats: int
) -> list[dict[str, Any]]:
    """One row for each sparsity; all take turns."""
    images = torch.randn(batch, *IMAGE)
    model = network(name, sparsities[0])
    expected = model(images)
    turns, left_out = dense_engines(model, images, built=True)
    for engine, reason in left_out.items():
        print(f"{engine}: {reason}", flush=True)
    for engine, run in turns.items():
        checked(engine, run, expected)
    dense, rows = list(turns), {}
    for sparsity in sparsities:
        model, key = network(name, sparsity), f"{sparsity:g}"
        compiled = st.compile_sparse(model, images)
        turns[key] = lambda call=compiled: call(images)
        checked(key, turns[key], model(images))
        kept, whole = products(model)
        rows[key] = {"density of products": kept / whole, "kernels": kernels(compiled, batch)}
    times = interleaved(turns, repeats, before_each=1)
    best = min(dense, key=lambda engine: spread(times[engine])["median"])
    threads = torch.get_num_threads()
    return [
        {
            "network": name,
            "batch": batch,
            "threads": threads,
            "sparsity": float(key),
            **row,
            "milliseconds": spread(times[key]),
            "dense_milliseconds": {engine: spread(times[engine]) for engine in dense},
            "best dense": best,
            "speedup": ratio(times, best, key),
            "gate": gate(name, batch, threads, float(key)),
        }
        for key, row in rows.items()
    ]


def kernels(compiled: CompiledNetwork, batch: int) -> dict[str, int]:
    """How many convolutions and linear layers took each kind of kernel."""
    kinds = [kind for _, kind in compiled.kernels(batch)]
    return {kind: kinds.count(kind) for kind in ("sparse", "dense")}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    record = {
        "benchmark": "whole networks: best dense engine installed against compile_sparse",
        **machine(),
        "engines": versions(),
        "masks": "random, by ERK",
        "results": merged(path, rows, KEY),
    }
    path.write_text(json.dumps(record, indent=2) + "\n")


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", choices=("resnet32", "vgg19"), default="resnet32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sparsities", default=",".join(map(str, SPARSITIES)))
    parser.add_argument("--table", action="store_true", help="show the record, measure nothing")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    return parser.parse_args(words)


def main() -> int:
    options = options_of()
    if options.table:
        rows = table(options.out or RECORD)
        print("\n".join(map(line, rows)))
        return 0 if all(map(met, rows)) else 1
    if native.library() is None:
        raise SystemExit("the C++ kernels are not built; their twin would be timed. Build them.")
    torch.set_num_threads(options.threads)
    sparsities = tuple(float(sparsity) for sparsity in options.sparsities.split(","))
    batch, repeats = options.batch, options.repeats
    if options.smoke:
        batch, repeats, sparsities = 2, 1, (0.99,)
    # An empty cache: kernels are chosen in this run.
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        os.environ["XDG_CACHE_HOME"] = folder
        rows = measure(options.net, batch, sparsities, repeats)
    print("\n".join(map(line, rows)))
    out = options.out or (None if options.smoke else RECORD)
    if out is not None:
        write(out, rows)
    return 0 if all(map(met, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
