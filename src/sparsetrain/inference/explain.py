"""Where a compiled network's time goes, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from .choice import timed
from .packable import weight_shape
from .runner import Runner
from .units import Add, Affine, Conv, Network, Other, Pool, Unit

_ROUNDS = 7


@dataclass(frozen=True)
class Layer:
    """One row.

    Attributes:
        name: of the layer in the model.
        what: the operation and what is folded into it.
        shape: of its output, without the batch.
        sparsity: fraction of zeros in its weight; None without weights.
        kernel: "sparse" for our packed kernels, "dense" for torch's.
        seconds: of one run, median.
    """

    name: str
    what: str
    shape: tuple[int, ...]
    sparsity: float | None
    kernel: Literal["sparse", "dense"]
    seconds: float


@dataclass(frozen=True)
class Explanation:
    """The layers of a compiled network with their times; `str` of it is a table.

    Attributes:
        layers: in the order they run.
        batch: images.
        seconds: of one whole run, median.
        contenders: seconds of the networks that the choice was made from, by name.
    """

    layers: tuple[Layer, ...]
    batch: int
    seconds: float
    contenders: Mapping[str, float]

    def __str__(self) -> str:
        """The table, aligned; times in milliseconds."""
        inside = sum(layer.seconds for layer in self.layers)
        rest = max(0.0, self.seconds - inside)
        rows = [("layer", "operation", "output", "sparsity", "kernel", "ms", "share")]
        rows += [_row(layer, self.seconds) for layer in self.layers]
        rows.append(("(conversions, calls)", "", "", "", "", *_time(rest, self.seconds)))
        rows.append(
            (f"all, batch {self.batch}", "", "", "", "", *_time(self.seconds, self.seconds))
        )
        widths = [max(len(row[i]) for row in rows) for i in range(7)]
        right = (False, False, False, True, False, True, True)
        lines = [
            "  ".join(
                cell.rjust(width) if flush else cell.ljust(width)
                for cell, width, flush in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in rows
        ]
        if self.contenders:
            times = ", ".join(f"{name} {1e3 * t:.3g} ms" for name, t in self.contenders.items())
            lines.append(f"timed when it was chosen: {times}")
        return "\n".join(lines)


def explanation(
    runner: Runner,
    network: Network,
    kept: Mapping[str, int],
    *,
    inputs: Callable[[], dict[str, Any]],
    rows: int,
    contenders: Mapping[str, float],
) -> Explanation:
    """Time a runner as a whole and by its parts.

    Args:
        kept: weights that are not zero, by output of the unit.
        inputs: makes the inputs of one run.
        rows: images of the inputs.
        contenders: what the choice was made from.
    """
    whole = timed({"all": lambda: runner(inputs())})["all"]
    profiles = [runner.profile(inputs()) for _ in range(_ROUNDS)]
    units = [unit for section in runner.sections for unit in section.units]
    layers = tuple(
        Layer(
            unit.name,
            _what(unit),
            () if (shape := network.graph.shapes.get(unit.output)) is None else shape.rest,
            _sparsity(unit, network, kept),
            "sparse" if unit.output in runner.packed else "dense",
            statistics.median(profile.get(unit.output, 0.0) for profile in profiles),
        )
        for unit in units
    )
    return Explanation(layers, rows, whole, contenders)


def _what(unit: Unit) -> str:
    op = unit.op
    if isinstance(op, Other):
        return op.call.name
    if isinstance(op, Conv):
        words = ["linear" if op.linear else "conv", *["norm"] * len(op.norms)]
        words += ["residual"] * op.residual
    elif isinstance(op, Pool):
        words = [f"{op.kind} pool"]
    elif isinstance(op, Add):
        words = ["add"]
    elif isinstance(op, Affine):
        words = [] if op.norm is None else ["norm"]
    else:
        words = ["flatten"]
    relu = isinstance(op, (Conv, Add, Affine)) and op.relu
    return " + ".join(words + ["relu"] * relu)


def _sparsity(unit: Unit, network: Network, kept: Mapping[str, int]) -> float | None:
    if not isinstance(unit.op, Conv):
        return None
    return 1 - kept[unit.output] / max(1, prod(weight_shape(unit.op, network.graph)))


def _row(layer: Layer, whole: float) -> tuple[str, ...]:
    sparsity = "" if layer.sparsity is None else f"{100 * layer.sparsity:.2f} %"
    shape = "x".join(map(str, layer.shape))
    return (layer.name, layer.what, shape, sparsity, layer.kernel, *_time(layer.seconds, whole))


def _time(seconds: float, whole: float) -> tuple[str, str]:
    return f"{1e3 * seconds:.3f}", f"{100 * seconds / whole:.1f} %"
