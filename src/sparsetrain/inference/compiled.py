"""A compiled network: called like the model, for any batch, from any thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .aliasing import shared
from .choice import Choice, Chosen
from .explain import Explanation, explanation
from .graph import Graph, Ref, filled, refs
from .model import Estimate, modelled, total
from .prepared import Prepared, bound, is_batched, same
from .runner import Runner
from .units import Conv

Kernel: TypeAlias = Literal["sparse", "dense"]
"""Ours on packed activations, or torch's."""
_REMEMBERED = 64
"""Shapes of inputs that are not checked again."""


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
        self._names = _positional(prepared)
        self._dtypes = [v.dtype if isinstance(v, Tensor) else None for v in prepared.example]
        alias = prepared.network.alias
        self._results = [(name, alias.get(name, name)) for name in refs(prepared.graph.outputs)]
        self._shared = shared(prepared.network, self._results)
        lone = len(self._results) == 1 and isinstance(prepared.graph.outputs[0], Ref)
        self._plain = lone and prepared.graph.out_spec == pytree.tree_structure(0)
        # By the shapes of checked inputs; filled by any thread, and a lost entry costs a check.
        self._seen: dict[tuple[torch.Size, ...], Version] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's results.

        Raises:
            ValueError: tensors of another shape, type or device than the example's.
        """
        known = None if kwargs else self._known(args)
        if known is None:
            values = self._checked(args, kwargs)
            version = self._version(self._rows(values))
            self._remember(args, kwargs, version)
        else:
            values, version = known
        if version.runner.torch_free:
            version.runner(values)
        else:
            with torch.no_grad():
                version.runner(values)
        return self._outputs(values)

    def __deepcopy__(self, memo: object) -> CompiledNetwork:
        """Itself: it never changes."""
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            "a compiled network cannot be pickled: its kernels belong to this machine. Save the "
            "model, and compile it where it is loaded."
        )

    def kernels(self, batch: int | None = None) -> tuple[tuple[str, Kernel], ...]:
        """Which kernels each convolution and linear layer runs with, in order, by name.

        Args:
            batch: images of a call; None is as many as the example had.

        Raises:
            ValueError: batch below 1, or another one than the example's where that is fixed.
        """
        packed = self._version(self._checked_rows(batch)).runner.packed
        units = [unit for unit in self.prepared.network.units if isinstance(unit.op, Conv)]
        return tuple((u.name, "sparse" if u.output in packed else "dense") for u in units)

    def explain(self, batch: int | None = None) -> Explanation:
        """Run the example and say where the time goes.

        Args:
            batch: images of the example; None is as many as it had.

        Returns:
            A table that prints itself: each layer's shape, sparsity, kernel, time and share.

        Raises:
            ValueError: batch below 1, or another one than the example's where that is fixed.
        """
        rows = self._checked_rows(batch)
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
        self,
        model: nn.Module,
        masks: Mapping[str, Tensor] | None = None,
        *,
        choice: Choice | None = None,
    ) -> CompiledNetwork:
        """Compile the same model again after its weights or masks changed, without tracing it.

        Args:
            model: that was compiled, or a copy of it.
            masks: as `compile_sparse` takes them.
            choice: how kernels are chosen anew, as `compile_sparse` takes it; None: they stay
                those that were chosen, whatever has become of the weights, so this takes
                milliseconds.
        Raises:
            ValueError: a choice of another name, masks that are not the model's, a model of other
                weights.
        """
        from .compile import chosen_anew, recompiled

        if choice is None:
            return recompiled(self, model, masks)
        return chosen_anew(self, model, masks, choice)

    def estimate(self) -> Estimate:
        """Seconds that an image takes by the fixed cost model: equal everywhere, no clock is read.

        Good for a decision that must be the same in every process and every repeat; `explain`
        measures.
        """
        version = self.many or self.few
        assert version is not None, "one of them is always there"
        prepared, block = self.prepared, version.runner.block
        costs = modelled(prepared.network, prepared.able, self._kept, prepared.kinds, block)
        return Estimate(
            compiled=total(prepared.network, costs, version.runner.packed) / block,
            dense=total(prepared.network, costs, frozenset()) / block,
        )

    def _checked_rows(self, batch: int | None) -> int:
        rows = self.prepared.rows() if batch is None else batch
        graph = self.prepared.graph
        if rows < 1 or (not graph.batch and rows != self.prepared.rows()):
            raise ValueError(
                f"batch must be at least 1{self._only()}, got {batch}. "
                "Leave it out for the example's."
            )
        _check_batch(graph, rows)
        return rows

    def _known(self, args: tuple[Any, ...]) -> tuple[dict[str, Any], Version] | None:
        """The inputs by name, and what runs them, if tensors like these were checked before."""
        if len(args) != len(self._names):
            return None
        for given, dtype in zip(args, self._dtypes, strict=True):
            if type(given) is not Tensor or given.dtype is not dtype or given.requires_grad:
                return None
            if not given.is_cpu or given.layout is not torch.strided:
                return None
        version = self._seen.get(tuple([given.shape for given in args]))
        return None if version is None else (dict(zip(self._names, args, strict=True)), version)

    def _remember(self, args: tuple[Any, ...], kwargs: dict[str, Any], version: Version) -> None:
        if not kwargs and self._names and len(args) == len(self._names):
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[tuple([given.shape for given in args])] = version

    def _outputs(self, values: Mapping[str, Any]) -> Any:
        """The results in the model's own structure; none lies in another's memory."""
        found = {
            name: values[real] if real in values else self._constants[real]
            for name, real in self._results
        }
        for name in self._shared:
            found[name] = found[name].clone()
        if self._plain:
            return found[self._results[0][0]]
        graph = self.prepared.graph
        return pytree.tree_unflatten(list(filled(graph.outputs, found)), graph.out_spec)

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
        found = bound(prepared.signature, args, kwargs, prepared.given)
        flat, spec = pytree.tree_flatten((found.args, found.kwargs))
        if spec != graph.in_spec:
            raise ValueError(
                "the network was compiled for arguments of another structure than these. Call it "
                "as in the example, or compile it with an example of this form."
            )
        values: dict[str, Any] = {}
        sizes: dict[str, int] = {}
        for name, given, example in zip(graph.inputs, flat, prepared.example, strict=True):
            if name is None:
                if not same(given, example):
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
                f"{shape}. {self._why_fixed(shape, wanted)}Compile the network again for other "
                "sizes."
            )
        if free:
            _check_batch(graph, shape[0])

    def _why_fixed(self, shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        batch = not self.prepared.graph.batch and shape[1:] == wanted[1:]
        return "What this model computes depends on the batch. " if batch else ""


def _check_batch(graph: Graph, rows: int) -> None:
    if rows in graph.barred:
        raise ValueError(
            f"what the model computes for a batch of {rows} is another network than the example's. "
            f"Compile it again with {f'an example of {rows}' if rows else 'that in mind'}."
        )


def _alike(given: Tensor, example: Tensor) -> bool:
    strided = given.device.type == "cpu" and given.layout is torch.strided
    return strided and given.dtype is example.dtype


def _positional(prepared: Prepared) -> tuple[str, ...]:
    """Names of the inputs where all are tensors that are given one by one; else none."""
    names = tuple(name for name in prepared.graph.inputs if name is not None)
    plain = pytree.tree_structure(((0,) * len(names), {})) == prepared.graph.in_spec
    return names if plain and len(names) == len(prepared.graph.inputs) else ()
