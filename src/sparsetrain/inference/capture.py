"""A module traced by torch.export into a `Graph`, for any batch where the network allows it."""

from __future__ import annotations

import inspect
import operator
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .batch import TRACED_ROWS, depends_on_batch, repeated, ties, tracing_any_batch
from .graph import Call, Graph, Ref, Shape, is_tensor, refs
from .quiet import quiet
from .verify import agrees

# Tracing sets much that is the process's own: torch's options, warnings, standard error.
_ALONE = threading.RLock()


def capture(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
    """Trace a module in evaluation mode; it is left as it was.

    Args:
        args: an example of its inputs; the first dimension of the first tensor is the batch.
        kwargs: likewise by name.

    Raises:
        ValueError: not a CPU module, no tensor among the inputs, or what torch.export cannot trace
            or traces wrongly.
    """
    flat, in_spec = pytree.tree_flatten((args, kwargs))
    _check_place(model, flat)
    with _ALONE, evaluating(model), torch.no_grad():
        return _any_batch(model, flat, in_spec) or _one_batch(model, flat, in_spec)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; each module's flag is restored."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


def _check_place(model: nn.Module, flat: list[Any]) -> None:
    if not any(is_tensor(value) and value.dim() for value in flat):
        raise ValueError(
            "example_input must hold a tensor whose first dimension is the batch. Give one batch "
            "as the model takes it, or a tuple of its inputs."
        )
    if next(value.shape[0] for value in flat if is_tensor(value) and value.dim()) == 0:
        raise ValueError("example_input has no rows. Give a batch of at least one.")
    held = [(name, t) for name, t in model.state_dict(keep_vars=True).items() if is_tensor(t)]
    for name, tensor in [*held, *(("example_input", v) for v in flat if is_tensor(v))]:
        if tensor.device.type != "cpu":
            raise ValueError(
                f"compiled networks run on the CPU, but {name} is on {tensor.device}. "
                "Call model.cpu() and give a CPU example first."
            )


def _any_batch(model: nn.Module, flat: list[Any], in_spec: Any) -> Graph | None:
    """The graph for any batch; None where the batch cannot vary or decides what is computed."""
    rows = next(value.shape[0] for value in flat if is_tensor(value) and value.dim())
    batched = [is_tensor(v) and v.dim() > 0 and v.shape[0] == rows for v in flat]
    dynamic = [{0: torch.export.Dim.AUTO} if many else None for many in batched]
    try:
        with tracing_any_batch():
            traced = repeated(flat, batched, TRACED_ROWS)
            program = _export(model, traced, in_spec, dynamic)
    except Exception:
        return None
    sizes = _sizes(program, batched)
    if depends_on_batch(sizes):
        return None
    _check_changes(program)
    graph = _graph(program, flat, in_spec, ties(sizes))
    graph = replace(
        graph,
        batch=True,
        barred=frozenset(n for n in (0, 1) if not agrees(graph, model, repeated(flat, batched, n))),
    )
    return graph if rows not in graph.barred and agrees(graph, model, flat) else None


def _one_batch(model: nn.Module, flat: list[Any], in_spec: Any) -> Graph:
    """The graph for the example's batch alone."""
    name = type(model).__name__
    try:
        program = _export(model, flat, in_spec, [None] * len(flat))
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"torch.export cannot trace {name}: "
            f"{reason[0] if reason else type(error).__name__} Compile a part of it that always "
            "computes the same operators, or rewrite the branch that depends on values."
        ) from error
    _check_changes(program)
    graph = _graph(program, flat, in_spec, {})
    if not agrees(graph, model, flat):
        raise ValueError(
            f"what torch.export traced of {name} gives other results than {name} itself on "
            "example_input. Compile a part of it that always computes the same operators."
        )
    return graph


def _export(model: nn.Module, flat: list[Any], in_spec: Any, dynamic: list[Any]) -> Any:
    """The exported program, without operators that change a tensor in place."""
    args, kwargs = pytree.tree_unflatten(flat, in_spec)
    shapes, named = pytree.tree_unflatten(dynamic, in_spec)
    with quiet(), _keywords_by_name(model, kwargs):
        # By parameter, as torch.export takes them: those of *args in a tuple.
        nested = inspect.signature(model.forward).bind(*shapes, **named).arguments
        program = torch.export.export(
            model, args, kwargs, dynamic_shapes=dict(nested), strict=False
        )
        changes = any(_changes(node) for node in program.graph.nodes)
        return program.run_decompositions({}) if changes else program


