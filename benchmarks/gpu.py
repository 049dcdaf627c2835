"""Seconds an epoch on a GPU: dense, a regularising epoch of ART, GraNet; plain and compiled.

    python benchmarks/gpu.py [--device auto|cpu|cuda] [--modes none default reduce-overhead]
                             [--nets resnet32 vgg19] [--batches 64 128] [--limit 480] [--smoke]

50,000 images of 32x32 in the form of CIFAR-10, random, made in memory; the trainer's own loop,
loader, optimizer and hooks. Timed are slices of 100 steps, the methods in turn, scaled to an epoch;
GraNet updates its masks once in each slice. An epoch of ART also prunes a copy and evaluates it on
all images. A whole run of ART is 60 dense, 65 regularising and 160 fine-tuning epochs; the last are
counted as GraNet's, whose steps mask as they do.

Also: the regulariser and the masks by themselves, ways to find the pruning border, and on CUDA
whether ordinary steps wait for the device, which torch then makes an error.
What does not begin within `--limit` seconds is left out. The record is written after each part; of
a machine without CUDA none is kept unless `--out` asks for one.

`--smoke` runs everything in a minute on any machine, on ResNet-8 and images of 8x8. Its times, too,
are printed as 50,000 images would take them, but show only that the script runs.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import interleaved, spread
from gpu_report import RUN_EPOCHS, aims, show, write

import sparsetrain as st
from sparsetrain.data import Augment, Dataset
from sparsetrain.kernels import order
from sparsetrain.training import compiled
from sparsetrain.training.check import resolve
from sparsetrain.training.device import determinism
from sparsetrain.training.loop import evaluate, train_epoch
from sparsetrain.training.optimizer import make_optimizer
from sparsetrain.training.session import Session, build_session
from sparsetrain.training.settings import build

RECORD = Path(__file__).parent / "records" / "gpu.json"
NETS: dict[str, dict[str, Any]] = {
    "resnet32": {"model": "resnet32", "width": 2},
    "vgg19": {"model": "vgg19"},
    "resnet8": {"model": "resnet8"},  # the toy size's
}
MODES = ("none", "default", "reduce-overhead", "max-autotune")
SPARSITY, EPOCH_IMAGES, FREE_STEPS = 0.98, 50_000, 5


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        images: made and trained on.
        side: of an image, in pixels.
        chunk: steps of a timed slice.
        rounds: slices a method.
        evaluated: images of an evaluated slice.
    """

    images: int = EPOCH_IMAGES
    side: int = 32
    chunk: int = 100
    rounds: int = 4
    evaluated: int = 12_800


SMOKE = Size(images=64, side=8, chunk=2, rounds=1, evaluated=16)


def dataset(size: Size) -> Dataset:
    """Random images in the form of CIFAR-10."""
    generator = torch.Generator().manual_seed(0)
    shape = (size.images + 512, size.side, size.side, 3)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    pixels = pixels.permute(0, 3, 1, 2)
    labels = torch.randint(10, (len(pixels),), generator=generator)
    return Dataset(
        name="cifar10",
        train_images=pixels[:-512],
        train_labels=labels[:-512],
        test_images=pixels[-512:],
        test_labels=labels[-512:],
        classes=tuple(f"class{n}" for n in range(10)),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        augment=Augment(crop_padding=4, flip=True),
    )


