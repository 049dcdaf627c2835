"""Which unit an operator is; `Other` where none fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from .graph import Call, Graph, Ref
from .units import Add, Affine, Conv, Flatten, Norm, Op, Other, Pool, Same

aten = torch.ops.aten


def recognise(call: Call, graph: Graph) -> Op:
    """The unit that an operator is.

    A batch norm of which only the first of three results is read counts as that result.
    """
    rule = _RULES.get(call.target)
    found = None if rule is None else rule(call, graph)
    return Other(call) if found is None else found


def _conv(call: Call, graph: Graph) -> Op | None:
    weight, bias = _constant(call, 1, "weight", graph), _constant(call, 2, "bias", graph)
    image = _shape(call, 0, graph)
    if weight is None or image is None or len(image) != 3 or not _given(call, 2, "bias", bias):
        return None
    stride = _pair(call.argument(3, "stride", 1))
    dilation = _pair(call.argument(5, "dilation", 1))
    groups = call.argument(6, "groups", 1)
    padding = call.argument(4, "padding", 0)
    if isinstance(padding, str):
        padding = _padding_by_name(padding, graph.shapes[weight].rest[-2:], dilation)
        if padding is None:
            return None
    return Conv(
        weight,
        bias,
        stride=stride,
        padding=_pair(padding),
        dilation=dilation,
        groups=groups,
    )


def _padding_by_name(
    name: str, kernel: tuple[int, ...], dilation: tuple[int, int]
) -> tuple[int, ...] | None:
    """Padding of "valid" and "same"; None where the two sides differ."""
    if name == "valid":
        return 0, 0
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return None if any(t % 2 for t in total) else tuple(t // 2 for t in total)


def _linear(call: Call, graph: Graph) -> Op | None:
    weight, bias = _constant(call, 1, "weight", graph), _constant(call, 2, "bias", graph)
    if weight is None or _shape(call, 0, graph) is None or not _given(call, 2, "bias", bias):
        return None
    return Conv(weight, bias, linear=True)


def _batch_norm(call: Call, graph: Graph) -> Op | None:
    """aten.batch_norm: weight, bias, mean, variance, training, momentum, eps."""
    if call.argument(5, "training", True):
        return None
    return _affine(call, graph, call.argument(7, "eps", 1e-5))


def _batch_norm_inference(call: Call, graph: Graph) -> Op | None:
    """aten._native_batch_norm_legit_no_training: the same without `training`."""
    return _affine(call, graph, call.argument(6, "eps", 1e-5))


def _affine(call: Call, graph: Graph, eps: float) -> Op | None:
    names = [_constant(call, place, "", graph) for place in range(1, 5)]
    given = [_given(call, place, "", names[place - 1]) for place in (1, 2)]
    weight, bias, mean, variance = names
    image = _shape(call, 0, graph)
    if mean is None or variance is None or image is None or not all(given):
        return None
    return Affine(Norm(weight, bias, mean, variance, eps)) if len(image) in (1, 3) else None


def _add(call: Call, graph: Graph) -> Op | None:
    shapes = [_value_shape(call, place, graph) for place in (0, 1)]
    plain = call.kwargs.get("alpha", 1) == 1
    return Add() if plain and shapes[0] is not None and shapes[0] == shapes[1] else None


def _relu(call: Call, graph: Graph) -> Op | None:
    return Affine(None, relu=True)


def _max_pool(call: Call, graph: Graph) -> Op | None:
    kernel = _pair(call.argument(1, "kernel_size", 1))
    stride = _pair(call.argument(2, "stride", ()) or kernel)
    dilation, ceil = call.argument(4, "dilation", 1), call.argument(5, "ceil_mode", False)
    if ceil or _pair(dilation) != (1, 1) or not _is_image(call, graph):
        return None
    return Pool("max", kernel, stride, _pair(call.argument(3, "padding", 0)))


def _mean_pool(call: Call, graph: Graph) -> Op | None:
    kernel = _pair(call.argument(1, "kernel_size", 1))
    stride = _pair(call.argument(2, "stride", ()) or kernel)
    divisor, ceil = call.argument(6, "divisor_override", None), call.argument(4, "ceil_mode", False)
    if ceil or divisor is not None or not _is_image(call, graph):
        return None
    include = call.argument(5, "count_include_pad", True)
    return Pool("mean", kernel, stride, _pair(call.argument(3, "padding", 0)), include)


def _adaptive(call: Call, graph: Graph) -> Op | None:
    image, size = _shape(call, 0, graph), _pair(call.argument(1, "output_size", 1))
    if image is None or len(image) != 3 or any(n % s for n, s in zip(image[1:], size, strict=True)):
        return None
    kernel = (image[1] // size[0], image[2] // size[1])
    return Pool("mean", kernel, kernel)


def _mean(call: Call, graph: Graph) -> Op | None:
    image, dims = _shape(call, 0, graph), call.argument(1, "dim", None)
    if image is None or len(image) != 3 or dims is None or call.kwargs.get("dtype") is not None:
        return None
    if {d % 4 for d in dims} != {2, 3}:
        return None
    return Pool("mean", (image[1], image[2]), (image[1], image[2]))


def _flatten(call: Call, graph: Graph) -> Op | None:
    """A view, if all it does is to put an image into one dimension, or nothing."""
    before, after = _value_shape(call, 0, graph), graph.shapes.get(call.output)
    if before is None or after is None or before.rows != after.rows:
        return None
    if before.rest == after.rest:
        return Same()
    whole = 1
    for size in before.rest:
        whole *= size
    return Flatten() if len(before.rest) == 3 and after.rest == (whole,) else None


def _same(call: Call, graph: Graph) -> Op | None:
    return Same()


def _dropout(call: Call, graph: Graph) -> Op | None:
    return None if call.argument(2, "train", True) else Same()


def _constant(call: Call, place: int, name: str, graph: Graph) -> str | None:
    value = call.argument(place, name, None)
    if not isinstance(value, Ref):
        return None
    derived = {made.output for made in graph.derived}
    known = value.name in graph.constants or value.name in graph.lifted or value.name in derived
    return value.name if known else None


def _given(call: Call, place: int, name: str, constant: str | None) -> bool:
    """Whether an optional argument is a constant or absent."""
    return constant is not None or call.argument(place, name, None) is None


def _value_shape(call: Call, place: int, graph: Graph) -> Any:
    """Shape of a value that is no constant."""
    value = call.args[place] if place < len(call.args) else None
    if not isinstance(value, Ref) or value.name in graph.constants or value.name in graph.lifted:
        return None
    return graph.shapes.get(value.name)


def _shape(call: Call, place: int, graph: Graph) -> tuple[int, ...] | None:
    found = _value_shape(call, place, graph)
    return None if found is None else found.rest


def _is_image(call: Call, graph: Graph) -> bool:
    shape = _shape(call, 0, graph)
    return shape is not None and len(shape) == 3


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


_RULES: Mapping[Callable[..., Any], Callable[[Call, Graph], Op | None]] = MappingProxyType(
    {
        aten.conv2d.default: _conv,
        aten.conv2d.padding: _conv,
        aten.linear.default: _linear,
        aten.batch_norm.default: _batch_norm,
        aten._native_batch_norm_legit_no_training.default: _batch_norm_inference,
        aten.relu.default: _relu,
        aten.add.Tensor: _add,
        aten.max_pool2d.default: _max_pool,
        aten.avg_pool2d.default: _mean_pool,
        aten.adaptive_avg_pool2d.default: _adaptive,
        aten.mean.dim: _mean,
        aten.view.default: _flatten,
        aten.reshape.default: _flatten,
        aten.flatten.using_ints: _flatten,
        aten.dropout.default: _dropout,
        aten.feature_dropout.default: _dropout,
        aten.alpha_dropout.default: _dropout,
        aten.clone.default: _same,
        aten.contiguous.default: _same,
        aten.detach.default: _same,
        aten.alias.default: _same,
    }
)
