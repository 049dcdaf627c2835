"""A finished run's network in another format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save as save_tensors

from .. import compress
from ..atomic import write_atomic
from .errors import BadInput
from .finished import Parts, opened
from .folder import RunFolder
from .inputs import Inputs

Format = Literal["compressed", "dense", "onnx", "2:4"]
_ENDS = {"compressed": "compressed.safetensors", "dense": "dense.safetensors", "onnx": "onnx"}


def export(
    path: Path,
    *,
    format: Format = "compressed",
    out: Path | None = None,
    values: compress.saving.Values | None = None,
) -> dict[str, Any]:
    """Write the network of a finished run in a format.

    Args:
        path: the run folder.
        format: as on the command line.
        out: the file; None is model.compressed.safetensors, … in the run folder.
        values: of `compressed` alone: type that kept weights are rounded to.
    Returns:
        format, path, bytes, dense_bytes (of model.safetensors) and ratio of the two.
    Raises:
        BadInput: no finished run lies there, or its network has no such format, with the reason.
    """
    if values is not None and format != "compressed":
        raise BadInput(f"values is for --format compressed; leave it out for {format}.")
    parts = opened(path)
    target = out or path / f"model.{_ENDS.get(format, format)}"
    try:
        size = _write(format, parts, target, values)
    except OSError as error:
        raise BadInput(f"cannot write {target}: {error.strerror}. Give another --out.") from error
    except ValueError as error:
        raise BadInput(str(error)) from error
    dense = RunFolder(path).weights.stat().st_size
    found = {"format": format, "path": str(target), "bytes": size, "dense_bytes": dense}
    return {**found, "ratio": size / dense}


def _write(
    format: Format, parts: Parts, target: Path, values: compress.saving.Values | None
) -> int:
    weights, masks = parts.weights, parts.masks
    if format == "compressed":
        return compress.save(weights, masks, target, values=values)
    if format == "dense":
        data_ = save_tensors(compress.fold(weights, masks))
        write_atomic(target, data_)
        return len(data_)
    inputs = parts.inputs()
    model = parts.network(inputs)
    if format == "onnx":
        images = torch.zeros(2, *inputs.shape)
        return compress.export_onnx(model, masks, target, images=images, about=_about(inputs))
    reason = compress.reason_against(model, masks)
    raise BadInput(
        reason
        or "a 2:4 network is bound to the GPU and its library, so there is no file of it; "
        "convert it where it runs, with st.compress.convert_2to4_(model, masks)."
    )


def _about(inputs: Inputs) -> dict[str, str]:
    """What whoever runs the network must know of its images; names of classes as JSON."""
    return {
        "images": "pixels 0..255 as (x / 255 - mean) / std, [N, C, H, W]",
        "mean": json.dumps(inputs.mean),
        "std": json.dumps(inputs.std),
        "classes": json.dumps(inputs.classes),
    }
