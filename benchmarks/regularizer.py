"""The HyperSparse gradient against the published sort-based formula, in one run, interleaved.

    python benchmarks/regularizer.py [--large] [--threads 1] [--repeats 15]

Rows that begin with "twin" leave the C++ kernels aside. Exits with 1 if a gate is missed: 80x with
the kernels; without them 12x at 1.86 M weights and 8x at 20 M; deviation at most 1e-6 of the
largest gradient everywhere.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from common import interleaved, processor
from torch import Tensor

import sparsetrain as st
from sparsetrain.kernels import native

RECORD = Path(__file__).parent / "records" / "regularizer.json"
GATE_DEVIATION = 1e-6
NATIVE_GATE, TWIN_GATES = 80.0, {"resnet32 width 2": 12.0, "vgg19": 8.0}
Shape = tuple[int, ...]


def resnet32_shapes(width: int = 2, classes: int = 10) -> list[Shape]:
    """The 34 prunable tensors of the CIFAR ResNet-32; 1,855,584 weights at width 2."""
    inside = 16 * width
    shapes: list[Shape] = [(inside, 3, 3, 3)]
    for outside in (16 * width, 32 * width, 64 * width):
        for block in range(5):
            shapes += [(outside, inside, 3, 3), (outside, outside, 3, 3)]
            if block == 0 and inside != outside:
                shapes.append((outside, inside, 1, 1))
            inside = outside
    return [*shapes, (classes, inside)]


def vgg19_shapes(classes: int = 10) -> list[Shape]:
    """The 17 prunable tensors of VGG-19 with one classifier; 20,024,000 weights."""
    outputs = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    inputs = [3, *outputs[:-1]]
    shapes: list[Shape] = [(o, i, 3, 3) for i, o in zip(inputs, outputs, strict=True)]
    return [*shapes, (classes, outputs[-1])]


def initial_weights(shapes: Sequence[Shape]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    deviations = [math.sqrt(2 / math.prod(shape[1:])) for shape in shapes]
    return [
        torch.randn(shape, generator=generator) * d
        for shape, d in zip(shapes, deviations, strict=True)
    ]


def by_sorting(weights: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """The published closed form as its authors compute it: concatenate, sort, one formula."""
    w = torch.cat([x.reshape(-1) for x in weights])
    magnitudes = w.abs()
    border = torch.sort(magnitudes).values[int(sparsity * w.numel())]
    s = 0.6585 / border
    activation = torch.tanh(s * magnitudes).sum()
    bend = s / torch.cosh(s * magnitudes).square()
    gradient = torch.sign(w) * bend * magnitudes.sum() / activation
    parts = gradient.split([x.numel() for x in weights])
    return [part.view(x.shape) for part, x in zip(parts, weights, strict=True)]


def in_float64(weights: Sequence[Tensor], sparsity: float) -> np.ndarray:
    w = np.concatenate([x.numpy().ravel() for x in weights]).astype(np.float64)
    magnitudes = np.abs(w)
    s = 0.6585 / np.sort(magnitudes)[int(sparsity * w.size)]
    with np.errstate(over="ignore"):
        bend = s / np.cosh(s * magnitudes) ** 2
    return np.sign(w) * bend * magnitudes.sum() / np.tanh(s * magnitudes).sum()


def deviation(gradient: Sequence[Tensor], exact: np.ndarray) -> float:
    """Largest deviation over largest gradient."""
    flat = torch.cat([g.reshape(-1) for g in gradient]).double().numpy()
    return float(np.abs(flat - exact).max() / np.abs(exact).max())


def on_the_twin(run: Callable[[], object]) -> Callable[[], object]:
    """The same without the C++ kernels."""

    def without() -> object:
        with mock.patch.object(native, "library", lambda: None):
            return run()

    return without


def measure(name: str, shapes: Sequence[Shape], sparsity: float, repeats: int) -> dict[str, object]:
    weights = initial_weights(shapes)
    grads = [torch.zeros_like(w) for w in weights]
    regularizer = st.HyperSparse(sparsity)
    ours: dict[str, Callable[[], object]] = {
        "grad": lambda: regularizer.grad(weights),
        "add_grad_": lambda: regularizer.add_grad_(weights, grads, 5e-6),
    }
    if native.library() is not None:
        ours |= {f"twin {key}": on_the_twin(run) for key, run in ours.items()}
    times = interleaved({"sort": lambda: by_sorting(weights, sparsity), **ours}, repeats)
    exact = in_float64(weights, sparsity)
    medians = {key: statistics.median(values) for key, values in times.items()}
    return {
        "name": name,
        "weights": sum(w.numel() for w in weights),
        "tensors": len(weights),
        "milliseconds": {
            key: {"median": medians[key], "min": min(values), "max": max(values)}
            for key, values in times.items()
        },
        "ratio": {key: medians["sort"] / medians[key] for key in ours},
        "gate": {key: gate(name, key) for key in ours},
        "deviation": {
            "sort": deviation(by_sorting(weights, sparsity), exact),
            "grad": deviation(regularizer.grad(weights), exact),
        },
    }


def gate(name: str, key: str) -> float:
    """The ratio to reach: for adding in place with the kernels, and for both ways on the twins."""
    if native.library() is None or key.startswith("twin"):
        return TWIN_GATES[name]
    return NATIVE_GATE if key == "add_grad_" else 0.0


def reaches(row: dict) -> bool:
    fast = all(row["ratio"][key] >= wanted for key, wanted in row["gate"].items())
    return fast and row["deviation"]["grad"] <= GATE_DEVIATION


def show(row: dict) -> None:
    print(f"{row['name']}: {row['weights']:,} weights in {row['tensors']} tensors")
    for key, t in row["milliseconds"].items():
        ratio = f"{row['ratio'][key]:6.1f}x" if key in row["ratio"] else ""
        print(f"  {key:15s}{t['median']:9.2f} ms  ({t['min']:.2f} to {t['max']:.2f})  {ratio}")
    print("  largest deviation / largest gradient, against float64: "
          f"{row['deviation']['grad']:.1e} (sort {row['deviation']['sort']:.1e})")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--large", action="store_true", help="VGG-19's 20 M weights too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sparsity", type=float, default=0.98)
    parser.add_argument("--out", type=Path, default=RECORD, help="where the record goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    rows = [measure("resnet32 width 2", resnet32_shapes(), options.sparsity, options.repeats)]
    if options.large:
        repeats = min(options.repeats, 5)
        rows.append(measure("vgg19", vgg19_shapes(), options.sparsity, repeats))
    met = all(reaches(row) for row in rows)
    record = {
        "benchmark": "HyperSparse gradient, float32, CPU",
        "sparsity": options.sparsity,
        "threads": options.threads,
        "repeats": options.repeats,
        "device": processor(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "sparsetrain": st.__version__,
        },
        "results": rows,
        "native": native.library() is not None,
        "gate": {"deviation": GATE_DEVIATION, "met": met},
    }
    print(f"{record['device']}, {options.threads} thread(s), {record['versions']}")
    for row in rows:
        show(row)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(f"gates: {'met' if met else 'MISSED'}; {options.out}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
