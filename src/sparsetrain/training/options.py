"""The options a method adds to the settings of a run, as a dataclass of its own."""

from __future__ import annotations

import dataclasses
import functools
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal

# Given by the run itself, never as an option of the method.
_FROM_THE_RUN = frozenset({"sparsity", "total_steps", "masks"})


@dataclass(frozen=True)
class ArtOptions:
    """ART's three phases, and the regulariser of the second.

    Source: Glandorf et al. 2023, arXiv 2308.07163. Deviates: the regularising phase has a cap.
    """

    dense_epochs: int | None = None
    """Epochs before the regulariser starts; None is a quarter of all."""
    max_regularize_epochs: int | None = None
    """Most epochs with the regulariser; None is half of what then remains."""
    finetune_epochs: int | None = None
    """Epochs with the fixed mask; None is what is left of `epochs`, a number replaces `epochs`."""
    regularizer: Literal["hypersparse", "l1", "l2"] = "hypersparse"
    """What drives weights to zero."""
    strength: float | None = None
    """Factor of the regulariser in its first epoch; None: such that all epochs allowed together
    pull as much as the source's 64 did at 99 % zeros, more at higher sparsity."""
    strength_factor: float | None = None
    """Growth of that factor per epoch; None: as much in all epochs allowed as in the source's
    64."""
    window: int = 3
    """Epochs over which the pruned copy's accuracy is averaged; odd."""
    recalibrate: bool = False
    """Recompute the pruned copy's batch-norm statistics before it is judged."""


@dataclass(frozen=True)
class SnipOptions:
    """SNIP, scored once on a few training images, augmented as in training.

    Source: Lee et al. 2019, arXiv 1810.02340.
    """

    images_per_class: int = 10
    """Training images of each class that the weights are scored on."""
    mode: Literal["train", "eval"] = "train"
    """Batch norm while scoring: by the batch's statistics, or by the running ones."""


@dataclass(frozen=True)
class GraspOptions:
    """GraSP, scored once on a few training images in two batches or more.

    Source: Wang et al. 2020, arXiv 2002.07376.
    """

    images_per_class: int = 10
    """Training images of each class that the weights are scored on."""
    temperature: float = 200.0
    """What the logits are divided by while scoring."""
    mode: Literal["train", "eval"] = "train"
    """Batch norm while scoring: by the batch's statistics, or by the running ones."""


@dataclass(frozen=True)
class SynflowOptions:
    """SynFlow, scored without data.

    Source: Tanaka et al. 2020, arXiv 2006.05467.
    """

    rounds: int = 100
    """Scorings; the sparsity grows exponentially over them."""


@dataclass(frozen=True)
class SmartRatioOptions:
    """Random tickets: counts by depth, positions at random; data-free.

    Source: Su et al. 2020, arXiv 2009.11094. compat=paper takes the published integer counts.
    """

    start_mask: Literal["random", "pruned"] = "random"
    """pruned: the largest initial weights of each layer, the hybrid ticket."""
    network: Literal["auto", "resnet", "plain"] = "auto"
    """Which of the paper's rules counts; auto: resnet where there are 1x1 convolutions."""


@dataclass(frozen=True)
class ImpOptions:
    """Iterative magnitude pruning: the lottery ticket and its kin.

    Source: Frankle & Carbin 2019, arXiv 1803.03635; Renda et al. 2020, arXiv 2003.02389.
    """

    fraction: float = 0.2
    """Share of the weights that are left, removed each round."""
    rounds: int | None = None
    """Prunings, in equal shares; None is as many as `fraction` needs. One is one-shot pruning."""
    rewind: Literal["start", "epoch", "learning-rate"] = "start"
    """Where the weights go back to each round; with learning-rate they stay."""
    rewind_epoch: float = 1.0
    """Epoch of the dense training to go back to under rewind=epoch; 0.5 is the middle of the
    first."""
    epochs_per_round: int | None = None
    """Epochs of each training, the dense one too; None shares `epochs` out, what is over going to
    the last, and a number replaces `epochs`."""


_OWN: Mapping[str, type] = MappingProxyType(
    {
        "art": ArtOptions,
        "snip": SnipOptions,
        "grasp": GraspOptions,
        "synflow": SynflowOptions,
        "smart_ratio": SmartRatioOptions,
        "imp": ImpOptions,
    }
)


@cache  # one class a method, so that equal settings are equal
def options_type(method: str) -> type:
    """The dataclass of a method's own options.

    Args:
        method: a name the registry knows.
    Returns:
        A class of this module for the methods that decide between epochs or before them, else a
        frozen dataclass made of the registry's entry.
    """
    if method in _OWN:
        return _OWN[method]
    from sparsetrain import methods

    entry = methods.get(method)
    return _from_entry(entry.name, tuple(o for o in entry.options if o.name not in _FROM_THE_RUN))


def _from_entry(name: str, entries: tuple[Any, ...]) -> type:
    import tyro

    fields = [
        (
            o.name,
            Annotated[_typed_by_hand(o.type), tyro.conf.arg(help=o.help)],
            dataclasses.field(default=o.default),
        )
        for o in entries
    ]
    title = "".join(part.capitalize() for part in name.split("-")) + "Options"
    return dataclasses.make_dataclass(title, fields, frozen=True)


def _typed_by_hand(hint: Any) -> Any:
    """The hint without functions: a file or a flag names a distribution and cannot define one."""
    members = typing.get_args(hint)
    functions = [m for m in members if typing.get_origin(m) is Callable]
    if not functions:
        return hint
    return functools.reduce(operator.or_, (m for m in members if m not in functions))
