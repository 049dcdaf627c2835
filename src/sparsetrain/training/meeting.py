"""A store that the processes of a run share with nobody who died before them.

torchrun keeps one store through all its restarts (torch 2.13, StaticTCPRendezvous and
DynamicRendezvousHandler), and each attempt writes its addresses under the same names. A process
that is quicker than another then reads the address of one that is dead: the connection is refused
or hangs, and the restart fails (pytorch/pytorch#135712). torchrun's count of restarts is no way out
on several machines, where each counts its own. So the living agree on a name first.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

from torch.distributed import DistStoreError
from torch.distributed.distributed_c10d import PrefixStore, Store

from .errors import RunFailed

PATIENCE = timedelta(minutes=30)  # torch's own for a group of processes
_PAUSES = (0.01, 0.5)  # s, the first and the longest: a thousand processes must not flood the store


def met(store: Store, rank: int, size: int, *, patience: timedelta = PATIENCE) -> PrefixStore:
    """The store under a name that only the processes alive now have; collective.

    Each process leaves a word that nobody has used before. Rank 0 offers all words it finds, until
    every other process has accepted the offer with its own word in it; a word of the dead is
    accepted by none, so it is gone from the offer once its successor has left another.

    Args:
        store: what all processes reach; it may hold what earlier meetings left.
        rank: of this process.
        size: processes.
        patience: to wait for the others.
    Raises:
        RunFailed: another process has not come.
    """
    word, until = uuid.uuid4().hex[:16], time.monotonic() + patience.total_seconds()
    pause, longest = _PAUSES
    store.set(_word(rank), word)
    while True:
        agreed = _lead(store, size, patience) if rank == 0 else _follow(store, rank, word)
        if agreed is not None:
            return PrefixStore(agreed, store)
        if time.monotonic() > until:
            raise _alone(rank, size)
        time.sleep(pause)
        pause = min(2 * pause, longest)


def _lead(store: Store, size: int, patience: timedelta) -> str | None:
    """The offer, once all have accepted it."""
    names = [_word(other) for other in range(size)]
    try:
        store.wait(names, patience)
    except DistStoreError as error:
        raise _alone(0, size) from error
    offer = ",".join(store.get(name).decode() for name in names)
    store.set("meeting/offer", offer)
    if not all(_held(store, f"meeting/accepted/{other}") == offer for other in range(1, size)):
        return None
    store.set(f"meeting/agreed/{offer}", "yes")
    return offer


def _follow(store: Store, rank: int, word: str) -> str | None:
    """The offer, once rank 0 has seen all accept it."""
    offer = _held(store, "meeting/offer")
    if offer is None or offer.split(",")[rank : rank + 1] != [word]:
        return None
    store.set(f"meeting/accepted/{rank}", offer)
    return offer if _held(store, f"meeting/agreed/{offer}") else None


def _held(store: Store, name: str) -> str | None:
    return store.get(name).decode() if store.check([name]) else None


def _word(rank: int) -> str:
    return f"meeting/word/{rank}"


def _alone(rank: int, size: int) -> RunFailed:
    return RunFailed(
        f"rank {rank} waited in vain for the other processes, {size} in all; look at what they "
        "said and start them again."
    )
