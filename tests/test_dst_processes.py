"""Contracts of all in-loop methods across processes, and under the compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

import sparsetrain as st
from tests.nets import OPTIMIZERS, batch, mlp, train
from tests.test_distributed import free_port

NAMES = st.methods.names("in-loop")
STEPS = 8


def start(name: str) -> tuple[nn.Module, Optimizer, st.Sparsifier]:
    model = mlp()
    optimizer = OPTIMIZERS["nesterov"](model)
    method = st.methods.create(name, sparsity=0.9, total_steps=STEPS)
    return model, optimizer, st.Sparsifier(model, optimizer, method)


def train_ranks(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    masks = {}
    for name in NAMES:
        model, optimizer, sparsifier = start(name)
        network = DistributedDataParallel(model)
        torch.manual_seed(rank)
        for step in range(STEPS):
            x, y = batch(seed=step)
            half = slice(8 * rank, 8 * rank + 8)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[half]), y[half]).backward()
            optimizer.step()
        masks[name] = sparsifier.masks
    torch.save(masks, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_hold_equal_masks_under_every_method(tmp_path: Path) -> None:
    mp.spawn(train_ranks, args=(free_port(), str(tmp_path)), nprocs=2, join=True)
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    assert set(first) == set(NAMES)
    for name, masks in first.items():
        assert all(torch.equal(mask, second[name][n]) for n, mask in masks.items()), name


def resume(_: int, folder: str) -> None:
    torch.set_num_threads(1)
    for name in NAMES:
        state = torch.load(Path(folder) / f"{name}.pt", weights_only=True)
        model, optimizer, sparsifier = start(name)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        sparsifier.load_state_dict(state["sparsifier"])
        train(model, optimizer, STEPS - 3, start=3)
        torch.save(model.state_dict(), Path(folder) / f"{name}.done.pt")


def test_resume_in_another_process_is_bit_identical(tmp_path: Path) -> None:
    whole = {}
    for name in NAMES:
        model, optimizer, sparsifier = start(name)
        train(model, optimizer, 3)
        state = {"model": model, "optimizer": optimizer, "sparsifier": sparsifier}
        torch.save({k: v.state_dict() for k, v in state.items()}, tmp_path / f"{name}.pt")
        train(model, optimizer, STEPS - 3, start=3)
        whole[name] = model.state_dict()
    mp.spawn(resume, args=(str(tmp_path),), nprocs=1, join=True)
    for name, weights in whole.items():
        resumed = torch.load(tmp_path / f"{name}.done.pt", weights_only=True)
        assert all(torch.equal(weights[n], resumed[n]) for n in weights), name


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("name", NAMES)
def test_mask_updates_recompile_nothing(name: str) -> None:
    from torch._dynamo.testing import CompileCounter

    torch.compiler.reset()
    counter = CompileCounter()
    model, optimizer, _ = start(name)
    train(torch.compile(model, backend=counter), optimizer, STEPS)  # type: ignore[arg-type]
    assert counter.frame_count == 1
