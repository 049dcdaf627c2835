"""Functions of packed tensors: which run packed, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch._C import DisableTorchFunctionSubclass

from ..kernels.conv_plan import Geometry
from ..kernels.packed import Layout
from . import conv, pool
from .buffers import Buffers
from .functions import FUNCTIONS, METADATA
from .layers import Layer, Use
from .value import PackedTensor, Value, dense_call

Choice = Callable[[Layer, Geometry, int], Literal["sparse", "dense"]]
"""(layer, geometry, images of the batch) -> how it runs."""
BLOCK = 16


class Network:
    """The masked layers of a model, and the functions between them.

    Args:
        layers: whose convolutions and products may run sparse.
        choice: which of them do.
    """

    def __init__(self, layers: Iterable[Layer], choice: Choice) -> None:
        self.layers = {id(layer.weight): layer for layer in layers}
        self.buffers = Buffers()
        self._choice = choice
        self._halo = 1

    def run(self, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Call a torch function; packed where it has a packed form and its input is."""
        if func in METADATA:
            with DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        packed = FUNCTIONS.get(func)
        if packed is not None:
            result = packed(self, *args, **kwargs)
            if result is not NotImplemented:
                return result
        return dense_call(func, args, kwargs)

    def wrap(self, value: Value) -> PackedTensor:
        """The tensor that stands for a value."""
        return PackedTensor(value, self)

    def new_halo(self, layout: Layout) -> int:
        """Zeros around maps that are made now, so that what follows need not add them."""
        return 0 if (layout.height, layout.width) == (1, 1) else self._halo

    def convolve(
        self, images: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry | None
    ) -> Any:
        """A convolution, packed; NotImplemented where it is to run dense.

        Args:
            images: packed or not.
            geometry: of the convolution; None: the weight is that of a linear layer.
        """
        layer = self.layers.get(id(weight))
        if layer is None or layer.weight is not weight:
            return NotImplemented
        flat = geometry is None
        g = Geometry(weight.shape[1], weight.shape[0], (1, 1), 1, (0, 0), 1, 1) if flat else geometry
        if g is None or self._choice(layer, g, images.shape[0]) == "dense":
            return NotImplemented
        value = self._entry(images, g, flat)
        if value.layout.halo < g.halo:
            self._halo = max(self._halo, g.halo)
            value = value.with_halo(g.halo)
        out_halo = 0 if (g.out_height, g.out_width) == (1, 1) else self._halo
        planned = layer.planned(Use(g, value.layout.halo, max(out_halo, g.grad_halo)))
        consumers = conv.Consumers()
        job = conv.Job(layer, planned, value.batch, self.buffers, consumers)
        made = conv.convolve(value.take(), bias, job)
        target = planned.plan.target
        result = Value(
            made, batch=value.batch, layout=target, buffers=self.buffers, flat=flat,
            consumers=consumers,
        )  # fmt: skip
        return self.wrap(result)

    def _entry(self, images: Tensor, g: Geometry, flat: bool) -> Value:
        """The input, packed if it is not."""
        if isinstance(images, PackedTensor) and images.value.dense is None:
            return images.value
        dense = images.value.densified() if isinstance(images, PackedTensor) else images
        layout = Layout(g.channels, g.height, g.width, 0, BLOCK)
        halo = max(self.new_halo(layout), g.halo)
        layout = Layout(g.channels, g.height, g.width, halo, BLOCK)
        content = pool.pack(dense[:, :, None, None] if flat else dense, layout, self.buffers)
        return Value(
            content, batch=dense.shape[0], layout=layout, buffers=self.buffers, flat=flat
        )
