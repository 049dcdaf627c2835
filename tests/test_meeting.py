"""Processes that start again in the store of those before them find one another, not the dead."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from sparsetrain.training.errors import RunFailed
from sparsetrain.training.meeting import met
from tests.process_tools import free_port

SOON = timedelta(seconds=20)


@pytest.fixture
def server():
    return dist.TCPStore("127.0.0.1", free_port(), is_master=True, wait_for_workers=False)


def join(server, rank, size):
    client = dist.TCPStore("127.0.0.1", server.port, is_master=False)
    return met(client, rank, size, patience=SOON)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_all_share_what_they_write_after_they_have_met(server, size):
    with ThreadPoolExecutor(size) as pool:
        stores = list(pool.map(lambda rank: join(server, rank, size), range(size)))
    stores[0].set("a", "b")
    assert [store.get("a") for store in stores] == [b"b"] * size


@pytest.mark.parametrize("first", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_what_an_earlier_attempt_left_is_seen_by_none_whoever_comes_first(server, first):
    with ThreadPoolExecutor(3) as pool:
        for attempt in range(4):
            late = [pool.submit(join, server, rank, 3) for rank in first[:-1]]
            time.sleep(0.1)
            assert not any(job.done() for job in late)  # the last one's word is an old one
            stores = [join(server, first[-1], 3), *(job.result(20) for job in late)]
            assert not any(store.check(["address"]) for store in stores)
            stores[0].set("address", str(attempt))
            assert {store.get("address") for store in stores} == {str(attempt).encode()}


def test_one_that_waits_is_found_by_those_started_again_around_it(server):
    # On several machines one process may still wait while rank 0 dies and comes back.
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(join, server, 1, 2)
        server.set("meeting/offer", "of a rank 0 that died")
        assert join(server, 0, 2).num_keys() and waiting.result(20)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_left_alone_says_so(server, rank):
    with pytest.raises(RunFailed, match=f"rank {rank} waited in vain for the other processes, 2"):
        met(server, rank, 2, patience=timedelta(seconds=0.1))
