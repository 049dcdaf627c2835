"""A pruned network as ONNX, for any batch and, where the network allows it, any image size."""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from ..atomic import write_atomic
from ..selection import unwrap
from ..types import Tensors
from .folding import fold
from .saving import check_masks, named

_NEEDED = ("onnx", "onnxscript")


def export_onnx(
    model: nn.Module,
    masks: Tensors,
    path: str | os.PathLike[str],
    *,
    images: Tensor,
    about: Mapping[str, str] | None = None,
) -> int:
    """Write the network in evaluation mode with its masks folded in; the model stays as it is.

    Input "images", output "logits". The batch is free. Height and width are free where the network
    takes larger images than `images`, as those with a global pooling do.

    Args:
        model: [N, C, H, W] images -> [N, classes].
        masks: name -> bool mask, True where a weight is kept.
        path: where the file goes; what lies there is replaced.
        images: two or more images of the usual size.
        about: text by name, kept in the file's metadata.
    Returns:
        The file's size in bytes.
    Raises:
        ValueError: the optional packages are missing, the masks are of another model, or PyTorch
            cannot capture the network.
        OSError: the file cannot be written.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ValueError(f"{missing[0]} is not installed; pip install 'sparsetrain[onnx]'.")
    network = copy.deepcopy(unwrap(model)).cpu().eval()
    tensors, _ = named(network, first=masks)
    cpu_masks = {name: mask.cpu() for name, mask in masks.items()}
    check_masks(cpu_masks, tensors)
    folded = fold({name: tensors[name].detach() for name in cpu_masks}, cpu_masks)
    with torch.no_grad():
        for name, tensor in folded.items():
            tensors[name].copy_(tensor)
    images = images.detach().cpu()
    free = {0: Dim("batch", min=1)}
    if takes_other_sizes(network, images):
        free |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with _quiet():
        try:
            program = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                dynamic_shapes=(free,),
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"PyTorch cannot export this network to ONNX: {reason}") from error
    assert program is not None  # it is where dynamo=True
    proto = program.model_proto
    for name, text in (about or {}).items():
        proto.metadata_props.add(key=name, value=text)
    data = proto.SerializeToString()
    write_atomic(Path(path), data)
    return len(data)


def takes_other_sizes(network: nn.Module, images: Tensor) -> bool:
    """Whether the network runs on larger and not square images too, tried on one."""
    height, width = images.shape[2] + 8, images.shape[3] + 16
    with torch.no_grad():
        try:
            network(images.new_zeros(1, images.shape[1], height, width))
        except RuntimeError:
            return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's words to its own developers: deprecations, torchvision's absence."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
