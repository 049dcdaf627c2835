"""Two gloo processes on one machine: equal masks everywhere, and a rank that strays is caught."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import sparsetrain as st
from sparsetrain.training.nonfinite import Guard
from sparsetrain.training.parallel import World
from tests.nets import Moving, batch, mlp
from tests.process_tools import on_ranks


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def worker(rank: int, port: int, folder: str, tamper: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = mlp()
    network = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(rank)  # the engine's draws do not depend on the rank's own generator
    sparsifier = st.Sparsifier(
        network, optimizer, Moving(), regularizer=st.HyperSparse(0.5), strength=1e-3
    )
    x, y = batch(n=16)
    message = ""
    for step in range(6):
        if tamper and rank == 1 and step == 3:
            sparsifier._generator.manual_seed(77)
        optimizer.zero_grad()
        half = slice(8 * rank, 8 * rank + 8)
        nn.functional.cross_entropy(network(x[half]), y[half]).backward()
        try:
            optimizer.step()
        except RuntimeError as error:
            message = str(error)
            break
    result = {"weights": [p.detach() for p in model.parameters()], "masks": sparsifier.masks}
    torch.save({**result, "error": message}, Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while another still sends aborts it
    dist.destroy_process_group()


def run_two(folder: Path, *, tamper: bool) -> list[dict]:
    mp.spawn(worker, args=(free_port(), str(folder), tamper), nprocs=2, join=True)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_ranks_hold_equal_masks_and_equal_one_process(tmp_path: Path) -> None:
    first, second = run_two(tmp_path, tamper=False)
    assert first["error"] == second["error"] == ""
    assert list(first["masks"]) == ["0.weight", "2.weight", "4.weight"]  # no "module." prefix
    for name in first["masks"]:
        assert torch.equal(first["masks"][name], second["masks"][name])
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    st.Sparsifier(model, optimizer, Moving(), regularizer=st.HyperSparse(0.5), strength=1e-3)
    x, y = batch(n=16)
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    for p, q, r in zip(first["weights"], second["weights"], model.parameters(), strict=True):
        assert torch.equal(p, q)
        torch.testing.assert_close(p, r.detach())


def test_a_rank_that_strays_is_named_with_its_layer(tmp_path: Path) -> None:
    for result in run_two(tmp_path, tamper=True):
        assert "step 4: rank 1 disagrees with rank 0 on layer '0.weight'" in result["error"]


def test_without_a_process_group_there_is_nothing_to_agree_on() -> None:
    model = mlp()
    sparsifier = st.Sparsifier(
        model, torch.optim.SGD(model.parameters(), lr=0.1), st.methods.static(sparsity=0.5)
    )
    assert sparsifier.sparsity == pytest.approx(0.5, abs=0.01)


def art_worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = mlp()
    network = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    art = st.ART(
        network, optimizer, sparsity=0.8, dense_epochs=1, finetune_epochs=2,
        max_regularize_epochs=8, window=1, strength=1e-3, strength_factor=2.0,
    )  # fmt: skip
    x, y = batch(n=16)
    phases = []
    while art.phase != "done":
        phases.append(art.phase)
        optimizer.zero_grad()
        half = slice(8 * rank, 8 * rank + 8)
        nn.functional.cross_entropy(network(x[half]), y[half]).backward()
        optimizer.step()
        # Alone, rank 0 would stop in its first regularising epoch and rank 1 never.
        art.epoch_end(0.9, lambda _: (1.0, 0.1 * len(phases))[rank])
    result = {"weights": [p.detach() for p in model.parameters()], "masks": art.masks}
    torch.save({**result, "phases": phases}, Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while another still sends aborts it
    dist.destroy_process_group()


def test_ranks_of_an_art_run_change_phase_together(tmp_path: Path) -> None:
    mp.spawn(art_worker, args=(free_port(), str(tmp_path)), nprocs=2, join=True)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    # The mean over ranks reaches 0.9 when rank 1 is at 0.8, in the run's eighth epoch.
    assert first["phases"] == ["dense", *["regularize"] * 7, *["finetune"] * 2]
    assert second["phases"] == first["phases"]
    for name, mask in first["masks"].items():
        assert torch.equal(mask, second["masks"][name])
    for p, q in zip(first["weights"], second["weights"], strict=True):
        assert torch.equal(p, q)


def skipping(rank: int) -> dict[str, Any]:
    """Three steps under `on_nonfinite=skip`; rank 1's second batch is a NaN."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, mode="skip", world=World(rank, 2, "ddp"))
    taken = []
    for step in range(3):
        images = torch.full((4, 3), torch.nan if (rank, step) == (1, 1) else 1.0)
        guard.begin(step)
        optimizer.zero_grad()
        loss = model(images).square().mean()
        loss.backward()
        taken.append(guard.step(optimizer, loss, images))
    return {"taken": taken, "weight": model.weight.detach()}


def test_all_ranks_skip_the_step_that_is_bad_on_one(tmp_path: Path) -> None:
    one, other = on_ranks(tmp_path, skipping)
    assert one["taken"] == other["taken"] == [True, False, True]
    assert torch.equal(one["weight"], other["weight"])