class Side:
    """A run as `sparsetrain train` makes it, some steps at a time."""

    def __init__(self, method: str, values: dict[str, Any], data: Dataset, size: Size) -> None:
        options: dict[str, dict[str, Any]] = {
            "dense": {},
            "art": {"dense_epochs": 0, "max_regularize_epochs": 1000, "finetune_epochs": 1}
            | {"strength": 5e-6, "strength_factor": 1.0},
            "granet": {"update_every": size.chunk, "epochs": 100},
        }
        common = {"dataset": "cifar10", "validation": 0.0, "sparsity": SPARSITY, "method": method}
        self.session = build_session(resolve(build(common | values | options[method])), None, data)
        self.size = size
        self._batches = itertools.chain.from_iterable(
            self.session.train.batches(epoch) for epoch in itertools.count()
        )

    def steps(self, count: int, after: Callable[[], None] = lambda: None) -> None:
        s, batches = self.session, itertools.islice(self._batches, count)
        train_epoch(s.network, s.optimizer, batches, place=s.place, lr=lambda _: 0.01, after=after)

    def chunk(self) -> None:
        self.steps(self.size.chunk)

    def prune(self) -> None:
        """Prune the copy and go back; one that is always wrong never ends ART."""
        self.session.plan.end_epoch(0, 1.0, lambda _: 0.0)
        wait(self.session)

    def evaluate(self) -> None:
        s = self.session
        full = s.train.batches(0)
        evaluate(
            s.model, itertools.islice(full, self.size.evaluated // s.train.full), place=s.place
        )

    def waits(self) -> bool | None:
        """Whether one of some ordinary steps waits for the device; None where that is not CUDA."""
        if self.session.place.device.type != "cuda":
            return None
        taken = itertools.count(1)

        def after() -> None:  # the epoch's end, where sums are read, is not looked at
            watched = next(taken) <= FREE_STEPS
            torch.cuda.set_sync_debug_mode("error" if watched else "default")

        try:
            self.steps(FREE_STEPS + 2, after)
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            print(f"    waits: {str(error).splitlines()[0]}")
            return True
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return False


def wait(session: Session) -> None:
    if session.place.device.type == "cuda":
        torch.cuda.synchronize()


def measure(net: str, batch: int, values: dict[str, Any], data: Dataset, size: Size) -> Any:
    """Seconds an epoch of each method, of one network, batch size and mode."""
    start = time.perf_counter()
    values = values | NETS[net] | {"batch_size": batch}
    sides = {method: Side(method, values, data, size) for method in RUN_EPOCHS}
    art = sides["art"]
    for side in sides.values():
        side.chunk()  # compiles
    art.evaluate()
    first = time.perf_counter() - start
    steps = interleaved({name: s.chunk for name, s in sides.items()}, size.rounds, warmup=1)
    few = max(1, size.rounds // 2)
    extra = interleaved({"prune": art.prune, "evaluate": art.evaluate}, few, warmup=1)
    step = {name: [t / size.chunk for t in v] for name, v in steps.items()}
    epoch = {n: statistics.median(v) * EPOCH_IMAGES / batch / 1e3 for n, v in step.items()}
    images = size.evaluated // batch * batch
    judged = [t * EPOCH_IMAGES / images for t in extra["evaluate"]]
    epoch["art"] += (statistics.median(extra["prune"]) + statistics.median(judged)) / 1e3
    dense = statistics.median(step["dense"])
    return {
        "measured": "epoch",
        "net": net,
        "batch": batch,
        "compile": values["compile"],
        "place": str(art.session.place),
        "milliseconds": {
            "step": {name: spread(v) for name, v in step.items()},
            "prune": spread(extra["prune"]),
            "evaluate": spread(judged),
        },
        "share_of_step": {
            name: 1 - dense / statistics.median(step[name]) for name in ("art", "granet")
        },
        "epoch_seconds": epoch,
        "art_run_minutes": (sum(RUN_EPOCHS[n] * epoch[n] for n in RUN_EPOCHS) + first) / 60,
        "first_seconds": first,
        "waits": {name: side.waits() for name, side in sides.items()},
    }


def parts(net: str, values: dict[str, Any], data: Dataset, size: Size) -> dict[str, Any]:
    """Milliseconds of the regulariser, of the masks and of ways to find a border, by themselves."""
    side = Side("dense", values | NETS[net] | {"compile": "none", "batch_size": 64}, data, size)
    session, config = side.session, build({})
    model = copy.deepcopy(session.model)
    optimizer = make_optimizer(model, config.optim, session.place.device)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(sparsity=SPARSITY))
    optimizer.step()
    weights = [p.detach() for p in st.select(session.model).values()]
    grads = [torch.zeros_like(w) for w in weights]
    flat = torch.cat([w.reshape(-1) for w in weights]).abs()
    rank = len(flat) - st.masks.kept(len(flat), SPARSITY)
    calls = {
        "regularizer": lambda: st.HyperSparse(SPARSITY).add_grad_(weights, grads, 1e-9),
        "masks": sparsifier.apply_,
        "border: topk": lambda: order.kth_off_cpu(flat, rank),
        "border: kthvalue": lambda: torch.kthvalue(flat, rank + 1),
        "border: sort": lambda: torch.sort(flat),
    }

    def repeated(call: Callable[[], object]) -> None:
        for _ in range(size.chunk // 2):
            call()
        wait(session)

    timed = {name: lambda call=call: repeated(call) for name, call in calls.items()}
    times = interleaved(timed, size.rounds, warmup=1)
    return {
        "measured": "parts",
        "net": net,
        "place": str(session.place),
        "weights": len(flat),
        "milliseconds": {n: spread([t / (size.chunk // 2) for t in v]) for n, v in times.items()},
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["resnet32", "vgg19"])
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES[:3]))
    parser.add_argument("--limit", type=float, default=480.0, help="seconds for the whole")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    if options.smoke:
        options.nets, options.batches, options.modes = ["resnet8"], [8], ["none", "default"]
        compiled.BACKEND = "aot_eager"  # the compiler's front half: no kernels to build
    return options


def main() -> int:
    rows: list[dict[str, Any]] = []
    options, start, failed = arguments(), time.perf_counter(), 0
    size = SMOKE if options.smoke else Size()
    data, values = dataset(size), {"device": options.device, "precision": options.precision}
    jobs: list[Callable[[], dict[str, Any]]] = [
        *(lambda net=net: parts(net, values, data, size) for net in options.nets),
        *(
            lambda net=net, batch=batch, mode=mode: measure(
                net, batch, values | {"compile": mode}, data, size
            )
            for batch in options.batches
            for net in options.nets
            for mode in options.modes
        ),
    ]
    print(title(size))
    kept = None if options.smoke or not on_cuda(options.device) else RECORD
    out, left = options.out or kept, len(jobs)
    with determinism(False):  # as the trainer has it
        for job in jobs:
            if time.perf_counter() - start > options.limit:
                print(f"{left} parts are left out: the {options.limit:g} s are over")
                break
            left -= 1
            try:
                rows.append(job())
            except Exception:  # one that fails must not take the others with it
                if options.smoke:
                    raise
                failed += 1
                traceback.print_exc()
                continue
            show(rows[-1])
            write(out, title(size), rows, left, {})
    write(out, title(size), rows, left, aims(rows))
    print("no record is kept; --out names one" if out is None else f"record: {out}")
    return int(failed > 0)


def title(size: Size) -> str:
    """What is measured, and whether it says anything."""
    toy = "" if size == Size() else f"; a toy: measured on {size.chunk} steps, for no comparison"
    return f"seconds an epoch of 50,000 images of {size.side}x{size.side}{toy}"


def on_cuda(device: str) -> bool:
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


if __name__ == "__main__":
    sys.exit(main())
