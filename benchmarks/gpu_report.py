"""What `benchmarks/gpu.py` prints of a measured part, and writes of all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from common import machine

RUN_EPOCHS = {"dense": 60, "art": 65, "granet": 160}
EPOCH_AIM, RUN_AIM = 3.0, 15.0  # s and minutes, for ResNet-32 of width 2 at batch 64


def show(row: dict[str, Any]) -> None:
    """Print a part."""
    if row["measured"] == "parts":
        print(f"{row['net']}, {row['weights']:,} weights, each by itself")
        for name, t in row["milliseconds"].items():
            print(f"  {name:18s}{t['median']:8.3f} ms  ({t['min']:.3f} to {t['max']:.3f})")
        return
    print(f"{row['net']}, batch {row['batch']}, {row['place']}")
    for name, t in row["milliseconds"]["step"].items():
        share = row["share_of_step"].get(name)
        more = "" if share is None else f", {100 * share:.1f} % of it the method's"
        waits = {None: "", False: ", never waits", True: ", WAITS"}[row["waits"][name]]
        print(
            f"  {name:7s}{row['epoch_seconds'][name]:8.2f} s an epoch; step {t['median']:.2f} ms "
            f"({t['min']:.2f} to {t['max']:.2f}){more}{waits}"
        )
    print(
        f"  first steps, compiling too: {row['first_seconds']:.0f} s; "
        f"a run of ART of {sum(RUN_EPOCHS.values())} epochs: {row['art_run_minutes']:.1f} min"
    )


def aims(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The best mode of ResNet-32 at batch 64 beside what was aimed at; empty if not measured."""
    known = [r for r in rows if r.get("batch") == 64 and r["net"] == "resnet32"]
    if not known:
        return {}
    best = min(known, key=lambda row: row["art_run_minutes"])
    epoch, run = best["epoch_seconds"], best["art_run_minutes"]
    print(
        f"aims, resnet32 at batch 64, compile {best['compile']}: dense epoch "
        f"{epoch['dense']:.2f} s "
        f"(at most {EPOCH_AIM:g}), run of ART {run:.1f} min (at most {RUN_AIM:g})"
    )
    met = epoch["dense"] <= EPOCH_AIM and run <= RUN_AIM
    return {"epoch_seconds": EPOCH_AIM, "run_minutes": RUN_AIM, "met": met}


def write(
    out: Path | None, what: str, rows: list[dict[str, Any]], left: int, aim: dict[str, Any]
) -> None:
    """Write the parts so far; nothing where `out` is None.

    Args:
        what: is measured.
        left: parts not measured.
        aim: of `aims`.
    """
    cuda = bool(rows) and rows[0]["place"].startswith("cuda")
    device = {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if cuda else {}
    if out is not None:
        record = {
            "benchmark": what,
            **machine(),
            **device,
            "aim": aim,
            "left_out": left,
            "results": rows,
        }
        out.write_text(json.dumps(record, indent=2) + "\n")
