"""From a trained module to a network that uses its zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..selection import unwrap
from . import cache
from .choice import Choice, Chosen, Subject, checked_choice, choose
from .compiled import CompiledNetwork, Version
from .graph import refs
from .prepared import Prepared, kept_counts, parameter_names, prepare
from .runner import Runner, StepMaker, make_runner
from .weights import read

# Blocks of 16 images cost the same for 1 and for 16; blocks of one image as many times as images.
_SWITCH = 8
_BLOCK = 16


def compile_sparse(
    model: nn.Module,
    example_input: object,
    *,
    masks: Mapping[str, Tensor] | None = None,
    choice: Choice = "measure",
) -> CompiledNetwork:
    """Compile a trained network for the CPU so that its zeros cost nothing.

    Batch norms, biases, residual sums and ReLU are folded into convolutions and linear layers; each
    layer is run by our sparse kernels or by torch's dense ones, whichever is faster here. Results
    equal the model's in evaluation mode to float32 rounding. The model is not changed.

    Args:
        model: a module on the CPU, in any mode; pruned weights are its zeros. DDP and
            `torch.compile` wrappers are looked through.
        example_input: a batch as the model takes it: a tensor, a tuple of arguments, or a dict of
            them by name. Kernels are chosen for its size and for `torch.get_num_threads()`; other
            batches run too.
        masks: name of a parameter -> bool of its shape; where False the weight counts as zero.
        choice: "measure" times sparse, dense and mixed kernels on this machine and keeps the
            answer in the user's cache folder; "model" estimates, equally everywhere; "sparse" and
            "dense" take one kind wherever it can run.

    Returns:
        A callable with the model's signature, for any batch where the model allows it, safe to
        call from several threads; `.explain()` says where its time goes.

    Raises:
        ValueError: a choice of another name, a model that is not on the CPU or that torch.export
            cannot trace, masks that are not the model's.
    """
    choice = checked_choice(choice)
    model = unwrap(model)
    prepared = prepare(model, example_input)
    return _compiled(prepared, read(prepared.graph, model, masks), choice)


def recompiled(
    before: CompiledNetwork, model: nn.Module, masks: Mapping[str, Tensor] | None
) -> CompiledNetwork:
    """The same network with the weights that a model has now, by the same kernels."""
    prepared = before.prepared
    values = _read_again(prepared, model, masks)
    steps = StepMaker(prepared.network, values)

    def again(version: Version | None) -> Version | None:
        if version is None:
            return None
        runner = version.runner
        made = _runner(prepared, values, steps, runner.packed, runner.block)
        return Version(made, Chosen(runner.packed, {}), version.rows)

    return _network(prepared, values, again(before.few), again(before.many), before.choice)


def chosen_anew(
    before: CompiledNetwork, model: nn.Module, masks: Mapping[str, Tensor] | None, choice: Choice
) -> CompiledNetwork:
    """The same network with the weights that a model has now, by kernels chosen for them."""
    prepared = before.prepared
    return _compiled(prepared, _read_again(prepared, model, masks), checked_choice(choice))


def _read_again(
    prepared: Prepared, model: nn.Module, masks: Mapping[str, Tensor] | None
) -> dict[str, Any]:
    model = unwrap(model)
    more = [name for name in parameter_names(model) if name not in prepared.parameters]
    if more:
        raise ValueError(
            f"the model has {more[0]!r}, which the compiled one had not. Give the model that was "
            "compiled or a copy of it, or compile this one."
        )
    return read(prepared.graph, model, masks)


def _compiled(prepared: Prepared, values: Mapping[str, Any], choice: Choice) -> CompiledNetwork:
    """A version for few images and one for many; the example's size is that of one of them."""
    steps, rows = StepMaker(prepared.network, values), prepared.rows()
    few: Version | None = None
    many: Version | None = None
    least = 2 if 1 in prepared.graph.barred else 1
    small, large = (rows, _BLOCK) if rows < _SWITCH else (least, rows)
    if prepared.graph.batch or rows < _SWITCH:
        few = _version(prepared, values, steps, rows=small, block=1, choice=choice)
    if prepared.graph.batch or rows >= _SWITCH:
        many = _version(prepared, values, steps, rows=large, block=_BLOCK, choice=choice)
    return _network(prepared, values, few, many, choice)


def _version(
    prepared: Prepared,
    values: Mapping[str, Any],
    steps: StepMaker,
    *,
    rows: int,
    block: int,
    choice: Choice,
) -> Version:
    network, kept = prepared.network, kept_counts(prepared.network, values)
    digest = cache.key(network, kept, rows=rows, block=block)
    chosen = cache.load(digest, network) if choice == "measure" else None
    if chosen is None or not chosen.packed <= prepared.able:
        subject = Subject(
            network,
            prepared.kinds,
            prepared.able,
            kept,
            block,
            lambda packed: _runner(prepared, values, steps, packed, block),
            lambda: prepared.inputs(rows),
        )
        with torch.no_grad():
            chosen = choose(subject, choice)
        if choice == "measure":
            cache.save(digest, network, chosen)
    return Version(_runner(prepared, values, steps, chosen.packed, block), chosen, rows)


def _runner(
    prepared: Prepared,
    values: Mapping[str, Any],
    steps: StepMaker,
    packed: frozenset[str],
    block: int,
) -> Runner:
    return make_runner(
        prepared.network, prepared.kinds, values, packed=packed, block=block, steps=steps
    )


def _network(
    prepared: Prepared,
    values: Mapping[str, Any],
    few: Version | None,
    many: Version | None,
    choice: Choice,
) -> CompiledNetwork:
    wanted = {prepared.network.alias.get(n, n) for n in refs(prepared.graph.outputs)}
    constants = {n: values[n].clone() for n in wanted if n in values}
    return CompiledNetwork(
        prepared,
        few=few,
        many=many,
        switch=_SWITCH,
        choice=choice,
        constants=constants,
        kept=kept_counts(prepared.network, values),
    )
