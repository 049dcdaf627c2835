"""Dense engines on one network: PyTorch as it is, and those that are installed beside it."""

from __future__ import annotations

import copy
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Run: TypeAlias = Callable[[], Tensor]


def dense_engines(
    model: nn.Module, images: Tensor, *, built: bool
) -> tuple[dict[str, Run], dict[str, str]]:
    """Calls that run the network once each, and the engines that are left out with the reason.

    Args:
        model: in evaluation mode.
        images: one batch.
        built: whether engines that must first be built are wanted: inductor takes a minute.
    """
    last = images.contiguous(memory_format=torch.channels_last)
    runs: dict[str, Run] = {
        "eager": lambda: model(images),
        "channels-last": _channels_last(model, last),
    }
    makers: Mapping[str, tuple[tuple[str, ...], Callable[[], Run]]] = {
        "inductor": ((), lambda: _inductor(model, images)),
        "onnxruntime": (("onnx", "onnxscript", "onnxruntime"), lambda: _onnxruntime(model, images)),
        "openvino": (("openvino",), lambda: _openvino(model, images)),
    }
    left_out: dict[str, str] = {}
    for name, (packages, make) in makers.items() if built else ():
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            left_out[name] = f"{missing[0]} is not installed"
            continue
        try:
            run = make()
            run()
        except Exception as error:  # whatever another engine says: the others are still timed
            lines = str(error).strip().splitlines()
            left_out[name] = f"failed: {lines[0][:120] if lines else type(error).__name__}"
            continue
        runs[name] = run
    return runs, left_out


def _channels_last(model: nn.Module, images: Tensor) -> Run:
    moved = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda: moved(images)


def _inductor(model: nn.Module, images: Tensor) -> Run:
    compiled = torch.compile(model, options={"freezing": True}, dynamic=False)
    return lambda: compiled(images)


def _onnxruntime(model: nn.Module, images: Tensor) -> Run:
    runtime: Any = importlib.import_module("onnxruntime")
    file = io.BytesIO()
    with _silent_export():
        exported = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    assert exported is not None
    file.write(exported.model_proto.SerializeToString())
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    # Threads that wait in a loop would take the cores from the engine that runs next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: images.numpy()}
    return lambda: torch.from_numpy(session.run(None, given)[0])


@contextmanager
def _silent_export() -> Iterator[None]:
    """Without the exporter's own words on packages that this network does not need."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """OpenVINO's converter sets the root logger to ERROR and, where it fails, leaves it there."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def _openvino(model: nn.Module, images: Tensor) -> Run:
    openvino: Any = importlib.import_module("openvino")
    with _root_logger_kept():
        converted = openvino.convert_model(model, example_input=images)
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(converted, "CPU", settings).create_infer_request()
    given = [images.numpy()]
    return lambda: torch.from_numpy(request.infer(given, share_inputs=True)[0])


def versions() -> dict[str, str]:
    """Versions of the engines that are installed beside PyTorch, by name."""
    return {name: version(name) for name in ("onnxruntime", "openvino") if find_spec(name)}
