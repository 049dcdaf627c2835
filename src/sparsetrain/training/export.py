"""A finished run's network in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from .. import compress, data, models
from ..atomic import write_atomic
from ..types import Masks
from .config import TrainConfig
from .errors import BadInput
from .feeds import load_data
from .folder import RunFolder
from .session import model_options

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
    folder = RunFolder(path)
    config, record = folder.load_config(), folder.load_record()
    if record is None:
        raise BadInput(f"the run in {path} is not finished; continue it with `sparsetrain train`.")
    if values is not None and format != "compressed":
        raise BadInput(f"values is for --format compressed; leave it out for {format}.")
    try:
        weights = load_tensors(folder.weights.read_bytes())
        masks = {name: weights[name] != 0 for name in record["sparsity"]["per_layer"]}
    except (OSError, KeyError, SafetensorError) as error:
        raise BadInput(f"cannot read the network of {path}: {error}.") from error
    target = out or path / f"model.{_ENDS.get(format, format)}"
    try:
        size = _write(format, config, weights, masks, target, values)
    except OSError as error:
        raise BadInput(f"cannot write {target}: {error.strerror}. Give another --out.") from error
    except ValueError as error:
        raise BadInput(str(error)) from error
    dense = folder.weights.stat().st_size
    found = {"format": format, "path": str(target), "bytes": size, "dense_bytes": dense}
    return {**found, "ratio": size / dense}


def _write(
    format: Format,
    config: TrainConfig,
    weights: dict[str, Tensor],
    masks: Masks,
    target: Path,
    values: compress.saving.Values | None,
) -> int:
    if format == "compressed":
        return compress.save(weights, masks, target, values=values)
    if format == "dense":
        data_ = save_tensors(compress.fold(weights, masks))
        write_atomic(target, data_)
        return len(data_)
    model, shape = _network(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput("the run's weights are not those of its settings' network.") from error
    if format == "onnx":
        return compress.export_onnx(model, masks, target, images=torch.zeros(2, *shape))
    reason = compress.reason_against(model, masks)
    raise BadInput(
        reason
        or "a 2:4 network is bound to the GPU and its library, so there is no file of it; "
        "convert it where it runs, with st.compress.convert_2to4_(model, masks)."
    )


def _network(config: TrainConfig) -> tuple[nn.Module, tuple[int, int, int]]:
    """A run's network and its images' shape; only a folder of images is read for that."""
    known = {entry.name: entry for entry in data.describe()}
    if config.data.dataset in known:
        entry = known[config.data.dataset]
        side = config.data.image_size
        classes, shape = entry.classes, entry.image if side is None else (3, side, side)
    else:
        dataset = load_data(config.data)
        classes, shape = dataset.num_classes, (dataset.in_channels, *dataset.image_size)
    model = models.create(
        config.model.model,
        num_classes=classes,
        in_channels=shape[0],
        image_size=shape[1],
        **model_options(config.model),
    )
    return model, shape
