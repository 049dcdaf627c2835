"""`sparse_eval`: pruned copies judged by kernels that compute with kept weights alone."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..inference import compile_sparse
from ..inference.choice import Choice
from ..inference.compiled import CompiledNetwork
from ..inference.model import DENSE_MAC
from ..kernels import native
from .config import RunConfig
from .device import Place
from .errors import BadInput

_BF16 = 0.3
"""Time of a dense pass in bf16 over that in float32, where the processor computes in it."""
_ENOUGH = 2.0
"""Seconds of one core that an evaluation must save: tracing takes two, once in a process."""
_SURE = 0.8
"""The estimate is a coarse one: the kernels must take at most this share of the dense time."""
_log = logging.getLogger(__name__)


class SparseEvaluation:
    """Gives each pruned copy the call that it is judged by.

    Nothing is measured: the answer follows from the network, its zeros and the settings. So it is
    the same in a run and in its resumption, and on all processes.

    Args:
        example: a batch as the loader gives it.
        images: of one evaluation, of all processes together.
        macs: multiply-adds of an image, dense.
        bf16: whether the dense pass computes in bf16.
        always: whether the kernels are taken wherever they can run.
    """

    def __init__(
        self, example: Tensor, *, images: int, macs: int, bf16: bool, always: bool
    ) -> None:
        self._example, self._images, self._always = example, images, always
        self._dense_share = _BF16 if bf16 else 1.0
        self._possible = always or self._enough(1e-9 * macs * DENSE_MAC * self._dense_share)
        self._compiled: CompiledNetwork | None = None

    def call_of(self, model: nn.Module) -> Callable[[Tensor], Tensor] | None:
        """What computes the model with the weights that it has now; None is its dense pass.

        Args:
            model: the same each time, on the CPU.
        Raises:
            BadInput: always, and the network cannot be traced.
        """
        if not self._possible:
            return None
        try:
            self._compiled = self._made(model)
        except ValueError as error:
            if self._always:
                raise BadInput(f"sparse_eval=always: {error}") from error
            _log.warning("pruned copies are evaluated as dense networks: %s", error)
            self._possible = False
            return None
        return self._compiled if self._always or self._pays(self._compiled) else None

    def _made(self, model: nn.Module) -> CompiledNetwork:
        # Kernels are chosen for each copy anew: a resumed run knows nothing of the copies before.
        choice: Choice = "sparse" if self._always else "model"
        if self._compiled is not None:
            return self._compiled.updated(model, choice=choice)
        with torch.random.fork_rng(devices=[]):  # the run's own numbers are none of tracing's
            return compile_sparse(model, self._example, choice=choice)

    def _pays(self, compiled: CompiledNetwork) -> bool:
        seconds = compiled.estimate()
        dense = seconds.dense * self._dense_share
        return seconds.compiled <= _SURE * dense and self._enough(dense - seconds.compiled)

    def _enough(self, seconds: float) -> bool:
        return seconds * self._images >= _ENOUGH


def sparse_evaluation(
    run: RunConfig, where: Place, example: Tensor, *, images: int, macs: int
) -> SparseEvaluation | None:
    """How pruned copies are evaluated; None: as dense networks, each of them.

    Args:
        run: its `sparse_eval`.
        where: the run computes.
        example: a batch as the loader gives it.
        images: of one evaluation, of all processes together.
        macs: multiply-adds of an image, dense.
    Raises:
        BadInput: always, where it cannot be.
    """
    wanted, why = run.sparse_eval, _hindrance(where)
    if wanted == "always" and why is not None:
        raise BadInput(f"sparse_eval=always does not go with {why}; take auto or never.")
    if wanted == "never" or why is not None:
        return None
    always = wanted == "always"
    if not where.world.all_good(always or native.library() is not None):
        return None
    return SparseEvaluation(example, images=images, macs=macs, bf16=where.bf16, always=always)


def _hindrance(where: Place) -> str | None:
    if where.device.type != "cpu":
        return f"device {where.device.type}: the sparse kernels are for CPUs"
    if where.world.mode == "fsdp":
        return "parallel=fsdp, whose weights are spread over processes"
    return None
