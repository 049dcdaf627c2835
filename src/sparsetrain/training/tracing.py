"""What a run keeps of its course for analyses: a small file an epoch, at little cost.

All processes of a DDP run count, as each has the masks and a part of the answers, and rank 0 looks
closely and writes. Under FSDP nothing is traced: no process has the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .. import masks as mask_algebra
from ..analysis import trace
from ..analysis.classes import class_counts
from ..analysis.profiles import magnitude_profile, mean_by_rank, mean_by_share, relative_ranks
from ..types import Masks
from .checkpoint import temporary
from .config import TrainConfig
from .session import Session
from .work import Work

Tally: TypeAlias = Callable[[Tensor, Tensor], None]
_RANKS = relative_ranks()
_SHOWN_DIGITS = 9


class Tracer:
    """Counts connections as masks move, and writes what an epoch has come to.

    Args:
        config: resolved settings.
        session: fresh.
    """

    def __init__(self, config: TrainConfig, session: Session) -> None:
        self._config, self._session = config, session
        masks = session.plan.masks
        self._before = {name: mask.clone() for name, mask in masks.items()}
        self._seen = {name: mask.clone() for name, mask in masks.items()}
        self._counts = self._zeros()
        self._updates = 0
        self._noted = session.plan.sparsifier.updates
        sizes = {name: mask.numel() for name, mask in masks.items()}
        self._places = trace.sampled_places(sizes)
        self._profiled = trace.sampled_places(sizes, trace.PROFILED)
        self._kept = mask_algebra.kept(sum(sizes.values()), config.sparse.sparsity)
        self._written: dict[str, tuple[int, np.ndarray]] = {}
        self._tallies: dict[str, Tensor] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def after_step(self) -> None:
        """Count what a mask update has moved; on an ordinary step nothing is done."""
        updates = self._session.plan.sparsifier.updates
        if updates != self._noted:
            self._noted = updates
            self._updates += 1
            self._note()

    @torch.no_grad()
    def look(self, work: Work) -> None:
        """Look at the network at the end of an epoch, before the method judges it.

        Args:
            work: of the epoch's steps.
        """
        self._note()
        self._arrays = {
            **self._counted(),
            "worked": np.array(list(work.active.values())),
            "read": np.array(list(work.read.values())),
        }
        if self._session.place.world.writes:
            self._arrays |= self._bits() | self._profiles()

    @torch.no_grad()
    def look_again(self) -> None:
        """Once training is over: where it ended with a pruning, count that into the last look.

        ART without fine-tuning ends so. Profiles and answers stay those of the network before.
        """
        self._note()
        if any(map(any, self._counts)):
            before = {name: self._arrays[name] for name in ("dropped", "grown", "updates")}
            self._arrays |= self._counted()
            self._arrays |= {name: self._arrays[name] + count for name, count in before.items()}
            if self._session.place.world.writes:
                self._arrays |= self._bits()

    def counting(self, name: Literal["classes", "pruned_classes"]) -> Tally:
        """What is to be called with the logits and labels of each batch of an evaluation.

        Args:
            name: whose answers they are: the network's, or its pruned copy's.
        """
        labels = len(self._session.dataset.classes)
        counts = torch.zeros(2, labels, dtype=torch.int64, device=self._session.place.device)
        self._tallies[name] = counts

        def add(logits: Tensor, labels: Tensor) -> None:
            counts.add_(class_counts(logits, labels, counts.shape[1]))

        return add

    def write(self, folder: Path, epoch: int, *, step: int) -> None:
        """Write what `look` and the tallies have found, as the end of an epoch; collective.

        Args:
            folder: made if absent.
            epoch: from 1; 0 before the first.
            step: optimizer steps taken.
        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        world, self._arrays["step"] = self._session.place.world, np.array(step)
        for name, counts in self._tallies.items():
            self._arrays[name] = world.total(counts).cpu().numpy()
        self._tallies = {}
        if not world.writes:
            return
        folder.mkdir(exist_ok=True)
        if epoch == 0 or not (folder / "layers.json").exists():
            _put(folder / "layers.json", trace.dump_layers(self._layers()))
        for name in ("mask", "top"):
            self._name_place(name, epoch)
        _put(folder / trace.file_name(epoch), trace.dump_epoch(self._arrays))

    def state_dict(self) -> dict[str, Any]:
        """What the unfinished epoch and the union of all masks need to go on."""
        return {
            "seen": {name: mask_algebra.pack(mask) for name, mask in self._seen.items()},
            "before": {name: mask_algebra.pack(mask) for name, mask in self._before.items()},
            "counts": [list(row) for row in self._counts],
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken, once the plan was loaded."""
        for key, held in (("seen", self._seen), ("before", self._before)):
            for name, mask in held.items():
                mask.copy_(mask_algebra.unpack(state[key][name], tuple(mask.shape)))
        self._counts = [list(row) for row in state["counts"]]
        self._updates = state["updates"]
        self._noted = self._session.plan.sparsifier.updates
        self._written = {}

    def _note(self) -> None:
        """Add what lies between the masks noted last and those of now."""
        masks = self._session.plan.masks
        if all(torch.equal(mask, self._before[name]) for name, mask in masks.items()):
            return
        gone = mask_algebra.count_active({n: self._before[n] & ~m for n, m in masks.items()})
        come = mask_algebra.count_active({n: m & ~self._before[n] for n, m in masks.items()})
        for row, found in zip(self._counts, (gone, come), strict=True):
            row[:] = [old + new for old, new in zip(row, found.values(), strict=True)]
        for name, mask in masks.items():
            self._seen[name] |= mask
            self._before[name].copy_(mask)

    def _counted(self) -> dict[str, np.ndarray]:
        """What has moved since it was counted last, and what is active now."""
        found = {
            "active": _row(mask_algebra.count_active(self._session.plan.masks)),
            "explored": _row(mask_algebra.count_active(self._seen)),
            "dropped": np.array(self._counts[0]),
            "grown": np.array(self._counts[1]),
            "updates": np.array(self._updates),
        }
        self._counts, self._updates = self._zeros(), 0
        return found

    def _bits(self) -> dict[str, np.ndarray]:
        """Of the masks, and of the largest weights among those active."""
        masks = dict(self._session.plan.masks)
        active = sum(mask_algebra.count_active(masks).values())
        kept = min(self._kept, active)
        weights = {name: p.detach() for name, p in self._parameters().items()}
        top = masks if active == kept else _largest(weights, masks, kept)
        return {
            "mask": np.packbits(_entries(masks, self._places)),
            "top": np.packbits(_entries(top, self._places)),
        }

    def _profiles(self) -> dict[str, np.ndarray]:
        """Of the weights, and of their gradients as far as there are any."""
        parameters = self._parameters()
        weights = {name: p.detach() for name, p in parameters.items()}
        shown = _entries(weights, self._profiled)
        profiles = {
            "weight_profile": magnitude_profile(shown, _RANKS),
            **self._gradients(parameters, weights, shown),
        }
        return {name: values.astype(np.float32) for name, values in profiles.items()}

    def _parameters(self) -> dict[str, Tensor]:
        masks, named = self._session.plan.masks, self._session.model.named_parameters
        parameters = dict(named(remove_duplicate=False))
        return {name: parameters[name] for name in masks}

    def _gradients(
        self,
        parameters: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        shown: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """The regulariser's gradient where there is one, else that of the last batch."""
        engine = self._session.plan.sparsifier
        if engine.regularizer is not None:
            pulls = _entries(engine.regularizer.grad(weights), self._profiled)
            return {"regularizer_profile": mean_by_rank(pulls, shown, _RANKS)}
        grads = {n: p.grad.detach() for n, p in parameters.items() if p.grad is not None}
        if len(grads) < len(parameters):
            return {}
        active = _entries(self._session.plan.masks, self._places)
        values, ranked = _entries(grads, self._places), _entries(weights, self._places)
        kept = _some(np.flatnonzero(active), trace.PROFILED)
        ends = np.cumsum([len(where) for where in self._places.values()])[:-1]
        return {
            "kept_gradient": mean_by_share(values[kept], ranked[kept], trace.SHARES),
            "pruned_gradient": _mean_of_pruned(np.split(values, ends), np.split(active, ends)),
        }

    def _name_place(self, name: str, epoch: int) -> None:
        """Leave bits out that an epoch before has too, and say which."""
        bits = self._arrays.get(name)
        if bits is None:
            return
        place, before = self._written.get(name, (epoch, None))
        if before is not None and np.array_equal(before, bits):
            del self._arrays[name]
        else:
            place = epoch
            self._written[name] = (epoch, bits)
        self._arrays[f"{name}_of"] = np.array(place)

    def _layers(self) -> trace.Layers:
        masks, flops = self._session.plan.masks, self._session.flops
        return trace.Layers(
            names=tuple(masks),
            weights=tuple(mask.numel() for mask in masks.values()),
            shapes=tuple(tuple(mask.shape) for mask in masks.values()),
            flops=tuple(flops.layers.get(name, 0) for name in masks),
            flops_total=flops.total,
            kept=self._kept,
            images=self._session.train_images,
            batches=len(self._session.train),
            classes=tuple(map(str, self._session.dataset.classes)),
            ranks=tuple(round(float(rank), _SHOWN_DIGITS) for rank in _RANKS),
        )

    def _zeros(self) -> list[list[int]]:
        return [[0] * len(self._session.plan.masks) for _ in range(2)]


def _entries(tensors: Mapping[str, Tensor], places: Mapping[str, np.ndarray]) -> np.ndarray:
    """The entries at these places of all layers, one after another, on the CPU."""
    parts = []
    for name, where in places.items():
        flat = tensors[name].reshape(-1)
        whole = len(where) == flat.numel()
        parts.append(flat if whole else flat[torch.from_numpy(where).to(flat.device)])
    joined = torch.cat(parts)
    return (joined.float() if joined.is_floating_point() else joined).cpu().numpy()


def _mean_of_pruned(grads: list[np.ndarray], active: list[np.ndarray]) -> np.ndarray:
    """Mean magnitude over layers that have it: steps with kept weights alone leave it at zero."""
    pruned = [np.abs(g[~a]) for g, a in zip(grads, active, strict=True)]
    read = np.concatenate([np.zeros(0), *(values for values in pruned if values.any())])
    return np.array(read.mean() if read.size else np.nan)


def _some(places: np.ndarray, most: int) -> np.ndarray:
    """All of the places; of more than `most`, so many at equal distances."""
    if len(places) <= most:
        return places
    return places[np.arange(most) * (len(places) - 1) // (most - 1)]


def _largest(weights: Mapping[str, Tensor], masks: Masks, count: int) -> Masks:
    """The `count` largest active weights over all layers together."""
    return mask_algebra.keep_global({n: w.abs() for n, w in weights.items()}, count, within=masks)


def _put(path: Path, data: bytes) -> None:
    """Whole or absent, but not forced to the disk: that takes as long as all else here."""
    part = temporary(path)
    part.write_bytes(data)
    part.replace(path)


def _row(counts: Mapping[str, int]) -> np.ndarray:
    return np.array(list(counts.values()), dtype=np.int64)
