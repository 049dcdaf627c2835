"""Which parameters are prunable, and why: names, patterns, tied weights once."""

from __future__ import annotations

import difflib
import fnmatch
import re
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .weight_norm import split

Predicate: TypeAlias = Callable[[str, nn.Parameter], bool]
Pattern: TypeAlias = str | re.Pattern[str] | Predicate
Patterns: TypeAlias = Pattern | Sequence[Pattern] | None

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
# Wrappers put these segments into parameter names; the network's own names do not have them.
_WRAPPER_SEGMENTS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, DataParallel and `torch.compile` wrappers."""
    while True:
        if isinstance(model, DistributedDataParallel | DataParallel):
            model = model.module
        elif _is_compiled(model):
            model = model.get_submodule("_orig_mod")
        else:
            return model


def _is_compiled(model: nn.Module) -> bool:
    # torch._dynamo is slow to import, and a compiled module cannot exist before it is.
    eval_frame = sys.modules.get("torch._dynamo.eval_frame")
    return eval_frame is not None and isinstance(model, eval_frame.OptimizedModule)


def clean_name(name: str) -> str:
    """A parameter's name without the segments that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPER_SEGMENTS)


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and persistent buffer of the unwrapped model by clean name, each once."""
    network = unwrap(model)
    persistent = network.state_dict(keep_vars=True)
    seen: set[int] = set()
    found: dict[str, torch.Tensor] = {}
    for name, tensor in persistent.items():
        if isinstance(tensor, torch.Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            found[clean_name(name)] = tensor
    return found


def select(
    model: nn.Module, include: Patterns = None, exclude: Patterns = None
) -> dict[str, nn.Parameter]:
    """The prunable parameters of a model by name, in the model's order, tied ones once.

    By default these are the parameters of two or more dimensions whose last name part contains
    `weight` and which no embedding or norm owns: convolutions, linears, recurrent and fused
    attention weights, the first layer and the classifier included, as in the papers. A tensor
    tied to an embedding stays dense, and so does the length of a weight-normed one (`weight_g`).

    Args:
        model: any module; DDP and `torch.compile` wrappers are looked through.
        include: keep only the defaults that match. A pattern is a name or glob (`"layer1.*"`), a
            compiled regular expression (`search`), or a predicate `(name, parameter) -> bool`; a
            sequence means any of them. A parameter's exact name selects it whatever its shape
            or owner: tokens, position tables and layer scales come in this way only.
        exclude: patterns that drop a parameter again; one of a tied tensor's names is enough.
    Returns:
        name -> parameter, at least one.
    Raises:
        ValueError: nothing is left, or a name without wildcard names no parameter.
    """
    tied = _tied(unwrap(model))
    known = [alias.name for aliases in tied for alias in aliases]
    _check_names(include, "include", known)
    _check_names(exclude, "exclude", known)
    chosen: dict[str, nn.Parameter] = {}
    defaults: list[str] = []
    for aliases in tied:
        named = [alias.name for alias in aliases if _is_named(alias.name, include)]
        default = _default_name(aliases)
        defaults += [default] if default else []
        if default and (include is None or _matches(aliases, include)):
            named.append(default)
        if named and not _matches(aliases, exclude):
            chosen[named[0]] = aliases[0].parameter
    if not chosen:
        raise ValueError(_nothing_left(include, exclude, defaults))
    return chosen


class _Alias(NamedTuple):
    name: str
    owner: nn.Module
    parameter: nn.Parameter


def _tied(network: nn.Module) -> list[list[_Alias]]:
    """Each parameter once, in the model's order, with every name it is known by."""
    found: dict[int, list[_Alias]] = {}
    for prefix, module in network.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            full = clean_name(f"{prefix}.{name}" if prefix else name)
            found.setdefault(id(parameter), []).append(_Alias(full, module, parameter))
    return list(found.values())


def _default_name(aliases: Sequence[_Alias]) -> str | None:
    """The name under which a parameter is prunable by default, if it is."""
    parameter = aliases[0].parameter
    if parameter.ndim < 2 or not parameter.is_floating_point():
        return None
    if any(isinstance(alias.owner, _EMBEDDINGS + _NORMS) for alias in aliases):
        return None
    if any(_last(alias) in split(alias.owner).values() for alias in aliases):
        return None
    names = [alias.name for alias in aliases if "weight" in _last(alias)]
    return names[0] if names else None


def _last(alias: _Alias) -> str:
    return alias.name.rsplit(".", 1)[-1]


def _as_sequence(patterns: Patterns) -> Sequence[Pattern]:
    if patterns is None:
        return ()
    if isinstance(patterns, str | re.Pattern) or callable(patterns):
        return (patterns,)
    return patterns


def _is_named(name: str, patterns: Patterns) -> bool:
    return any(isinstance(p, str) and clean_name(p) == name for p in _as_sequence(patterns))


def _matches(aliases: Sequence[_Alias], patterns: Patterns) -> bool:
    return any(_hits(alias, pattern) for alias in aliases for pattern in _as_sequence(patterns))


def _hits(alias: _Alias, pattern: Pattern) -> bool:
    if isinstance(pattern, str):
        return fnmatch.fnmatchcase(alias.name, clean_name(pattern))
    if isinstance(pattern, re.Pattern):
        return pattern.search(alias.name) is not None
    return bool(pattern(alias.name, alias.parameter))


def _check_names(patterns: Patterns, argument: str, known: Sequence[str]) -> None:
    for pattern in _as_sequence(patterns):
        if not isinstance(pattern, str) or any(sign in pattern for sign in "*?["):
            continue
        if clean_name(pattern) not in known:
            near = difflib.get_close_matches(clean_name(pattern), known, n=1, cutoff=0.0)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no parameter is named {argument}={pattern!r}.{hint}")


def _nothing_left(include: Patterns, exclude: Patterns, defaults: list[str]) -> str:
    if not defaults:
        return (
            "the model has nothing prunable: no parameter of two or more dimensions named 'weight' "
            "outside embeddings and norms; name parameters exactly with include=[…]"
        )
    shown = ", ".join(defaults[:3]) + (f", … ({len(defaults) - 3} more)" if defaults[3:] else "")
    asked = f"include={include!r}" + (f", exclude={exclude!r}" if exclude is not None else "")
    return f"no prunable weight matches {asked}. Prunable here: {shown}"
