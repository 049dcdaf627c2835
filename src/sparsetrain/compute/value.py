"""The value that travels through an unchanged model: a tensor whose entries lie packed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch._C import DisableTorchFunctionSubclass
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from ..kernels.packed import Layout
from ..kernels.packed_norm import Place
from . import norm, pool, saving
from .buffers import Buffers
from .conv import Consumers
from .norm import Statistics

if TYPE_CHECKING:
    from .network import Network


class Pending(NamedTuple):
    """A batch norm that waits for what follows: a sum and ReLU are then done in the same pass.

    Attributes:
        images: its input, packed.
        source: the input's layout.
        affine: scale and shift.
        residual: what is added, packed as the output.
    """

    images: Tensor
    source: Layout
    affine: tuple[Tensor | None, Tensor | None]
    statistics: Statistics
    epsilon: float
    residual: Tensor | None = None


class Value:
    """A batch of activations: packed, or a batch norm still to be done, or dense after all.

    Args:
        batch: images.
        layout: of the packed tensor, made or to be made.

    Attributes:
        flat: whether it stands for [images, channels], of maps of one pixel.
        consumers: of a convolution's output.
        dense: the ordinary tensor, once something has asked for it.
    """

    def __init__(
        self,
        content: Tensor | Pending,
        *,
        batch: int,
        layout: Layout,
        buffers: Buffers,
    ) -> None:
        self.batch, self.layout, self.buffers = batch, layout, buffers
        self.flat, self.consumers = False, Consumers()
        self.dense: Tensor | None = None
        self._content: Tensor | Pending = content

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor that it stands for."""
        map_size = () if self.flat else (self.layout.height, self.layout.width)
        return (self.batch, self.layout.channels, *map_size)

    @property
    def needs_grad(self) -> bool:
        """Whether a gradient is to come back through it."""
        content = self._content
        if isinstance(content, Tensor):
            return content.requires_grad
        parts = (content.images, *content.affine, content.residual)
        return any(part is not None and part.requires_grad for part in parts)

    @property
    def pending(self) -> Pending | None:
        """The batch norm still to be done."""
        return self._content if isinstance(self._content, Pending) else None

    def to_norm(self) -> Tensor:
        """The packed tensor, for a batch norm that takes the batch's mean off."""
        self.consumers.normed = True
        return self._made(relu=False)

    def take(self) -> Tensor:
        """The packed tensor, for anything else."""
        self.consumers.others = True
        return self._made(relu=False)

    def with_relu(self) -> Value:
        """ReLU of it."""
        self.consumers.others = True
        if self.pending is not None:
            return self.like(_done(self, self.pending, relu=True))
        return self.like(torch.relu(self._made(relu=False)))

    def like(self, content: Tensor | Pending) -> Value:
        """Another of the same shape and layout."""
        value = Value(content, batch=self.batch, layout=self.layout, buffers=self.buffers)
        value.flat = self.flat
        return value

    def flattened(self) -> Value:
        """Standing for [images, channels * height * width], as `flatten(1)` orders them."""
        if (self.layout.height, self.layout.width) == (1, 1):
            value = Value(self.take(), batch=self.batch, layout=self.layout, buffers=self.buffers)
        else:
            bare = self.with_halo(0)
            features = bare.layout.channels * bare.layout.height * bare.layout.width
            layout = Layout(features, 1, 1, 0, bare.layout.block)
            content = bare.take().reshape(layout.shape(self.batch))
            value = Value(content, batch=self.batch, layout=layout, buffers=self.buffers)
        value.flat = True
        return value

    def with_halo(self, halo: int) -> Value:
        """The same entries with so many zeros around each map."""
        layout, more = replace(self.layout, halo=halo), halo - self.layout.halo
        content = F.pad(self.take(), (0, 0, more, more, more, more)).contiguous()
        value = Value(content, batch=self.batch, layout=layout, buffers=self.buffers)
        value.flat = self.flat
        return value

    def densified(self) -> Tensor:
        """The ordinary tensor; from now on this stands for it, so that views of it stay views."""
        if self.dense is None:
            with saving.plain():
                tensor = pool.unpack(self.take(), self.layout, self.batch, self.buffers)
                self.dense = tensor.flatten(1) if self.flat else tensor
        return self.dense

    def _made(self, *, relu: bool) -> Tensor:
        if isinstance(self._content, Pending):
            self._content = _done(self, self._content, relu=relu)
        return self._content


def _done(value: Value, pending: Pending, *, relu: bool) -> Tensor:
    place = Place(value.batch, pending.source, value.layout, relu)
    job = norm.Job(place, pending.statistics, pending.epsilon, value.buffers)
    return norm.normalise(pending.images, pending.affine, pending.residual, job)


class PackedTensor(Tensor):
    """Stands for a float32 tensor on the CPU; what has no packed form works on the dense one.

    Attributes:
        value: what it stands for now; in-place functions change it.
        network: decides how functions of it run.
    """

    value: Value
    network: Network

    @staticmethod
    def __new__(cls, value: Value, network: Network) -> PackedTensor:
        """An empty shell of the value's shape."""
        grad = torch.is_grad_enabled() and value.needs_grad
        shell = Tensor._make_wrapper_subclass(cls, value.shape, requires_grad=grad)  # pyright: ignore
        if grad:
            # Functions go on with the value. One that takes the shell itself as its input, unseen
            # by __torch_function__, would keep its gradient.
            with DisableTorchFunctionSubclass():
                shell.register_hook(_stray)
        return shell

    def __init__(self, value: Value, network: Network) -> None:
        self.value, self.network = value, network

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of at least one packed tensor."""
        given = args if isinstance(args, tuple) else (args,)
        for item in (*given, *(kwargs or {}).values()):
            if isinstance(item, PackedTensor):
                return item.network.run(func, args, kwargs or {})
        return dense_call(func, args, kwargs or {})  # within a list, as for torch.cat

    @classmethod
    def __torch_dispatch__(
        cls, func: object, types: object, args: object = (), kwargs: object = None
    ) -> Any:
        """Refuse what comes around `__torch_function__`: the gradient would be lost."""
        raise RuntimeError(
            f"{func} took activations in the packed layout of sparse compute where no gradient can "
            "follow (a backward hook on a module, perhaps). Take the hook off, or train without "
            "sparse compute."
        )


def _stray(grad: Tensor) -> None:
    raise RuntimeError(
        "a torch.autograd.Function of the model took activations in the packed layout of sparse "
        "compute, from where its gradient cannot go on. Give it an ordinary tensor, as in "
        "Function.apply(x.clone()), or train without sparse compute."
    )


def dense_call(func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
    """The function on ordinary tensors."""

    def dense(item: Any) -> Any:
        return item.value.densified() if isinstance(item, PackedTensor) else item

    return func(*tree_map(dense, args), **tree_map(dense, dict(kwargs)))
