"""How small compressed files are, and how long they take to write and to load.

    python benchmarks/files.py [--threads N] [--repeats 5] [--smoke]

ResNet-32 (width 2) and VGG-19 with fresh weights under global magnitude pruning; float32 values.
Beside them the dense safetensors file with its zeros, and that file under gzip (level 6). Times are
taken in turns, files lie in the page cache, and every loading ends in a network's parameters; a
gzip file is unpacked in memory. The bound is the entropy of random masks of each layer's density.
Gate: VGG-19 at 99 % at most 3 % of the dense file. Exits with 1 where it is missed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from common import interleaved, machine, spread
from torch import Tensor, nn

import sparsetrain as st

RECORD = Path(__file__).parent / "records" / "files.json"
NETS = {"resnet32": {"width": 2}, "vgg19": {}}
SMOKE = {"resnet8": {}}
SPARSITIES = (0.9, 0.95, 0.98, 0.99, 0.998)
GATE = {("vgg19", 0.99): 0.03}
Row = dict[str, Any]


def pruned(name: str, sparsity: float, **options: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network with fresh weights, the smallest of which are 0, and the masks."""
    torch.manual_seed(0)
    model = st.models.create(name, **options)
    return model, st.prune(model, sparsity)


def entropy_bits(masks: dict[str, Tensor]) -> float:
    """Bits that random masks of these layers' densities need at least."""
    bits = 0.0
    for mask in masks.values():
        d = float(mask.float().mean())
        parts = [p * math.log2(p) for p in (d, 1 - d) if 0 < p < 1]
        bits -= mask.numel() * sum(parts)
    return bits


def measure(name: str, sparsity: float, repeats: int, folder: Path, **options: int) -> Row:
    """Sizes and times of one network."""
    model, masks = pruned(name, sparsity, **options)
    paths = {kind: folder / kind for kind in ("compressed", "dense", "gzip")}

    def save_dense() -> None:
        safetensors.torch.save_file(model.state_dict(), paths["dense"])

    def save_gzip() -> None:
        data = safetensors.torch.save(model.state_dict())
        paths["gzip"].write_bytes(gzip.compress(data, 6))

    def load_gzip() -> None:
        data = gzip.decompress(paths["gzip"].read_bytes())
        model.load_state_dict(safetensors.torch.load(data))

    save = {
        "compressed": lambda: st.compress.save(model, masks, paths["compressed"]),
        "dense": save_dense,
        "gzip": save_gzip,
    }
    load = {
        "compressed": lambda: st.compress.load(paths["compressed"], model),
        "dense": lambda: model.load_state_dict(safetensors.torch.load_file(paths["dense"])),
        "gzip": load_gzip,
    }
    saving = interleaved(save, max(1, repeats // 3), warmup=1)
    loading = interleaved(load, repeats, warmup=1)
    stored = safetensors.torch.load_file(paths["compressed"])
    kept = sum(int(mask.sum()) for mask in masks.values())
    positions = sum(t.nbytes for key, t in stored.items() if key.endswith(":positions"))
    sizes = {kind: path.stat().st_size for kind, path in paths.items()}
    share = sizes["compressed"] / sizes["dense"]
    gate = GATE.get((name, sparsity))
    return {
        "net": name,
        "sparsity": sparsity,
        "kept_weights": kept,
        "bytes": sizes,
        "ratio": {kind: size / sizes["dense"] for kind, size in sizes.items()},
        "position_bits_a_weight": 8 * positions / kept,
        "entropy_bits_a_weight": entropy_bits(masks) / kept,
        "save_milliseconds": {kind: spread(values) for kind, values in saving.items()},
        "load_milliseconds": {kind: spread(values) for kind, values in loading.items()},
        "gate": gate,
        "met": gate is None or share <= gate,
    }


def show(row: Row) -> Row:
    times = {kind: t["median"] for kind, t in row["load_milliseconds"].items()}
    print(
        f"{row['net']:9s}{row['sparsity']:7.1%}  {row['bytes']['compressed']:>10,} bytes  "
        f"{row['ratio']['compressed']:7.2%} of dense (gzip {row['ratio']['gzip']:.2%})  "
        f"position {row['position_bits_a_weight']:.2f} bits (bound "
        f"{row['entropy_bits_a_weight']:.2f})  load {times['compressed']:.0f} ms "
        f"(dense {times['dense']:.0f}, gzip {times['gzip']:.0f})"
        f"{'' if row['met'] else '  GATE MISSED'}",
        flush=True,
    )
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    nets = SMOKE if options.smoke else NETS
    repeats = 1 if options.smoke else options.repeats
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            show(measure(name, sparsity, repeats, Path(folder), **extra))
            for name, extra in nets.items()
            for sparsity in SPARSITIES
        ]
    record = {"benchmark": "compressed files, float32 values", **machine(), "results": rows}
    out = options.out or (None if options.smoke else RECORD)
    if out is not None:
        out.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
