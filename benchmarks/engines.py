"""Dense inference engines for a comparison: a network and a batch in, a function to time out.

Each folds batch norm as it likes, computes in float32 and uses as many threads as torch does.
Engines that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

Run = Callable[[], Tensor]


def engines(model: nn.Module, images: Tensor) -> dict[str, Run]:
    """Every engine that is installed here, by name; `model` is in evaluation mode."""
    last = torch.channels_last
    made = {
        "eager": _eager(model, images),
        "channels-last": _eager(model.to(memory_format=last), images.to(memory_format=last)),
        "inductor": _inductor(model.to(memory_format=torch.contiguous_format), images),
    }
    if _installed("onnx", "onnxscript") and (_installed("onnxruntime") or _installed("openvino")):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            _export(model, images, path)
            if _installed("onnxruntime"):
                made["onnxruntime"] = _onnxruntime(path, images)
            if _installed("openvino"):
                made["openvino"] = _openvino(path, images)
    return made


def versions() -> dict[str, str]:
    """Of the engines that are installed beside PyTorch."""
    from importlib.metadata import version

    return {name: version(name) for name in ("onnxruntime", "openvino") if _installed(name)}


def _installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def _eager(model: nn.Module, images: Tensor) -> Run:
    # Convolution weights keep the format that they had when this was made: a copy of its own.
    import copy

    own = copy.deepcopy(model)
    return lambda: own(images)


def _inductor(model: nn.Module, images: Tensor) -> Run:
    compiled = torch.compile(model, options={"freezing": True})
    return lambda: compiled(images)


def _export(model: nn.Module, images: Tensor, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), path, dynamo=True, external_data=False, verbose=False)


def _onnxruntime(path: Path, images: Tensor) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def _openvino(path: Path, images: Tensor) -> Run:
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    feed = [images.numpy()]
    return lambda: torch.from_numpy(request.infer(feed, share_inputs=True)[0])
