"""Choices kept between processes: a small file for each network, machine and batch.

In the user's cache folder (`XDG_CACHE_HOME` or `~/.cache`), under `sparsetrain/choices`. A file
that cannot be read or written costs a new measurement, nothing else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch

from ..kernels import native
from .choice import Chosen
from .packable import weight_shape
from .units import Conv, Network, Other

_FORMAT = "2"
_log = logging.getLogger(__name__)


def key(network: Network, kept: Mapping[str, int], *, rows: int, block: int) -> str:
    """A digest of all that a measurement depends on.

    Args:
        kept: weights that are not zero, by output of the unit.
        rows: images that it was measured with.
        block: images side by side.
    """
    places = {name: i for i, name in enumerate(network.graph.shapes)}
    lines = [_FORMAT, torch.__version__, processor(), str(torch.get_num_threads())]
    lines += [*_kernels(), f"{rows} {block}"]
    for unit in network.units:
        op, values = unit.op, [places.get(name, -1) for name in (*unit.inputs, unit.output)]
        shape = network.graph.shapes.get(unit.output)
        line = f"{values} {None if shape is None else (shape.rows, shape.rest, shape.dtype)}"
        if isinstance(op, Conv):
            sizes = (weight_shape(op, network.graph), op.stride, op.padding, op.dilation, op.groups)
            line += f" {sizes} {op.linear} {op.residual} {op.relu} {kept[unit.output]}"
        else:
            line += f" {op.call.target if isinstance(op, Other) else type(op).__name__}"
        lines.append(line)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def load(digest: str, network: Network) -> Chosen | None:
    """What was chosen before; None if nothing, or if the file makes no sense."""
    try:
        found = json.loads((_folder() / f"{digest}.json").read_text())
        outputs = [unit.output for unit in network.units]
        packed = frozenset(outputs[place] for place in found["packed"])
        seconds = {str(name): float(time) for name, time in found["seconds"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return Chosen(packed, seconds)


def save(digest: str, network: Network, chosen: Chosen) -> None:
    """Keep a choice; a folder that cannot be written is left alone."""
    places = [i for i, unit in enumerate(network.units) if unit.output in chosen.packed]
    text = json.dumps({"packed": places, "seconds": dict(chosen.seconds)})
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=_folder())
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).replace(_folder() / f"{digest}.json")
    except OSError as error:
        _log.debug("the choice of kernels was not kept: %s", error)


@lru_cache(maxsize=1)
def processor() -> str:
    """The processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = [word for line in lines[:40] if line.startswith("flags") for word in line.split()]
    widest = "avx512f" if "avx512f" in flags else "avx2" if "avx2" in flags else ""
    return f"{names[0] if names else platform.processor()} {widest}".strip()


def _kernels() -> tuple[str, str]:
    """Which kernels run: a rebuilt library is measured again."""
    level = os.environ.get("SPARSETRAIN_NATIVE", "")
    if native.library() is None:
        return level, "twins"
    found = native.PATH.stat()
    return level, f"{found.st_size} {found.st_mtime_ns}"


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "sparsetrain" / "choices"
