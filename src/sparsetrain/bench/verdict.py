"""What the numbers say, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ALIKE = 0.05


def verdict(ratio: float, best: str, breakeven: float | None) -> str:
    """One sentence.

    Args:
        ratio: the fastest dense engine's time over ours.
        best: that engine.
        breakeven: fraction of zeros from which sparse kernels win; None where they never did.
    """
    if ratio > 1 + _ALIKE:
        return f"Sparse is {ratio:.1f} times as fast here as the fastest dense engine, {best}."
    pays = (
        "sparse kernels did not win at any sparsity tried"
        if breakeven is None
        else f"this network's zeros pay from about {100 * breakeven:.0f} %"
    )
    if ratio >= 1 - _ALIKE:
        return f"Sparse and dense ({best}) take the same time here; {pays}."
    return f"Dense is faster here: {best} takes {100 * ratio:.0f} % of our time; {pays}."


def text(result: Mapping[str, Any]) -> str:
    """The result of `bench` as lines for a terminal."""
    lines = [
        f"{result['network']}: {100 * result['sparsity']:.2f} % zeros ({result['masks']}), "
        f"batch {result['batch']}, {result['threads']} thread(s), {result['device']}",
        "",
    ]
    times = result["milliseconds"]
    ours = times["ours"]["median"]
    width = max(map(len, times))
    for name, t in times.items():
        ratio = t["median"] / ours
        spread = f"({t['min']:.3g} to {t['max']:.3g})"
        lines.append(f"{name:<{width}}  {t['median']:9.3g} ms  {spread:<22} {ratio:6.2f}")
    lines += [f"{name:<{width}}  {reason}" for name, reason in result["left_out"].items()]
    files = result["bytes"]
    small = files["compressed"]
    told = (
        ""
        if small is None
        else f", compressed {small:,} bytes, {100 * small / files['dense']:.1f} %"
    )
    lines += ["", f"file: dense {files['dense']:,} bytes{told}", "", result["verdict"]]
    return "\n".join(lines)
