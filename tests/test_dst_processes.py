"""Contracts of all methods across processes, and under the compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.contracts import ROWS, STEPS, attached, end_step, steps
from tests.nets import batch
from tests.test_distributed import free_port

CUT = 3


def train_ranks(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    masks = {}
    for name in ROWS:
        model, optimizer, engine = attached(name, "nesterov")
        network = DistributedDataParallel(model)
        torch.manual_seed(rank)
        for step in range(STEPS):
            x, y = batch(seed=step)
            half = slice(8 * rank, 8 * rank + 8)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[half]), y[half]).backward()
            optimizer.step()
            end_step(engine)
        masks[name] = engine.masks
    torch.save(masks, Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while another still sends aborts it
    dist.destroy_process_group()


def test_two_ranks_hold_equal_masks_under_every_method(tmp_path: Path) -> None:
    mp.spawn(train_ranks, args=(free_port(), str(tmp_path)), nprocs=2, join=True)
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    assert set(first) == set(ROWS)
    for name, masks in first.items():
        assert all(torch.equal(mask, second[name][n]) for n, mask in masks.items()), name


def resume(_: int, folder: str) -> None:
    torch.set_num_threads(1)
    for name in ROWS:
        state = torch.load(Path(folder) / f"{name}.pt", weights_only=True)
        parts = attached(name, "nesterov", seed=1)
        for part, saved in zip(parts, state, strict=True):
            part.load_state_dict(saved)
        steps(*parts, CUT, STEPS)
        torch.save(parts[0].state_dict(), Path(folder) / f"{name}.done.pt")


def test_resume_in_another_process_is_bit_identical(tmp_path: Path) -> None:
    whole = {}
    for name in ROWS:
        parts = attached(name, "nesterov")
        steps(*parts, 0, CUT)
        torch.save([part.state_dict() for part in parts], tmp_path / f"{name}.pt")
        steps(*parts, CUT, STEPS)
        whole[name] = parts[0].state_dict()
    mp.spawn(resume, args=(str(tmp_path),), nprocs=1, join=True)
    for name, weights in whole.items():
        resumed = torch.load(tmp_path / f"{name}.done.pt", weights_only=True)
        assert all(torch.equal(weights[n], resumed[n]) for n in weights), name


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", ROWS)
def test_mask_updates_recompile_nothing(name: str) -> None:
    from torch._dynamo.testing import CompileCounter

    torch.compiler.reset()
    counter = CompileCounter()
    model, optimizer, engine = attached(name, "nesterov")
    compiled: nn.Module = torch.compile(model, backend=counter)  # type: ignore[assignment]
    steps(compiled, optimizer, engine, 0, STEPS)
    assert counter.frame_count == 1
