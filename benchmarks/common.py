"""What the benchmarks share: interleaved timing, and what a record says of its machine."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

import sparsetrain as st


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int = 2,
    before_each: int = 0,
    warm_ms: float = 0.0,
) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round, in turn, after `warmup` untimed rounds.

    Args:
        before_each: untimed calls right before each timed one, for what the one before has left in
            the caches.
        warm_ms: more untimed calls for so long: a core that was idle wakes up slowly.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(warmup + repeats):
        for name, run in contenders.items():
            since, calls = time.perf_counter(), 0
            while calls < before_each or 1e3 * (time.perf_counter() - since) < warm_ms:
                run()
                calls += 1
            start = time.perf_counter()
            run()
            if round_ >= warmup:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(times: Mapping[str, list[float]], name: str, base: str) -> float:
    """Median over rounds of one contender over another: noise that lasts hits both alike."""
    return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))


def processor() -> str:
    """The CPU's own name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def machine() -> dict[str, object]:
    """Device, threads and versions, as every record states them."""
    return {
        "device": processor(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "sparsetrain": st.__version__,
        },
    }
