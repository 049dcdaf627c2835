"""Tables of single benchmarks, from their records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parents[1] / "benchmarks" / "records"


def _read(name: str) -> dict[str, Any]:
    return json.loads((RECORDS / f"{name}.json").read_text())


def sparse_training() -> str:
    """The table of benchmarks/sparse_training.py."""
    record = _read("sparse-training")
    rows = [
        "| network | zeros | sparse step | dense, channels-last | dense, bf16 | all layers sparse |"
        " optimizer's share |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        over, ms = row["speedup"], row["milliseconds"]["sparse"]["median"]
        kinds = ("dense, channels-last", "dense, bf16", "all sparse")
        shown = [f"{over[kind]:.2f}x" if kind in over else "–" for kind in kinds]
        about = f"{row['network']} | {100 * row['sparsity']:g} % | {ms:.0f} ms"
        rows.append(f"| {about} | {' | '.join(shown)} | {100 * row['optimizer_share']:.1f} % |")
    rows.append(f"\n{record['device']}, {record['threads']} thread, batch 64, float32.")
    return "\n".join(rows)


def own_choices() -> str:
    """The table of benchmarks/own_choices.py: a row a cell."""
    record = _read("own-choices")
    kinds = ("measured", "sparse", "dense", "model")
    rows = [
        "| network | zeros | measured choice | all sparse | all dense | cost model | two threads |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        ms = row["milliseconds"]
        shown = " | ".join(f"{ms[kind]['median']:.3g} ms" for kind in kinds)
        two = "" if row["two threads"] is None else f"{row['two threads']:.2f}x"
        about = f"{row['network']}, batch {row['batch']} | {100 * row['sparsity']:g} %"
        rows.append(f"| {about} | {shown} | {two} |")
    rows.append(f"\n{record['device']}, one thread unless said, float32, masks {record['masks']}.")
    return "\n".join(rows)


def vision_transformer() -> str:
    """The table of benchmarks/vision_transformer.py: a row a method."""
    record = _read("vision-transformer")
    rows = [
        "| method | accuracy | random masks, the same counts | above | pooled standard error |",
        "|---|---|---|---|---|",
    ]
    for row in record["results"]:
        kinds = ("accuracy", "random", "above", "pooled_standard_error")
        rows.append(f"| {row['method']} | {' | '.join(f'{row[kind]:.2f}' for kind in kinds)} |")
    seeds = sorted({run["seed"] for row in record["results"] for run in row["runs"]})
    rows.append(f"\nIn percent; means over seeds {', '.join(map(str, seeds))}.")
    return "\n".join(rows)


def imagenet_loader() -> str:
    """The table of benchmarks/imagenet_loader.py: a row for each size of images and way to read."""
    record = _read("imagenet-loader")
    rows = [
        "| images | bytes each | decoding, workers | images a second | memory of all workers |",
        "|---|---|---|---|---|",
    ]
    for found in record["results"]:
        size = "{} x {} | {:,}".format(*found["size"], found["bytes_an_image"])
        for way, speed in found["images_a_second"].items():
            memory = found["workers_mebibytes"][way]
            shown = f"{speed['median']:.0f} ({speed['min']:.0f}–{speed['max']:.0f})"
            rows.append(f"| {size} | {way} | {shown} | {f'{memory:.0f} MiB' if memory else '–'} |")
    over = ", ".join(
        f"{f['size'][0]} x {f['size'][1]}: {_twice(f['reduced_over_full'])}"
        for f in record["results"]
    )
    rows.append(
        f"\nReduced over full, median of ratios: {over}. {record['device']}, {record['rounds']} "
        "rounds, from the page cache; median and range."
    )
    return "\n".join(rows)


def install() -> str:
    """The table of benchmarks/install.py: what lies on the disk, and the import."""
    record = _read("install")
    found, along = record["results"], record["results"]["brought_along_bytes"]
    rows = ["| | download | installed |", "|---|---|---|"]
    names = {"native": "sparsetrain with its kernels, three processor levels", "pure": "without"}
    for kind, name in names.items():
        sizes = found["wheels"][kind]
        shown = (f"{sizes[k] / 1e6:.1f} MB" for k in ("wheel_bytes", "installed_bytes"))
        rows.append(f"| {name} | {' | '.join(shown)} |")
    largest = sorted(along, key=along.__getitem__, reverse=True)[:3]
    rows.append(
        f"| {len(along)} packages besides torch and its own; the largest: {', '.join(largest)} | | "
        f"{sum(along.values()) / 1e6:.0f} MB |"
    )
    seconds = found["import_seconds"]
    rows.append(
        f"\n`import sparsetrain` takes {seconds['ratio']['median']:.2f} times as long as `import "
        f"torch`, which is in it ({seconds['sparsetrain']['median']:.2f} s; {record['device']})."
    )
    return "\n".join(rows)


def scale() -> str:
    """The table of benchmarks/scale.py: a row for each network, and how its columns grow."""
    record = _read("scale")
    parts = ("pass", "gmp update", "rigl update", "agreement")
    rows = [
        "| weights | each rank holds | one pass | GMP update | RigL update | agreement check |"
        " memory of both |",
        "|---|---|---|---|---|---|---|",
    ]
    holds = {"whole": "all", "shards": "half of each layer"}
    for row in record["results"]:
        ms = row["milliseconds"]
        shown = " | ".join(_duration(ms[part]) if part in ms else "–" for part in parts)
        about = f"{row['weights'] / 1e6:.0f} M in {row['layers']} layers"
        held = f"{holds[row['kind']]}, {row['dtype']}"
        rows.append(f"| {about} | {held} | {shown} | {row['peak_megabytes'] / 1024:.1f} GiB |")
    for kind, fits in record["exponents"].items():
        shown = " | ".join(f"{fits[part]:.2f}" if part in fits else "–" for part in parts)
        rows.append(f"| exponent of growth | {holds[kind]} | {shown} | |")
    rows.append(
        f"\n{record['device']}, {record['ranks']} processes of one thread, "
        f"{100 * record['sparsity']:g} % zeros; medians, of the slower rank."
    )
    return "\n".join(rows)


def _duration(milliseconds: float) -> str:
    small = milliseconds < 1000
    return f"{milliseconds:.3g} ms" if small else f"{milliseconds / 1000:.3g} s"


def _twice(ratios: dict[str, float]) -> str:
    return ", ".join(f"{value:.2f}x with {workers}" for workers, value in ratios.items())
