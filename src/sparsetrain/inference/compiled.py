"""A compiled network: called like the model, for any batch, from any thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .choice import Choice, Chosen
from .explain import Explanation, explanation
from .graph import filled, refs
from .prepared import Prepared, bound, is_batched
from .runner import Runner


@dataclass(frozen=True, eq=False)
class Version:
    """A network lowered for one class of batches.

    Attributes:
        runner: runs it.
        chosen: how its kernels were found.
        rows: images that they were chosen with.
    """

    runner: Runner
    chosen: Chosen
    rows: int


class CompiledNetwork:
    """What `compile_sparse` gives. It holds copies of the weights and never changes.

    It computes without gradients, on CPU tensors of the example's types; the batch is free where
    the model's own is. Other values of arguments that are no tensors need another compilation.

    Attributes:
        prepared: the model's structure.
        few: for batches below `switch`; None where the model fixes a larger batch.
        many: for batches of `switch` images and more; None where the model fixes a smaller one.
        switch: images.
        choice: how kernels were chosen.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        few: Version | None,
        many: Version | None,
        switch: int,
        choice: Choice,
        constants: Mapping[str, Any],
        kept: Mapping[str, int],
    ) -> None:
        self.prepared, self.few, self.many = prepared, few, many
        self.switch = switch
        self.choice: Choice = choice
        self._constants, self._kept = constants, kept

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's results.

        Raises:
            ValueError: tensors of another shape, type or device than the example's.
        """
        values = self._checked(args, kwargs)
        with torch.no_grad():
            self._version(self._rows(values)).runner(values)
        graph, alias = self.prepared.graph, self.prepared.network.alias
        found = {
            name: values[real]
            if (real := alias.get(name, name)) in values
            else self._constants[real]
            for name in refs(graph.outputs)
        }
        return pytree.tree_unflatten(list(filled(graph.outputs, found)), graph.out_spec)

    def explain(self, batch: int | None = None) -> Explanation:
        """Run the example and say where the time goes.

        Args:
            batch: images of the example; None is as many as it had.

        Returns:
            A table that prints itself: each layer's shape, sparsity, kernel, time and share.

        Raises:
            ValueError: batch below 1, or another one than the example's where that is fixed.
        """
        rows = self.prepared.rows() if batch is None else batch
        if rows < 1 or (not self.prepared.graph.batch and rows != self.prepared.rows()):
            raise ValueError(
                f"batch must be at least 1{self._only()}, got {batch}. "
                "Leave it out for the example's."
            )
        version = self._version(rows)
        with torch.no_grad():
            return explanation(
                version.runner,
                self.prepared.network,
                self._kept,
                inputs=lambda: self.prepared.inputs(rows),
                rows=rows,
                contenders=version.chosen.seconds if rows == version.rows else {},
            )

    def updated(
        self, model: nn.Module, masks: Mapping[str, Tensor] | None = None
    ) -> CompiledNetwork:
        """Compile the same model again after its weights or masks changed, without tracing it.

        The kernels stay those that were chosen, so this takes milliseconds.

        Args:
            model: that was compiled, or a copy of it.
            masks: as `compile_sparse` takes them.
        """
        from .compile import recompiled

        return recompiled(self, model, masks)

    def _version(self, rows: int) -> Version:
        version = self.many if rows >= self.switch else self.few
        assert version is not None, "the inputs have been checked"
        return version

    def _rows(self, values: Mapping[str, Any]) -> int:
        graph = self.prepared.graph
        names = [name for name in graph.inputs if name is not None and is_batched(graph, name)]
        return values[names[0]].shape[0] if names else self.prepared.rows()

    def _only(self) -> str:
        prepared = self.prepared
        return "" if prepared.graph.batch else f" and {prepared.rows()}, which the model fixes"

    def _checked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The inputs by name."""
        prepared, graph = self.prepared, self.prepared.graph
        flat, spec = pytree.tree_flatten(bound(prepared.signature, args, kwargs))
        if spec != graph.in_spec:
            raise ValueError(
                "the network was compiled for arguments of another structure than these. Call it "
                "as in the example, or compile it with an example of this form."
            )
        values: dict[str, Any] = {}
        sizes: dict[str, int] = {}
        for name, given, example in zip(graph.inputs, flat, prepared.example, strict=True):
            if name is None:
                if given is not example and given != example:
                    raise ValueError(
                        f"the network was compiled for the argument {example!r}, got {given!r}. "
                        "Compile it again for this one."
                    )
                continue
            self._check(name, given, example, sizes)
            values[name] = given.detach() if given.requires_grad else given
        return values

    def _check(self, name: str, given: object, example: Tensor, sizes: dict[str, int]) -> None:
        graph = self.prepared.graph
        if not isinstance(given, Tensor) or not _alike(given, example):
            what = f"{given.dtype} on {given.device}" if isinstance(given, Tensor) else repr(given)
            raise ValueError(
                f"{name} must be a dense {example.dtype} tensor on the CPU as in the example, got "
                f"{what}. Convert it with .to('cpu', {example.dtype})."
            )
        free = graph.batch and is_batched(graph, name)
        shape, wanted = tuple(given.shape), tuple(example.shape)
        if free:
            rows = graph.shapes[name].rows
            wanted = (sizes.setdefault(rows, shape[0] if shape else 0), *wanted[1:])
        if shape != wanted:
            text = ", ".join(map(str, ("batch", *wanted[1:]) if free else wanted))
            raise ValueError(
                f"{name} must have shape ({text}) as in the example"
                f"{f', with the batch {wanted[0]} of the other inputs' if free else ''}, got "
                f"{shape}. Compile the network again for other sizes."
            )


def _alike(given: Tensor, example: Tensor) -> bool:
    strided = given.device.type == "cpu" and given.layout is torch.strided
    return strided and given.dtype is example.dtype
