"""The largest scores of sharded layers, exact, by counting passes: no rank sees another's scores.

Scores become integers in the same order, and their border is found digit by digit: each rank
counts its own digits, the counts are added up, and all ranks take the same digit. Three passes
for float32 and the half precisions, six for 64 bits, whatever the number of layers. A selection
costs those messages and two small ones: what each rank brings, and how many ties it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ..types import Masks, Tensors
from .layout import Layout, layout_of, local, wrap

_WIDTH = 11  # bits a pass: 2,048 counters, 16 KB a group of layers


@dataclass(frozen=True)
class Group:
    """Layers that are ranked together.

    Attributes:
        names: of the layers, in the order that decides ties.
        count: how many of their positions to keep.
        what: the positions, for messages.
    """

    names: Sequence[str]
    count: int
    what: str


_Rows = Callable[[str], tuple[Tensor, Tensor | None]]
"""Name -> this rank's scores of the layer, and the mask of the positions that count, if any."""


def keep_largest(
    scores: Tensors, groups: Sequence[Group], *, within: Tensors | None = None
) -> Masks:
    """Keep the largest scores of each group of layers; collective.

    Args:
        scores: name -> sharded tensor; -inf forbids a position. Layers are read one at a time, a
            few times each, so the mapping may make them as it goes.
        groups: every name once.
        within: name -> sharded bool mask; no other position is read or kept. None means all.
    Returns:
        name -> mask sharded like the score, exactly `count` True in each group; ties go to the
        lower flat index of the whole tensors.
    Raises:
        ValueError: a count out of range, or a NaN score.
        RuntimeError: ranks ask for different counts or found different borders; names the rank and
            the layer.
    """
    names = [name for group in groups for name in group.names]
    layout = layout_of(scores[names[0]])

    def rows(name: str) -> tuple[Tensor, Tensor | None]:
        return local(scores[name]), None if within is None else local(within[name])

    _check(layout, groups, rows)
    parts = [[_Part(name, rows) for name in group.names] for group in groups]
    borders = _borders(layout, parts, [group.count for group in groups])
    above: dict[str, Tensor] = {}
    tied: dict[str, Tensor] = {}
    for group, border in zip(groups, borders, strict=True):
        for name in group.names:
            above[name], tied[name] = _split(*rows(name), border.value, group.count)
    _add_ties_(layout, groups, borders, above, tied)
    return {name: wrap(above[name], scores[name]) for name in scores}


def kth_smallest(tensors: Sequence[Tensor], k: int) -> Tensor:
    """The value of rank `k` among all entries of all sharded tensors together; collective.

    Args:
        tensors: of any shapes; of several dtypes, the widest is ranked in.
        k: rank in ascending order, 0 for the smallest, below the number of entries.
    Returns:
        A plain 0-d tensor on this rank's device, in the dtype ranked in (float32 for the half
        precisions). NaN ranks above every number.
    Raises:
        ValueError: k out of range.
    """
    n = sum(tensor.numel() for tensor in tensors)
    if not 0 <= k < n:
        raise ValueError(f"k must be a rank in [0, {n}), the number of entries, got {k}.")
    held = {str(i): (local(tensor), None) for i, tensor in enumerate(tensors)}
    parts = [[_Part(name, held.__getitem__) for name in held]]
    return _borders(layout_of(tensors[0]), parts, [n - k])[0].value


class _Border(NamedTuple):
    """The smallest score kept.

    Attributes:
        value: 0-d, on this rank's device.
        code: the same as an integer, for comparison between ranks.
        ties: how many of the scores equal to it are kept.
    """

    value: Tensor
    code: int
    ties: int


class _Part:
    """One layer's scores on this rank as integers; fewer from pass to pass."""

    def __init__(self, name: str, rows: _Rows) -> None:
        self._name, self._rows = name, rows
        self._left: Tensor | None = None
        score, _ = rows(name)
        self.dtype, self.device = score.dtype, score.device

    def counts(self, kind: torch.dtype, prefix: int, seen: int, width: int) -> Tensor:
        """How often each next digit follows the `seen` bits found so far."""
        bits = torch.iinfo(_integer(kind)).bits
        codes = self._left
        if codes is None:
            score, mask = self._rows(self._name)
            codes = _encode(score.flatten() if mask is None else score[mask], kind)
        if seen:
            # Held from here on: after one pass only the scores that share a digit are left.
            codes = self._left = codes[(codes >> (bits - seen)) & ((1 << seen) - 1) == prefix]
        digits = (codes >> (bits - seen - width)) & ((1 << width) - 1)
        return torch.bincount(digits, minlength=1 << width)


def _borders(
    layout: Layout, parts: Sequence[Sequence[_Part]], counts: Sequence[int]
) -> list[_Border]:
    """The border of each group that keeps its `counts` largest; of no use where that is 0."""
    kind = _kind([part.dtype for group in parts for part in group])
    bits = torch.iinfo(_integer(kind)).bits
    prefixes, left = [0] * len(parts), list(counts)
    for seen in range(0, bits, _WIDTH):
        width = min(_WIDTH, bits - seen)
        own = [
            torch.stack([part.counts(kind, prefix, seen, width) for part in group]).sum(0)
            for group, prefix in zip(parts, prefixes, strict=True)
        ]
        from_top = layout.add(torch.stack(own)).flip(1).cpu()
        for i, (row, upto) in enumerate(zip(from_top, from_top.cumsum(1), strict=True)):
            place = min(int((upto < left[i]).sum()), len(row) - 1)
            left[i] -= int(upto[place] - row[place])
            prefixes[i] = (prefixes[i] << width) | (len(row) - 1 - place)
    device = parts[0][0].device
    return [
        _Border(_decode(prefix, kind).to(device), prefix - (1 << (bits - 1)), ties)
        for prefix, ties in zip(prefixes, left, strict=True)
    ]


