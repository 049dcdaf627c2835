"""Linear layers: compile_sparse against torch.nn.functional.linear and torch's own CSR tensors.

    python benchmarks/linear.py [--threads 1] [--repeats 15] [--sizes 512,4096] [--batches 1,64]
        [--sparsities 0.9,0.95,0.98,0.99,0.995,0.998] [--smoke] [--out FILE]

A layer of n inputs, n outputs and a bias, uniformly random masks, float32. Ours takes and gives
ordinary tensors: packing is part of its time. CSR is the faster of `F.linear(x, csr, bias)` and
`(csr @ x.T).T + bias`. All contenders take turns, each called once untimed right before its timed
call; every result is compared with float64 first. Each run adds its rows to the record and replaces
older ones of the same size, batch, sparsity and threads.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import interleaved, machine, ratio, spread
from runtime_table import SPARSITIES, merged
from torch import Tensor, nn
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain.bench.networks import deviation
from sparsetrain.kernels import native

RECORD = Path(__file__).parent / "records" / "linear.json"
KEY = ("size", "batch", "threads", "sparsity")
CSR = ("F.linear(x, csr)", "csr @ x.T")
CLOSE = 1e-5


def layer(size: int, sparsity: float) -> nn.Linear:
    torch.manual_seed(0)
    made = nn.Linear(size, size).requires_grad_(False)
    made.weight.mul_(torch.rand(size, size) >= sparsity)
    return made.eval()


def contenders(made: nn.Linear, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    weight, bias = made.weight, made.bias
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CSR tensors are beta, says torch
        csr = weight.detach().to_sparse_csr()
    ours = st.compile_sparse(nn.Sequential(made), x, choice="sparse")
    return {
        "dense": lambda: F.linear(x, weight, bias),
        CSR[0]: lambda: F.linear(x, csr, bias),
        CSR[1]: lambda: (csr @ x.T).T + bias,
        "ours": lambda: ours(x),
    }


def measure(size: int, batch: int, sparsity: float, repeats: int) -> dict[str, Any]:
    made, x = layer(size, sparsity), torch.randn(batch, size)
    expected = F.linear(x.double(), made.weight.double(), made.bias.double())
    turns = contenders(made, x)
    for name, run in turns.items():
        error = deviation(run().double(), expected)
        if not error <= CLOSE:
            raise SystemExit(f"{name} is wrong by {error:.1e} of the largest, allowed is {CLOSE}.")
    times = interleaved(turns, repeats, before_each=1)
    csr = min(CSR, key=lambda name: spread(times[name])["median"])
    return {
        "size": size,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "sparsity": sparsity,
        "milliseconds": {name: spread(found) for name, found in times.items()},
        "best csr": csr,
        "speedup": {"dense": ratio(times, "dense", "ours"), "csr": ratio(times, csr, "ours")},
    }


def line(row: dict[str, Any]) -> str:
    times = "  ".join(f"{k} {v['median']:.4g}" for k, v in row["milliseconds"].items())
    return (
        f"{row['size']:5d}  batch {row['batch']:3d}  {100 * row['sparsity']:5g} %  ms: {times}  "
        f"dense/ours {row['speedup']['dense']:.2f}  csr/ours {row['speedup']['csr']:.2f}"
    )


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sizes", type=numbers, default="512,4096")
    parser.add_argument("--batches", type=numbers, default="1,64")
    parser.add_argument("--sparsities", type=numbers, default=",".join(map(str, SPARSITIES)))
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    if native.library() is None:
        raise SystemExit("the C++ kernels are not built; their twin would be timed. Build them.")
    torch.set_num_threads(options.threads)
    if options.smoke:
        options.sizes, options.batches, options.sparsities = [64], [2], [0.9]
        options.repeats = 1
    rows = []
    with torch.no_grad():
        for size in map(int, options.sizes):
            for batch in map(int, options.batches):
                for sparsity in options.sparsities:
                    rows.append(measure(size, batch, sparsity, options.repeats))
                    print(line(rows[-1]), flush=True)
    out = options.out or (None if options.smoke else RECORD)
    if out is not None:
        title = "linear layers: compile_sparse, torch's dense and torch's CSR"
        record = {"benchmark": title, **machine(), "masks": "random, uniform"}
        record["results"] = merged(out, rows, KEY)
        out.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
