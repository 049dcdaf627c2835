"""What a run keeps for analyses: a small file an epoch, read back as arrays.

`layers.json` says what the columns are; `epoch-00000.npz` is of before the first step, and each
later one of the end of its epoch. Masks are kept as bits of a fixed sample of at most SAMPLE
weights, all of them in a smaller network, and profiles are of PROFILED; counts are of all weights.
What earlier versions wrote otherwise is brought into today's form.
"""

from __future__ import annotations

import io
import json
import logging
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)

VERSION = 1
SAMPLE = 2**18  # 32 KiB of bits; an overlap of 1 % of them is known to 0.2 points
PROFILED = 2**14  # sorted in 2 ms
SHARES = 10  # of the active weights
_NAME = re.compile(r"epoch-(\d+)\.npz")


@dataclass(frozen=True)
class Layers:
    """The columns of a trace, and what holds all through the run.

    Attributes:
        names: of the pruned weights.
        weights: their sizes.
        shapes: their shapes.
        flops: of each layer's dense forward pass, one image.
        flops_total: of the whole network's.
        kept: weights that are left in the end.
        images: trained on in an epoch.
        batches: of an epoch.
        classes: their names.
        ranks: relative ranks of the profiles.
    """

    names: tuple[str, ...]
    weights: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    flops: tuple[int, ...]
    flops_total: int
    kept: int
    images: int
    batches: int
    classes: tuple[str, ...]
    ranks: tuple[float, ...]


@dataclass(frozen=True)
class Trace:
    """A run's epochs, from 0, the network before its first step.

    Attributes:
        layers: what the columns are.
        epochs: [E] numbers of the epochs that were kept.
        steps: [E] optimizer steps taken until then.
        active: [E, L] active weights of each layer.
        worked: [E, L] those that the passes of its steps ran with, mean over the steps.
        read: [E, L] pruned weights whose gradient the method read, mean over the steps.
        explored: [E, L] weights that were active then or at any time before.
        dropped: [E, L] connections that went within the epoch, over all updates.
        grown: [E, L] connections that came.
        updates: [E] mask updates within the epoch.
        masks: packed bits of the sample, one array an epoch; None where they were lost.
        tops: likewise, of the weights that a pruning then would have kept: the largest `kept` of
            those active.
        weight_profile: [E, P] magnitudes at `layers.ranks`.
        regularizer_profile: [E, P - 1] the regulariser's gradient at strength 1 between those
            ranks of the weights; NaN where there is none.
        kept_gradient: [E, SHARES] the last batch's mean |gradient| in each tenth of the active
            weights, from the smallest up; NaN where it is not known.
        pruned_gradient: [E] its mean over the pruned weights of the layers that computed it; NaN
            where there are none.
        classes: [E, 2, C] right answers and images on the held-out images (or the test set, where
            it is read every epoch).
        pruned_classes: [E, 2, C] those of ART's pruned copy on the training images.
    """

    layers: Layers
    epochs: np.ndarray
    steps: np.ndarray
    active: np.ndarray
    worked: np.ndarray
    read: np.ndarray
    explored: np.ndarray
    dropped: np.ndarray
    grown: np.ndarray
    updates: np.ndarray
    masks: tuple[np.ndarray | None, ...]
    tops: tuple[np.ndarray | None, ...]
    weight_profile: np.ndarray
    regularizer_profile: np.ndarray
    kept_gradient: np.ndarray
    pruned_gradient: np.ndarray
    classes: np.ndarray
    pruned_classes: np.ndarray

    @property
    def sparsity(self) -> np.ndarray:
        """[E] over all layers."""
        return 1 - self.active.sum(axis=1) / sum(self.layers.weights)

    @property
    def layer_sparsity(self) -> np.ndarray:
        """[E, L]."""
        return 1 - self.active / np.array(self.layers.weights)

    @property
    def exploration(self) -> np.ndarray:
        """[E], R_s: the share of all weights that were ever active."""
        return self.explored.sum(axis=1) / sum(self.layers.weights)


def sampled_places(sizes: Mapping[str, int], limit: int = SAMPLE) -> dict[str, np.ndarray]:
    """Which flat positions of each layer are looked at: all of them, or a fixed random sample.

    Args:
        sizes: name -> weights of the layer.
        limit: the most positions over all layers together.
    Returns:
        name -> rising int64 positions; layers have their share of the sample, rounded down, but
        not less than one.
    """
    total = sum(sizes.values())
    if total <= limit:
        return {name: np.arange(size) for name, size in sizes.items()}
    draws = np.random.default_rng(0)
    return {
        name: np.sort(draws.choice(size, max(1, size * limit // total), replace=False))
        for name, size in sizes.items()
    }


def shared(bits: np.ndarray, others: np.ndarray) -> float:
    """The share of the second's set bits that the first has too; 1 where the second has none."""
    size = int(np.unpackbits(others).sum())
    both = np.bitwise_and(bits, others)
    return int(np.unpackbits(both).sum()) / size if size else 1.0


def dump_layers(layers: Layers) -> bytes:
    """The text of `layers.json`."""
    return (json.dumps({"version": VERSION, **asdict(layers)}) + "\n").encode()


def dump_epoch(arrays: Mapping[str, np.ndarray]) -> bytes:
    """One epoch's file, compressed."""
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)  # pyright: ignore[reportArgumentType]
    return held.getvalue()


def file_name(epoch: int) -> str:
    """The name of an epoch's file."""
    return f"epoch-{epoch:05d}.npz"


def load_trace(folder: Path, *, last: int | None = None) -> Trace | None:
    """Read a run's trace.

    Args:
        folder: the run's `trace` folder.
        last: the last epoch to read; later ones are of a course that was given up. None reads all.
    Returns:
        The trace, or None where none was kept, or by another version. What is damaged is left out
        and told by a warning.
    """
    if not (folder / "layers.json").exists():
        return None
    layers = _layers(folder / "layers.json")
    if layers is None:
        return None
    found = {int(m[1]): p for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))}
    epochs = {e: _read(found[e]) for e in sorted(found) if last is None or e <= last}
    if damaged := [found[e].name for e, arrays in epochs.items() if not arrays]:
        _log.warning("cannot read %s in %s; left out.", ", ".join(damaged), folder)
    epochs = {e: arrays for e, arrays in epochs.items() if arrays}
    return _stacked(layers, epochs) if epochs else None


