"""What an update of the masks and the ranks' agreement check cost as a network grows.

    python benchmarks/scale.py [--cells whole-25 ...] [--smoke]

Two processes, a thread each. "whole": both hold all weights in float32, as under DDP; "shards":
each holds half of every layer in bfloat16, as under FSDP2. Beside them the time that one pass over
the weights takes (a copy into other memory), since all that is measured here are such passes.
Weights are random, layers square. The cell of a billion weights takes about 8 GB.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from common import machine
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.multiprocessing.spawn import spawn

import sparsetrain as st
from sparsetrain.agreement import check_ranks_agree
from sparsetrain.types import View

RECORD = Path(__file__).parent / "records" / "scale.json"
RANKS, SPARSITY = 2, 0.9


@dataclass(frozen=True)
class Cell:
    """One network.

    Attributes:
        kind: whether a rank holds whole layers or its rows of them.
        layers: of the network.
        side: rows and columns of a layer.
        methods: whose update is timed.
    """

    kind: str
    layers: int
    side: int
    methods: tuple[str, ...] = ("gmp", "rigl")

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return torch.float32 if self.kind == "whole" else torch.bfloat16

    @property
    def weights(self) -> int:
        """Of the whole network."""
        return self.layers * self.side**2


CELLS = {
    "whole-25": Cell("whole", 24, 1024),
    "whole-300": Cell("whole", 18, 4096, ("gmp",)),
    "shards-25": Cell("shards", 24, 1024),
    "shards-300": Cell("shards", 18, 4096),
    "shards-1000": Cell("shards", 60, 4096, ("gmp",)),
}
SMOKE = {"whole-small": Cell("whole", 3, 16), "shards-small": Cell("shards", 3, 16)}
METHODS: dict[str, st.Method] = {
    "gmp": st.methods.gmp(sparsity=SPARSITY, total_steps=2, update_every=1, stop=1.0),
    "rigl": st.methods.rigl(sparsity=SPARSITY, total_steps=8, update_every=1),
}


def measure(rank: int, cell: Cell, port: int, rounds: int, folder: str) -> None:
    """Seconds of each part on one rank; rank 0 writes the slowest rank's."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=RANKS)
    torch.manual_seed(0 if cell.kind == "whole" else rank)
    mesh = init_device_mesh("cpu", (RANKS,))

    def placed(local: Tensor) -> Tensor:
        whole = cell.kind == "whole"
        return local if whole else DTensor.from_local(local, mesh, [Shard(0)], run_check=False)

    rows = cell.side if cell.kind == "whole" else cell.side // RANKS
    shape, names = (rows, cell.side), [f"layer{i}" for i in range(cell.layers)]
    local = {name: torch.randn(shape, dtype=cell.dtype) for name in names}
    weights = {name: placed(tensor) for name, tensor in local.items()}
    found: dict[str, float] = {"pass": timed(lambda: _copied(local), rounds)}
    for method in cell.methods:
        dense = method == "gmp"
        masks = {
            n: placed(torch.full(shape, True) if dense else torch.rand(shape) < 1 - SPARSITY)
            for n in names
        }
        grads = {} if dense else {n: placed(torch.randn(shape, dtype=cell.dtype)) for n in names}
        generator = torch.Generator().manual_seed(0)
        view = View(step=2, weights=weights, grads=grads, momenta={}, generator=generator)
        update = METHODS[method].update
        found[f"{method} update"] = timed(lambda: update(view, masks, {}), rounds)  # noqa: B023
        if dense:
            masks = update(view, masks, {})[0]
            found["agreement"] = timed(lambda: check_ranks_agree(masks, 1), rounds)  # noqa: B023
    slowest = torch.tensor(list(found.values()), dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    peak = torch.tensor(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    dist.all_reduce(peak)
    if rank == 0:
        times = dict(zip(found, slowest.tolist(), strict=True))
        row = {
            "milliseconds": {k: 1e3 * v for k, v in times.items()},
            "peak_megabytes": peak.item(),
        }
        (Path(folder) / "row.json").write_text(json.dumps(row))
    dist.barrier()  # the rank that keeps the store must not leave first
    dist.destroy_process_group()


def _copied(tensors: dict[str, Tensor]) -> None:
    room = torch.empty_like(next(iter(tensors.values())))
    for tensor in tensors.values():
        room.copy_(tensor)


def timed(run: Callable[[], object], rounds: int) -> float:
    """Median seconds; ranks start together, and a first time is not counted."""
    times = []
    for _ in range(rounds + 1):
        dist.barrier()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def row_of(name: str, cell: Cell, rounds: int) -> dict[str, Any]:
    """One cell, in processes of its own."""
    with socket.socket() as s, tempfile.TemporaryDirectory() as folder:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        s.close()
        spawn(measure, args=(cell, port, rounds, folder), nprocs=RANKS, join=True)
        found = json.loads((Path(folder) / "row.json").read_text())
    about = {"cell": name, "kind": cell.kind, "weights": cell.weights, "layers": cell.layers}
    return {**about, "dtype": str(cell.dtype).removeprefix("torch."), **found}


def exponents(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Slope of log time over log weights, of each kind and part: 1 is proportional."""
    fits: dict[str, dict[str, float]] = {}
    for kind in ("whole", "shards"):
        some = [row for row in rows if row["kind"] == kind]
        for part in dict.fromkeys(k for row in some for k in row["milliseconds"]):
            points = [
                (math.log(row["weights"]), math.log(row["milliseconds"][part]))
                for row in some
                if part in row["milliseconds"]
            ]
            if len({x for x, _ in points}) > 1:
                fits.setdefault(kind, {})[part] = statistics.linear_regression(
                    *zip(*points, strict=True)
                ).slope
    return fits


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = SMOKE if options.smoke else {name: CELLS[name] for name in options.cells}
    out = options.out or (None if options.smoke else RECORD)
    known = json.loads(out.read_text())["results"] if out is not None and out.exists() else []
    rows = [row for row in known if row["cell"] not in cells]
    for name, cell in cells.items():
        rows.append(row_of(name, cell, options.rounds))
        times = {k: round(v, 1) for k, v in rows[-1]["milliseconds"].items()}
        print(f"{name}: ms {times}, {rows[-1]['peak_megabytes']:.0f} MB at most", flush=True)
    rows.sort(key=lambda row: (row["kind"] == "shards", row["weights"]))
    record = {"benchmark": "mask update and agreement check as the network grows", **machine()}
    record |= {"ranks": RANKS, "sparsity": SPARSITY, "results": rows, "exponents": exponents(rows)}
    if out is not None:
        out.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