@contextmanager
def _keywords_by_name(model: nn.Module, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """A signature with the names given for **kwargs, for whose shapes torch.export has no form."""
    forward = model.forward
    signature = inspect.signature(forward)
    known = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    if len(known) == len(signature.parameters):
        yield
        return
    more = [name for name in kwargs if name not in signature.parameters]
    by_name = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in more]

    def same_forward(*args: Any, **named: Any) -> Any:
        return forward(*args, **named)

    own = "forward" in vars(model)
    vars(same_forward)["__signature__"] = signature.replace(parameters=[*known, *by_name])
    vars(model)["forward"] = same_forward
    try:
        yield
    finally:
        if own:
            vars(model)["forward"] = forward
        else:
            del vars(model)["forward"]


def _sizes(program: Any, batched: list[bool]) -> list[Any]:
    """First dimensions of the traced inputs with a batch: numbers or torch's symbols."""
    found = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = program.graph_signature.user_inputs
    values = [found.get(name) for name, many in zip(names, batched, strict=True) if many]
    return [value.shape[0] for value in values if value is not None]


def _changes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _check_changes(program: Any) -> None:
    changed = program.graph_signature.buffers_to_mutate
    if changed:
        raise ValueError(
            f"the model changes its buffer {next(iter(changed.values()))!r} in evaluation mode, "
            "which a compiled network cannot repeat. Compile the part of it that does not."
        )
    if program.graph_signature.user_inputs_to_mutate:
        raise ValueError(
            "the model changes its input in place, which a compiled network cannot repeat. "
            "Let it work on a copy: x = x.clone()."
        )


def _graph(program: Any, flat: list[Any], in_spec: Any, tied: Mapping[Any, Any]) -> Graph:
    """The program as plain values; `tied`: see `ties`."""
    signature, nodes = program.graph_signature, list(program.graph.nodes)
    constants = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    lifted = {
        name: program.constants[key]
        for name, key in signature.inputs_to_lifted_tensor_constants.items()
    }
    for node in nodes:
        if node.op == "get_attr":
            lifted[node.name] = operator.attrgetter(str(node.target))(program.graph_module)
    calls = [_call(node) for node in nodes if node.op == "call_function"]
    outputs = next(_argument(node.args[0]) for node in nodes if node.op == "output")
    calls = _needed(calls, outputs)
    derived = _derived(calls, {*constants, *lifted})
    shapes = {node.name: shape for node in nodes if (shape := _shape(node, tied)) is not None}
    given = [name if is_tensor(v) else None for name, v in _paired(signature.user_inputs, flat)]
    return Graph(
        inputs=tuple(given),
        examples=tuple(tuple(v.shape) if is_tensor(v) else None for v in flat),
        fixed=tuple(None if is_tensor(v) else v for v in flat),
        constants=constants,
        lifted=lifted,
        derived=tuple(call for call in calls if call.output in derived),
        calls=tuple(call for call in calls if call.output not in derived),
        outputs=tuple(outputs),
        shapes=shapes,
        in_spec=in_spec,
        out_spec=program.call_spec.out_spec,
        batch=False,
    )


def _paired(names: Any, flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(names, flat, strict=True)


def _call(node: fx.Node) -> Call:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    # The last entry is (dotted name, class), or torch.export's own mark (mark, mark).
    layer = stack[-1][0] if stack and stack[-1][0] != stack[-1][1] else ""
    args = tuple(_argument(value) for value in node.args)
    kwargs = {name: _argument(value) for name, value in node.kwargs.items()}
    assert callable(node.target)
    return Call(node.name, node.target, args, kwargs, layer)


def _argument(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return Ref(value.name)
    if isinstance(value, (list, tuple)):
        return (
            type(value)(map(_argument, value)) if type(value) is tuple else [*map(_argument, value)]
        )
    return value


def _needed(calls: list[Call], outputs: Any) -> list[Call]:
    """Calls that an output depends on."""
    wanted, kept = set(refs(outputs)), []
    for call in reversed(calls):
        if call.output in wanted:
            wanted.update(call.reads)
            kept.append(call)
    return kept[::-1]


def _derived(calls: list[Call], constants: set[str]) -> set[str]:
    """Names of the values that depend on constants alone, such as a weight under weight norm."""
    known = set(constants)
    for call in calls:
        if call.reads and all(name in known for name in call.reads):
            known.add(call.output)
    return known - constants


def _shape(node: fx.Node, tied: Mapping[Any, Any]) -> Shape | None:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dim() == 0:
        return None
    if not all(isinstance(size, int) for size in value.shape[1:]):
        return None
    rows = value.shape[0]
    text = str(rows if isinstance(rows, int) else rows.node.expr.subs(tied))
    return Shape(text, tuple(value.shape[1:]), value.dtype)
