"""What the numbers say, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOWEST = 0.5
"""The least sparsity at which break-even is looked for."""
_ALIKE = 0.05


@dataclass(frozen=True)
class Findings:
    """What a verdict is made from.

    Attributes:
        ratio: the fastest dense engine's time over ours.
        best: that engine.
        sparse: convolutions and linear layers that took sparse kernels.
        layers: all of them.
        sought: whether the break-even was looked for.
        breakeven: fraction of zeros from which all layers sparse beat that engine; None where
            they never did, or where it was not sought.
    """

    ratio: float
    best: str
    sparse: int
    layers: int
    sought: bool
    breakeven: float | None


def verdict(found: Findings) -> str:
    """One sentence; it begins with who is faster."""
    ratio, best = found.ratio, found.best
    with_them = f"with sparse kernels in {found.sparse} of {found.layers} layers"
    if found.sparse == 0:
        return (
            f"Dense is faster here: sparse kernels brought nothing in any of the {found.layers} "
            f"layers, and our dense ones {_beside(ratio, best)}{_pays(found)}."
        )
    if ratio > 1 + _ALIKE:
        return (
            f"Sparse is {ratio:.1f} times as fast here as the fastest dense engine, {best}, "
            f"{with_them}."
        )
    if ratio >= 1 - _ALIKE:
        return f"Sparse and dense ({best}) take the same time here, {with_them}{_pays(found)}."
    return (
        f"Dense is faster here: {best} takes {100 * ratio:.0f} % of our time, {with_them}"
        f"{_pays(found)}."
    )


def _beside(ratio: float, best: str) -> str:
    if ratio > 1 + _ALIKE:
        return f"are {ratio:.1f} times as fast as {best}"
    if ratio >= 1 - _ALIKE:
        return f"take as long as {best}"
    return f"are slower than {best}, which takes {100 * ratio:.0f} % of their time"


def _pays(found: Findings) -> str:
    """Where sparse would win; nothing where nobody has looked."""
    if not found.sought:
        return ""
    if found.breakeven is None:
        return "; sparse kernels did not win at any sparsity tried"
    about = "at most" if found.breakeven <= LOWEST else "about"
    return f"; this network's zeros pay from {about} {100 * found.breakeven:.0f} %"


def text(result: Mapping[str, Any]) -> str:
    """The result of `bench` as lines for a terminal."""
    lines = [
        f"{result['network']}: {100 * result['sparsity']:.2f} % zeros ({result['masks']}), "
        f"batch {result['batch']}, {result['threads']} thread(s), {result['device']}",
        "",
    ]
    times = result["milliseconds"]
    ours = times["ours"]["median"]
    width = max(map(len, (*times, "engine")))
    head = ("engine", "median", "fastest to slowest", "times ours")
    lines.append(f"{head[0]:<{width}}  {head[1]:>9}     {head[2]:<22} {head[3]:>10}")
    for name, t in times.items():
        ratio = t["median"] / ours
        spread = f"({t['min']:.3g} to {t['max']:.3g})"
        lines.append(f"{name:<{width}}  {t['median']:9.3g} ms  {spread:<22} {ratio:9.2f}x")
    lines += [f"{name:<{width}}  {reason}" for name, reason in result["left_out"].items()]
    layers = result["layers"]
    count = layers["sparse"] + layers["dense"]
    lines += ["", f"kernels: sparse in {layers['sparse']} of {count} layers, dense in the others"]
    files = result["bytes"]
    small = files["compressed"]
    told = (
        ""
        if small is None
        else f", compressed {small:,} bytes, {100 * small / files['dense']:.1f} %"
    )
    lines += [f"file: dense {files['dense']:,} bytes{told}", "", result["verdict"]]
    return "\n".join(lines)
