"""Functions of packed tensors: which run packed, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunctionSubclass
from torch.nn import functional as F

from ..kernels.conv_plan import Geometry
from ..kernels.packed import Layout
from . import conv, pool, saving
from .buffers import Buffers
from .choice import Choices
from .functions import FUNCTIONS, METADATA
from .layers import BLOCK, Layer, Use, pixel
from .traced import Traced
from .value import PackedTensor, Value, dense_call


class Network:
    """The masked layers of a model, and the functions between them.

    Args:
        layers: whose convolutions and products may run sparse.
        choices: which of them do.
    """

    def __init__(self, layers: Iterable[Layer], choices: Choices) -> None:
        self.layers = {id(layer.weight): layer for layer in layers}
        self.buffers = Buffers()
        self._choices = choices
        self.traced = Traced(self.layers, choices)
        self._halo = 1

    def run(self, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Call a torch function; packed where it has a packed form and its input is.

        Dense without gradients: inside a `torch.autograd.Function`, whose result must be a tensor
        of its own. And where saved tensors are hooked: a checkpointed region is run once more, with
        or without the context, and must save the same then.
        """
        if func in METADATA:
            with DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        packed = FUNCTIONS.get(func)
        if packed is not None and torch.is_grad_enabled() and not saving.is_hooked():
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

    def holds(self, weights: Iterable[nn.Parameter]) -> bool:
        """Whether these are its layers' weights, in the same memory."""
        return all(
            id(weight) in self.layers and self.layers[id(weight)].is_at(weight)
            for weight in weights
            if weight.dim() in (2, 4)
        )

    def convolve(
        self, images: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry | None
    ) -> Any:
        """A convolution, packed; NotImplemented where it is to run dense on a dense input.

        Args:
            images: packed or not.
            geometry: of the convolution; None: the weight is that of a linear layer.
        """
        layer = self.layers.get(id(weight))
        if layer is None:
            return NotImplemented
        flat = geometry is None
        g = pixel(weight) if geometry is None else geometry
        if self._choices(layer, g, first=not images.requires_grad) == "dense":
            return NotImplemented if flat else self._between(images, weight, bias, g)
        value = self._entry(images, g)
        if value.layout.halo < g.halo:
            self._halo = max(self._halo, g.halo)
            value = value.with_halo(g.halo)
        target = Layout(g.outputs, g.out_height, g.out_width, 0, BLOCK)
        halo = max(self.new_halo(target), g.grad_halo)
        planned = layer.plans.planned(Use(g, value.layout.halo, halo))
        job = conv.Job(layer, planned, value.batch, self.buffers, conv.Consumers())
        made = conv.convolve(value.take(), bias, job)
        result = Value(made, batch=value.batch, layout=planned.plan.target, buffers=self.buffers)
        result.flat, result.consumers = flat, job.consumers
        return self.wrap(result)

    def _between(self, images: Tensor, weight: Tensor, bias: Tensor | None, g: Geometry) -> Any:
        """A dense convolution; of a packed input its output is packed again."""
        if not isinstance(images, PackedTensor) or images.value.dense is not None:
            return NotImplemented
        value = images.value
        dense = pool.unpack(value.take(), value.layout, value.batch, self.buffers)
        out = F.conv2d(dense, weight, bias, g.stride, g.padding)
        return self.wrap(self._packed(out.float()))

    def _packed(self, images: Tensor, halo: int = 0) -> Value:
        """A batch of images or of features, packed with at least so much halo."""
        height, width = images.shape[2:] or (1, 1)
        layout = Layout(images.shape[1], height, width, 0, BLOCK)
        layout = replace(layout, halo=max(self.new_halo(layout), halo))
        flat = images.dim() == 2
        content = pool.pack(images[:, :, None, None] if flat else images, layout, self.buffers)
        value = Value(content, batch=images.shape[0], layout=layout, buffers=self.buffers)
        value.flat = flat
        return value

    def _entry(self, images: Tensor, g: Geometry) -> Value:
        """The input, packed if it is not."""
        if not isinstance(images, PackedTensor):
            return self._packed(images, g.halo)
        if images.value.dense is not None:
            return self._packed(images.value.dense, g.halo)
        return images.value