def _layers(path: Path) -> Layers | None:
    """What the columns are; None, and a warning, where it cannot be told."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about.pop("version", None) == VERSION:
            return Layers(**{name: _fixed(value) for name, value in about.items()})
        _log.warning("the trace in %s is of another version; left out.", path.parent)
    except (OSError, ValueError, TypeError, AttributeError):
        _log.warning("cannot read %s; the trace is left out.", path)
    return None


def _fixed(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(map(_fixed, value)) if isinstance(value, list) else value


def _read(path: Path) -> dict[str, np.ndarray]:
    """An epoch's arrays; none where the file is damaged."""
    try:
        with path.open("rb") as held, np.load(held, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}


def _stacked(layers: Layers, epochs: Mapping[int, Mapping[str, np.ndarray]]) -> Trace:
    points, classes = len(layers.ranks), len(layers.classes)

    def stack(name: str, shape: tuple[int, ...] = (), fill: float = 0) -> np.ndarray:
        empty = np.full(shape, fill)
        return np.stack([np.asarray(arrays.get(name, empty)) for arrays in epochs.values()])

    def bits(name: str) -> tuple[np.ndarray | None, ...]:
        """Each epoch's own, or those of the epoch that it names as having the same."""
        places = (int(arrays[f"{name}_of"]) for arrays in epochs.values())
        return tuple(epochs.get(place, {}).get(name) for place in places)

    width = (len(layers.names),)
    gradients = [_gradients(arrays, layers) for arrays in epochs.values()]
    return Trace(
        layers=layers,
        epochs=np.array(list(epochs)),
        steps=stack("step"),
        active=stack("active", width),
        worked=np.stack([_worked(arrays) for arrays in epochs.values()]),
        read=np.stack([_read_by(arrays, layers) for arrays in epochs.values()]),
        explored=stack("explored", width),
        dropped=stack("dropped", width),
        grown=stack("grown", width),
        updates=stack("updates"),
        masks=bits("mask"),
        tops=bits("top"),
        weight_profile=stack("weight_profile", (points,), np.nan),
        regularizer_profile=stack("regularizer_profile", (points - 1,), np.nan),
        kept_gradient=np.stack([kept for kept, _ in gradients]),
        pruned_gradient=np.array([pruned for _, pruned in gradients]),
        classes=stack("classes", (2, classes)),
        pruned_classes=stack("pruned_classes", (2, classes)),
    )


def _worked(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """[L]; of an earlier version's file the mean of the epoch's two ends."""
    if "worked" in arrays:
        return arrays["worked"]
    return (arrays.get("begun", arrays["active"]) + arrays["active"]) / 2


def _read_by(arrays: Mapping[str, np.ndarray], layers: Layers) -> np.ndarray:
    """[L]; of an earlier version's file by the share of steps with a dense gradient."""
    if "read" in arrays:
        return arrays["read"]
    return float(arrays.get("dense_gradients", 0)) * (np.array(layers.weights) - _worked(arrays))


def _gradients(arrays: Mapping[str, np.ndarray], layers: Layers) -> tuple[np.ndarray, float]:
    """([SHARES] of active weights, mean of pruned ones); NaN where the epoch has none.

    An earlier version's file has means between ranks of PROFILED weights, active and pruned ones
    together. Of a sample the border is not at the sparsity of the whole, so what lies between the
    last rank that is a zero and the first that is none, active and pruned mixed, is left out.
    """
    kept, pruned = np.full(SHARES, np.nan), np.nan
    if "kept_gradient" in arrays:
        return arrays["kept_gradient"], float(arrays["pruned_gradient"])
    if not {"gradient_profile", "weight_profile"} <= arrays.keys():
        return kept, pruned
    magnitudes, size = arrays["weight_profile"], _profiled(layers)
    edges = np.rint(np.array(layers.ranks) * (size - 1))
    sums = np.concatenate([[0.0], np.cumsum(arrays["gradient_profile"] * np.diff(edges))])
    zeros = int(np.count_nonzero(magnitudes == 0))  # the first of the ranks
    if zeros > 1 and edges[zeros - 1]:
        pruned = float(sums[zeros - 1] / edges[zeros - 1])
    if zeros < len(edges):
        first = edges[zeros]
        border = size * (1 - arrays["active"].sum() / sum(layers.weights))
        cuts = np.linspace(np.clip(border, edges[max(zeros - 1, 0)], first), edges[-1], SHARES + 1)
        known = np.maximum(cuts, first)
        found = np.diff(np.interp(known, edges, sums)), np.diff(known)
        kept[found[1] > 0] = (found[0] / np.maximum(found[1], 1e-12))[found[1] > 0]
    return kept, pruned


def _profiled(layers: Layers) -> int:
    """How many weights an earlier version's profiles are of."""
    total = sum(layers.weights)
    if total <= PROFILED:
        return total
    return sum(max(1, size * PROFILED // total) for size in layers.weights)
