"""Images a second and memory of the loader of JPEGs: reduced-size against full decoding.

    python benchmarks/imagenet_loader.py [--images 256] [--rounds 3] [--smoke] [--out FILE]

JPEGs of 500 x 375 pixels, about ImageNet's average in size and bytes, and of 1000 x 750, made in a
temporary folder and read from the page cache; random parts resized to 224, flipped, in batches of
32, normalised on the CPU. Each contender hands out the same images; all take turns. Workers run
beside the main process, which only normalises, so on two cores two workers are the most that can
help. Their first batches arrive together, so the clock starts with the last of those. Memory is the
proportional set size of all worker processes, sampled in the round that warms up, as workers decode
on meanwhile; their share of the parent's pages counts in it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, ratio, spread
from PIL import Image

from sparsetrain.data import Reading, StreamLoader
from sparsetrain.data.streamed.files import Files

RECORD = Path(__file__).parent / "records" / "imagenet-loader.json"
SIZES, SIDE, BATCH = ((500, 375), (1000, 750)), 224, 32
WORKERS = (0, 2)


def write_images(root: Path, count: int, size: tuple[int, int]) -> Files:
    """Smooth shapes under noise, so that a file has about as many bytes as one of ImageNet's."""
    generator = np.random.default_rng(0)
    names = []
    for number in range(count):
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), int)
        noise = generator.normal(0, 9, image.shape)
        Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8)).save(
            root / f"{number}.jpg", quality=92
        )
        names.append(f"{number}.jpg")
    return Files(root, names, [0] * count)


def loader(source: Files, *, workers: int, reduced: bool) -> StreamLoader:
    return StreamLoader(
        source,
        side=SIDE,
        batch_size=BATCH,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        augment=True,
        shuffle=True,
        seed=0,
        device="cpu",
        reading=Reading(workers=workers, reduced=reduced),
    )


def workers_mebibytes() -> float:
    """Proportional set size of this process's children."""
    me = os.getpid()
    total = 0
    for child in Path(f"/proc/{me}/task/{me}/children").read_text().split():
        rollup = Path(f"/proc/{child}/smaps_rollup")
        lines = rollup.read_text().splitlines() if rollup.exists() else []
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def images_a_second(feed: StreamLoader, workers: int) -> float:
    """Once all workers have given a batch."""
    seen, start, first = 0, 0.0, max(workers, 1) - 1
    for number, (images, _) in enumerate(feed.batches(0)):
        if number <= first:
            start = time.perf_counter()
        else:
            seen += len(images)
    return seen / (time.perf_counter() - start)


def memory_in_use(feed: StreamLoader) -> float:
    """MiB of the workers in mid-epoch."""
    most = 0.0
    for number, _ in enumerate(feed.batches(0)):
        if number in (2, 4):
            most = max(most, workers_mebibytes())
    return most


def measure(size: tuple[int, int], images: int, rounds: int) -> dict[str, Any]:
    kinds = [(reduced, workers) for workers in WORKERS for reduced in (True, False)]
    names = {k: f"{'reduced' if k[0] else 'full'}, {k[1]} workers" for k in kinds}
    speeds: dict[str, list[float]] = {name: [] for name in names.values()}
    memory = dict.fromkeys(names.values(), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        source = write_images(Path(folder), images, size)
        length = sum(path.stat().st_size for path in Path(folder).iterdir()) / images
        for (reduced, workers), name in names.items():  # this warms up, too
            memory[name] = memory_in_use(loader(source, reduced=reduced, workers=workers))
        for _ in range(rounds):
            for (reduced, workers), name in names.items():
                feed = loader(source, reduced=reduced, workers=workers)
                speeds[name].append(images_a_second(feed, workers))
    return {
        "size": size,
        "bytes_an_image": round(length),
        "images_a_second": {name: spread(values) for name, values in speeds.items()},
        "workers_mebibytes": {name: round(most, 1) for name, most in memory.items()},
        "reduced_over_full": {
            f"{w} workers": ratio(speeds, names[True, w], names[False, w]) for w in WORKERS
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="a few images, one round")
    parser.add_argument("--out", type=Path, default=RECORD)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.smoke:
        options.images, options.rounds = 128, 1
    found = {
        "what": "images a second; JPEGs to random parts of 224x224, batches of 32",
        "rounds": options.rounds,
        "results": [measure(size, options.images, options.rounds) for size in SIZES],
        **machine(),
    }
    print(json.dumps(found, indent=2))
    options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
