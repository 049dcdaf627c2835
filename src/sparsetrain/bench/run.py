"""`sparsetrain bench`: time one network on every engine here, ours beside them."""

from __future__ import annotations

import copy
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from safetensors.torch import save
from torch import Tensor, nn

from ..inference import compile_sparse
from ..inference.cache import processor
from ..selection import select
from ..training.errors import BadInput
from .engines import Run, dense_engines
from .networks import Subject, deviation, of_name, of_run, prune_at_random_, sparsity_of
from .verdict import LOWEST, Findings, verdict

_CLOSE = 1e-4
"""Of the largest result: rounding in float32 stays below, another format or a fault does not."""
_LADDER = (LOWEST, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class BenchOptions:
    """Options of `sparsetrain bench`."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None
    """A finished run's folder."""
    model: str | None = None
    """One of our networks with random zeros, instead of a run."""
    sparsity: float = 0.95
    """Zeros of --model."""
    width: int = 1
    """Width of a CIFAR ResNet."""
    image_size: int = 32
    """Side of the images of --model."""
    batch: int = 64
    """Images a call."""
    threads: int | None = None
    """None: as many as PyTorch takes."""
    repeats: int = 9
    """Rounds in which all engines run in turn."""
    engines: Literal["all", "eager"] = "all"
    """eager leaves out those that must be built first: inductor, ONNX Runtime, OpenVINO."""
    breakeven: bool = True
    """Find the sparsity from which it pays."""
    json: bool = False
    """Print the result as one line on stdout."""


def bench(options: BenchOptions) -> dict[str, Any]:
    """Time a network.

    Returns:
        network, masks, sparsity, batch, threads, device, milliseconds {engine: median, min, max},
        left_out {engine: reason}, layers {sparse, dense}, ratio (fastest dense over ours),
        breakeven (None: never, or not sought), breakeven_sought, bytes {dense, compressed},
        verdict.

    Raises:
        BadInput: not exactly one of run and model, a number out of range, or results that are not
            finite or not PyTorch's.
    """
    _check(options)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads or before)
    try:
        with torch.no_grad():
            return _measured(options, _subject(options))
    finally:
        torch.set_num_threads(before)


def _check(options: BenchOptions) -> None:
    if (options.run is None) == (options.model is None):
        raise BadInput("give a finished run's folder or --model NAME, one of the two.")
    for name, value in (
        ("batch", options.batch),
        ("threads", options.threads or 1),
        ("repeats", options.repeats),
    ):
        if value < 1:
            raise BadInput(f"{name} must be at least 1, got {value}.")


def _subject(options: BenchOptions) -> Subject:
    if options.run is not None:
        return of_run(options.run, options.batch)
    assert options.model is not None
    return of_name(
        options.model,
        options.sparsity,
        batch=options.batch,
        image_size=options.image_size,
        width=options.width,
    )


def _measured(options: BenchOptions, subject: Subject) -> dict[str, Any]:
    model, images = subject.model, subject.images
    ours = compile_sparse(model, images)
    runs, left_out = dense_engines(model, images, built=options.engines == "all")
    runs, wrong = checked({**runs, "ours": lambda: ours(images)}, model(images))
    times = interleaved(runs, options.repeats)
    medians = {name: statistics.median(t) for name, t in times.items()}
    best = min((name for name in runs if name != "ours"), key=lambda name: medians[name])
    ratio = statistics.median(a / b for a, b in zip(times[best], times["ours"], strict=True))
    kernels = [kind for _, kind in ours.kernels(options.batch)]
    layers = {"sparse": kernels.count("sparse"), "dense": kernels.count("dense")}
    pays = breakeven(subject, medians[best]) if options.breakeven else None
    findings = Findings(
        ratio, best, layers["sparse"], len(kernels), sought=options.breakeven, breakeven=pays
    )
    return {
        "network": subject.name,
        "masks": subject.masks,
        "sparsity": sparsity_of(model),
        "batch": options.batch,
        "threads": torch.get_num_threads(),
        "device": processor(),
        "torch": torch.__version__,
        "milliseconds": {
            name: {"median": medians[name], "min": min(t), "max": max(t)}
            for name, t in times.items()
        },
        "left_out": left_out | wrong,
        "layers": layers,
        "fastest_dense": best,
        "ratio": ratio,
        "breakeven": pays,
        "breakeven_sought": options.breakeven,
        "bytes": {"dense": len(save(_plain(model))), "compressed": compressed_bytes(model)},
        "verdict": verdict(findings),
    }


def checked(runs: Mapping[str, Run], expected: Tensor) -> tuple[dict[str, Run], dict[str, str]]:
    """The engines whose results are right, and the others with the reason.

    Args:
        runs: by name; "ours" among them.
        expected: what eager PyTorch gives.

    Raises:
        BadInput: results that are not finite, or ours are wrong.
    """
    if not expected.isfinite().all():
        raise BadInput(
            "the network's results on these images are not finite, so no engine can be checked. "
            "Train it again, or take another run."
        )
    errors = {name: deviation(run(), expected) for name, run in runs.items()}
    wrong = {
        name: f"not timed: its results differ from eager PyTorch's by {error:.0e} of the largest"
        for name, error in errors.items()
        if not error <= _CLOSE
    }
    if "ours" in wrong:
        raise BadInput(
            f"our results differ from eager PyTorch's by {errors['ours']:.0e} of the largest, so "
            "no time is told. Please report this network."
        )
    return {name: run for name, run in runs.items() if name not in wrong}, wrong


def interleaved(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each in each round, in turn, after two untimed rounds.

    Each is called once untimed right before its timed call: it finds its own data in the caches,
    whoever ran before it.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(2 + repeats):
        for name, run in runs.items():
            run()
            start = time.perf_counter()
            run()
            if round_ >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def breakeven(subject: Subject, dense: float) -> float | None:
    """The fraction of zeros from which our kernels take less than the best dense time.

    On the same network with random ERK masks of rising sparsity, all layers sparse, between whose
    times it is interpolated.

    Args:
        dense: milliseconds of the fastest dense engine.
    """
    before: tuple[float, float] | None = None
    for sparsity in _LADDER:
        model = copy.deepcopy(subject.model)
        prune_at_random_(model, sparsity)
        compiled = compile_sparse(model, subject.images, choice="sparse")
        runs = {"ours": lambda call=compiled: call(subject.images)}
        spent = statistics.median(interleaved(runs, 3)["ours"])
        if spent <= dense:
            return sparsity if before is None else _between(before, (sparsity, spent), dense)
        before = (sparsity, spent)
    return None


def _between(low: tuple[float, float], high: tuple[float, float], wanted: float) -> float:
    """Where the line through two points (sparsity, time) meets a time."""
    (s0, t0), (s1, t1) = low, high
    return s0 + (s1 - s0) * (t0 - wanted) / (t0 - t1)


def compressed_bytes(model: nn.Module) -> int | None:
    """Size of the network's compressed file; None without `sparsetrain.compress`."""
    name = f"{__package__.rsplit('.', 1)[0]}.compress" if __package__ else ""
    if not name or find_spec(name) is None:
        return None
    masks = {key: weight != 0 for key, weight in select(model).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        importlib.import_module(name).save(model, masks, path)
        return path.stat().st_size


def _plain(model: nn.Module) -> dict[str, Tensor]:
    """The state without shared memory and channels-last, as safetensors wants it."""
    return {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
