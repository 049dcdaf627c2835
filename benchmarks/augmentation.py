"""Crop, flip and normalisation of whole batches, against one image after the other through PIL.

    python benchmarks/augmentation.py [--threads 1] [--rounds 7] [--smoke]

Both hand out shuffled batches of 64 from 32x32 colour images: padded by 4 and cropped, flipped with
probability 1/2, scaled and normalised, in float32; ours channels-last, as the trainer takes them.
The baseline is the data set of `benchmarks/naive_trainer.py` in a DataLoader without workers. A
round is 5,000 images a side, in turn; an epoch is 50,000. Exits with 1 where the gate is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from common import interleaved, machine, ratio, spread
from naive_trainer import Images
from torch.utils.data import DataLoader

from sparsetrain.data import Augment
from sparsetrain.data.loader import Loader

RECORD = Path(__file__).parent / "records" / "augmentation.json"
GATE, EPOCH_IMAGES, BATCH = 6.0, 50_000, 64
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def measure(images: int, rounds: int) -> dict[str, Any]:
    """Times of both sides, and whether the gate is met."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (images,), generator=generator)
    naive = DataLoader(
        Images(pixels.numpy(), labels.numpy(), torch.tensor(MEAN), torch.tensor(STD)),
        BATCH,
        shuffle=True,
    )
    ours = Loader(
        pixels.permute(0, 3, 1, 2),
        labels,
        batch_size=BATCH,
        mean=MEAN,
        std=STD,
        augment=Augment(crop_padding=4, flip=True),
        shuffle=True,
        seed=0,
        device="cpu",
    )
    sides = {
        "naive": lambda: sum(len(labels) for _, labels in naive),
        "ours": lambda: sum(len(labels) for _, labels in ours.batches(0)),
    }
    times = interleaved(sides, rounds)
    found = ratio(times, "naive", "ours")
    scaled = {name: [EPOCH_IMAGES / images * t / 1e3 for t in v] for name, v in times.items()}
    return {
        "images": images,
        "rounds": rounds,
        "epoch_seconds": {name: spread(values) for name, values in scaled.items()},
        "ratio": found,
        "gate": GATE,
        "met": found >= GATE,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    row = measure(256, 2) if options.smoke else measure(5_000, options.rounds)
    for name, t in row["epoch_seconds"].items():
        print(f"{name:6s}{t['median']:8.3f} s an epoch  ({t['min']:.3f} to {t['max']:.3f})")
    print(f"ratio {row['ratio']:.1f} (at least {GATE:g}): {'met' if row['met'] else 'MISSED'}")
    record = {
        "benchmark": "augmentation of 50,000 images of 32x32, CPU",
        **machine(),
        "results": [row],
    }
    out = options.out or (None if options.smoke else RECORD)
    if out is not None:
        out.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if options.smoke or row["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