def _check(layout: Layout, groups: Sequence[Group], rows: _Rows) -> None:
    """Whether no score is NaN, all ranks ask for the same counts, and there are as many."""
    names = [name for group in groups for name in group.names]
    seen = []
    for name in names:
        score, mask = rows(name)
        chosen = score if mask is None else score[mask]
        seen += [torch.isnan(chosen).any().long(), torch.count_nonzero(chosen != -math.inf)]
    asked = torch.tensor([group.count for group in groups], device=seen[0].device)
    table = layout.gather(torch.cat([torch.stack(seen), asked]))
    _compare(groups, table[:, len(seen) :], "keeps", "weights")
    totals = table.sum(0).tolist()
    if bad := [name for name, nans in zip(names, totals[: len(seen) : 2], strict=True) if nans]:
        raise ValueError(
            f"scores are NaN in {', '.join(bad)}; look for a diverged loss before pruning."
        )
    allowed = dict(zip(names, totals[1 : len(seen) : 2], strict=True))
    for group in groups:
        n = sum(allowed[name] for name in group.names)
        if not 0 <= group.count <= n:
            raise ValueError(
                f"count must be in [0, {n}], the positions {group.what}, got {group.count}."
            )


def _compare(groups: Sequence[Group], table: Tensor, verb: str, unit: str) -> None:
    """Raise RuntimeError where a rank's numbers (ranks x groups) are not those of rank 0."""
    for rank, row in enumerate(table):
        for i in (row != table[0]).nonzero().flatten().tolist()[:1]:
            raise RuntimeError(
                f"masks differ between ranks: rank {rank} {verb} {int(row[i])} {unit} in layer "
                f"{groups[i].names[0]!r}, rank 0 {int(table[0, i])}; give every rank the same "
                "model, method and seed"
            )


def _split(score: Tensor, mask: Tensor | None, border: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What lies above the border and what on it, within the mask."""
    if count == 0:
        none = torch.zeros_like(score, dtype=torch.bool)
        return none, none
    wide = score.to(border.dtype)
    above, tied = wide > border, wide == border
    return (above, tied) if mask is None else (above & mask, tied & mask)


def _add_ties_(
    layout: Layout,
    groups: Sequence[Group],
    borders: Sequence[_Border],
    above: dict[str, Tensor],
    tied: dict[str, Tensor],
) -> None:
    """Keep the ties of lowest flat index too: earlier layers first, then lower ranks' rows."""
    own = torch.stack([torch.count_nonzero(tied[name]) for g in groups for name in g.names])
    codes = torch.tensor([border.code for border in borders], device=own.device)
    cuts = torch.tensor([border.ties for border in borders], device=own.device)
    table = layout.gather(torch.cat([own, codes, cuts]))
    table, codes, cuts = table.split([len(own), len(codes), len(cuts)], dim=1)
    _compare(groups, codes, "has border", "(as an integer)")
    _compare(groups, cuts, "keeps", "ties")
    columns = iter(table.T.tolist())
    for group, border in zip(groups, borders, strict=True):
        left = border.ties
        for name in group.names:
            ties = next(columns)
            keep = max(0, left - sum(ties[: layout.rank]))
            left = max(0, left - sum(ties))
            if group.count and keep:
                flat = tied[name].flatten()
                first = flat.nonzero().squeeze(1)[:keep]
                chosen = torch.zeros_like(flat).index_fill_(0, first, True)
                above[name] |= chosen.view(above[name].shape)


def _kind(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """The dtype that all scores are ranked in: float32, float64 or int64."""
    widest = reduce(torch.promote_types, dtypes)
    if not widest.is_floating_point:
        return torch.int64
    return torch.promote_types(widest, torch.float32)


def _integer(kind: torch.dtype) -> torch.dtype:
    return torch.int32 if kind == torch.float32 else torch.int64


def _encode(values: Tensor, kind: torch.dtype) -> Tensor:
    """Integers whose bits, read without sign, are in the values' order; -0.0 and 0.0 are one."""
    values = values.to(kind)
    if not kind.is_floating_point:
        return values ^ torch.iinfo(kind).min
    whole = _integer(kind)
    bits = (values + 0.0).view(whole)
    limits = torch.iinfo(whole)
    # Negative floats are in descending order of their bits; then the sign bit is turned.
    return bits ^ ((bits >> (limits.bits - 1)) & limits.max) ^ limits.min


def _decode(code: int, kind: torch.dtype) -> Tensor:
    """The value of a code, as a 0-d tensor on the CPU."""
    limits = torch.iinfo(_integer(kind))
    signed = code + limits.min
    if not kind.is_floating_point:
        return torch.tensor(signed, dtype=kind)
    bits = signed if signed >= 0 else signed ^ limits.max
    return torch.tensor(bits, dtype=_integer(kind)).view(kind)
