"""torch functions that have a packed form. Each returns NotImplemented where it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels.conv_plan import Geometry
from ..kernels.packed import Layout
from ..kernels.packed_norm import Place
from ..kernels.packed_pool import Pooling
from . import norm, pool
from .value import PackedTensor, Pending, Value

if TYPE_CHECKING:
    from .network import Network

_Size = int | Sequence[int]


def _packed(x: object) -> Value | None:
    return x.value if isinstance(x, PackedTensor) and x.value.dense is None else None


def _pair(size: _Size) -> tuple[int, int]:
    both = (size, size) if isinstance(size, int) else tuple(size) * (2 // len(size))
    return int(both[0]), int(both[1])


def conv2d(
    network: Network,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Size = 1,
    padding: _Size | str = 0,
    dilation: _Size = 1,
    groups: int = 1,
) -> Any:
    """F.conv2d."""
    steps = _pair(stride)
    plain = groups == 1 and _pair(dilation) == (1, 1) and steps[0] == steps[1]
    if not plain or isinstance(padding, str) or not _fits(input, 4, weight):
        return NotImplemented
    kernel, size = (weight.shape[2], weight.shape[3]), (input.shape[2], input.shape[3])
    try:
        geometry = Geometry(
            weight.shape[1], weight.shape[0], kernel, steps[0], _pair(padding), *size
        )
    except ValueError:
        return NotImplemented  # torch says what is wrong
    return network.convolve(input, weight, bias, geometry)


def linear(network: Network, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """F.linear of [images, features]."""
    if not _fits(input, 2, weight):
        return NotImplemented
    return network.convolve(input, weight, bias, None)


def _fits(input: Tensor, dim: int, weight: Tensor) -> bool:
    plain = input.dtype is torch.float32 and input.device.type == "cpu" and input.dim() == dim
    return plain and weight.dim() == dim and input.shape[1] == weight.shape[1] and len(input) > 0


def batch_norm(
    network: Network,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """F.batch_norm; done with what follows it."""
    value = _packed(input)
    count = input.numel() // max(1, input.shape[1])
    if value is None or (training and count < 2):
        return NotImplemented
    if training:
        images = value.to_norm()
        place = Place(value.batch, value.layout, value.layout, relu=False)
        running = norm.Running(running_mean, running_var, momentum)
        statistics = norm.of_batch(images, place, running)
    else:
        if running_mean is None or running_var is None:
            return NotImplemented
        images = value.take()
        statistics = norm.Statistics(running_mean.double(), running_var.double(), 0)
    pending = Pending(images, value.layout, (weight, bias), statistics, eps)
    return network.wrap(value.like(pending))


def relu(network: Network, input: Tensor, inplace: bool = False) -> Any:
    """F.relu and its kin; in place the tensor stands for the new value."""
    value = _packed(input)
    if value is None or not isinstance(input, PackedTensor):
        return NotImplemented
    result = value.with_relu()
    if not inplace:
        return network.wrap(result)
    input.value = result
    return input


def relu_(network: Network, input: Tensor) -> Any:
    """Tensor.relu_."""
    return relu(network, input, inplace=True)


def add(network: Network, input: Any, other: Any, *, alpha: float = 1) -> Any:
    """The sum of two packed tensors of one shape."""
    result = _sum(input, other) if alpha == 1 else None
    return NotImplemented if result is None else network.wrap(result)


def add_(network: Network, input: Any, other: Any, *, alpha: float = 1) -> Any:
    """The same in place."""
    result = _sum(input, other) if alpha == 1 else None
    if result is None:
        return NotImplemented
    input.value = result
    return input


def _sum(a: object, b: object) -> Value | None:
    first, second = _packed(a), _packed(b)
    if first is None or second is None or first.shape != second.shape:
        return None
    if first.pending is None or first.pending.residual is not None:
        first, second = second, first
    if second.layout != first.layout:
        second = second.with_halo(first.layout.halo)
    waiting = first.pending
    if waiting is not None and waiting.residual is None:
        return first.like(waiting._replace(residual=second.take()))
    return first.like(first.take() + second.take())


def max_pool2d(
    network: Network,
    input: Tensor,
    kernel_size: _Size,
    stride: _Size | None = None,
    padding: _Size = 0,
    dilation: _Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """F.max_pool2d of windows that do not overlap."""
    if _pair(dilation) != (1, 1) or return_indices:
        return NotImplemented
    return _pooled(network, input, "max", (kernel_size, stride, padding, ceil_mode))


def avg_pool2d(
    network: Network,
    input: Tensor,
    kernel_size: _Size,
    stride: _Size | None = None,
    padding: _Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """F.avg_pool2d of windows that do not overlap."""
    if divisor_override is not None:
        return NotImplemented
    return _pooled(network, input, "mean", (kernel_size, stride, padding, ceil_mode))


def adaptive_avg_pool2d(network: Network, input: Tensor, output_size: Any) -> Any:
    """F.adaptive_avg_pool2d onto maps whose size divides the input's."""
    value = _packed(input)
    if value is None or value.flat:
        return NotImplemented
    size = (value.layout.height, value.layout.width)
    asked = (output_size,) * 2 if isinstance(output_size, int) else tuple(output_size)
    wanted = tuple(n if w is None else w for w, n in zip(asked, size, strict=True))
    if min(wanted) < 1 or size[0] % wanted[0] or size[1] % wanted[1]:
        return NotImplemented
    window = (size[0] // wanted[0], size[1] // wanted[1])
    return _windows(network, value, "mean", window)


def mean(
    network: Network, input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """The mean over rows and columns."""
    value = _packed(input)
    dims = (dim,) if isinstance(dim, int) or dim is None else tuple(dim)
    if value is None or value.flat or dtype is not None or len(dims) != 2 or None in dims:
        return NotImplemented
    if {d % 4 for d in dims} != {2, 3}:
        return NotImplemented
    pooled = _windows(network, value, "mean", (value.layout.height, value.layout.width))
    return pooled if keepdim else network.wrap(pooled.value.flattened())


def _pooled(network: Network, input: Tensor, kind: Literal["max", "mean"], how: Any) -> Any:
    kernel_size, stride, padding, ceil_mode = how
    value, window = _packed(input), _pair(kernel_size)
    apart = _pair(stride) if stride is not None and stride != [] else window
    if value is None or value.flat or ceil_mode or _pair(padding) != (0, 0) or apart != window:
        return NotImplemented
    if value.layout.height < window[0] or value.layout.width < window[1]:
        return NotImplemented
    return _windows(network, value, kind, window)


def _windows(
    network: Network, value: Value, kind: Literal["max", "mean"], window: tuple[int, int]
) -> Any:
    layout = value.layout
    target = Layout(layout.channels, layout.height // window[0], layout.width // window[1], 0, 16)
    pooling = Pooling(kind, window, layout, network.new_halo(target))
    made = pool.pool(value.take(), pooling, value.buffers)
    result = Value(made, batch=value.batch, layout=pooling.target, buffers=value.buffers)
    return network.wrap(result)


def flatten(network: Network, input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Any:
    """torch.flatten from the channels on."""
    value = _packed(input)
    if value is None or start_dim != 1 or end_dim not in (-1, input.dim() - 1):
        return NotImplemented
    return input if value.flat else network.wrap(value.flattened())


def reshape(network: Network, input: Tensor, *shape: Any) -> Any:
    """Tensor.view and reshape to [images, everything else]."""
    value = _packed(input)
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    if value is None or len(sizes) != 2 or not all(isinstance(size, int) for size in sizes):
        return NotImplemented
    features = value.layout.channels * value.layout.height * value.layout.width
    if sizes[0] not in (value.batch, -1) or sizes[1] not in (features, -1) or sizes == (-1, -1):
        return NotImplemented
    return input if value.flat else network.wrap(value.flattened())


def dropout(
    network: Network, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    """F.dropout where it does nothing."""
    return NotImplemented if training and p > 0 else input


def requires_grad(network: Network, input: Tensor) -> Any:
    """Tensor.requires_grad."""
    value = _packed(input)
    return NotImplemented if value is None else value.take().requires_grad


FUNCTIONS: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {
        F.conv2d: conv2d,
        F.linear: linear,
        F.batch_norm: batch_norm,
        F.relu: relu,
        F.relu_: relu_,
        torch.relu: relu,
        torch.relu_: relu_,
        Tensor.relu: relu,
        Tensor.relu_: relu_,
        torch.add: add,
        Tensor.add: add,
        Tensor.__add__: add,
        Tensor.__radd__: add,
        Tensor.add_: add_,
        Tensor.__iadd__: add_,
        F.max_pool2d: max_pool2d,
        torch.max_pool2d: max_pool2d,
        F.avg_pool2d: avg_pool2d,
        F.adaptive_avg_pool2d: adaptive_avg_pool2d,
        torch.mean: mean,
        Tensor.mean: mean,
        torch.flatten: flatten,
        Tensor.flatten: flatten,
        Tensor.view: reshape,
        Tensor.reshape: reshape,
        torch.reshape: reshape,
        F.dropout: dropout,
        Tensor.requires_grad.__get__: requires_grad,  # pyright: ignore
    }
)

METADATA = frozenset(
    {
        Tensor.size,
        Tensor.dim,
        Tensor.ndimension,
        Tensor.numel,
        Tensor.nelement,
        Tensor.__len__,
        Tensor.is_floating_point,
        Tensor.is_complex,
        torch.is_floating_point,
        torch.is_complex,
        Tensor.shape.__get__,  # pyright: ignore
        Tensor.ndim.__get__,  # pyright: ignore
        Tensor.dtype.__get__,  # pyright: ignore
        Tensor.device.__get__,  # pyright: ignore
        Tensor.layout.__get__,  # pyright: ignore
        Tensor.is_sparse.__get__,  # pyright: ignore
        Tensor.is_cuda.__get__,  # pyright: ignore
    }
)
"""What a tensor's shell knows."""
