"""FSDP2 on two gloo processes: the masks of one process, and states that load anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import sparsetrain as st
from sparsetrain import sharded
from tests.contracts import IN_LOOP, ROWS, STEPS, Engine, end_step
from tests.nets import Moving, batch, mlp
from tests.process_tools import on_ranks, shard

CUT = 3
NAMES = [*IN_LOOP, "art", "imp"]
Run = tuple[nn.Module, Optimizer, Engine]


def network(seed: int = 0) -> nn.Module:
    """Without batch norm, whose statistics are each rank's own; three rows leave ranks uneven."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 3),
    )


def attached(name: str, *, ranks: int, seed: int = 0) -> Run:
    model = network(seed)
    if ranks > 1:
        shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    return model, optimizer, ROWS[name].attach(model, optimizer)


def steps(run: Run, first: int, last: int, *, rank: int = 0, ranks: int = 1) -> None:
    model, optimizer, engine = run
    part = slice(16 // ranks * rank, 16 // ranks * (rank + 1))
    for step in range(first, last):
        x, y = batch(seed=step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[part]), y[part]).backward()
        optimizer.step()
        end_step(engine)


def state_of(run: Run) -> dict[str, Any]:
    model, optimizer, engine = run
    return {
        "model": sharded.model_state(model),
        "optimizer": sharded.optimizer_state(optimizer),
        "engine": engine.state_dict(),  # pyright: ignore[reportAttributeAccessIssue]
    }


def load_(run: Run, state: dict[str, Any]) -> None:
    model, optimizer, engine = run
    sharded.load_model_state_(model, state["model"])
    sharded.load_optimizer_state_(optimizer, state["optimizer"])
    engine.load_state_dict(state["engine"])  # pyright: ignore[reportAttributeAccessIssue]


def train_on_ranks(rank: int, folder: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in NAMES:
        run = attached(name, ranks=2)
        steps(run, 0, CUT, rank=rank, ranks=2)
        cut = state_of(run)
        steps(run, CUT, STEPS, rank=rank, ranks=2)
        out[name] = {"cut": cut, "end": state_of(run)}
        resumed = attached(name, ranks=2, seed=1)
        load_(resumed, torch.load(Path(folder) / f"{name}.pt", weights_only=True))
        steps(resumed, CUT, STEPS, rank=rank, ranks=2)
        out[name]["resumed"] = state_of(resumed)
    return out


def masks_of(state: dict[str, Any]) -> dict[str, Tensor]:
    engine = state["engine"]
    return engine.get("sparsifier", engine)["masks"]


def assert_same_network(state: dict[str, Any], run: Run) -> None:
    for name, mask in masks_of(state).items():
        assert torch.equal(mask, run[2].masks[name]), name
    for name, tensor in run[0].state_dict().items():
        torch.testing.assert_close(state["model"][name], tensor, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of one process and of two ranks, for every method; the two start from the one's cut too."""
    folder = tmp_path_factory.mktemp("fsdp")
    alone = {}
    for name in NAMES:
        run = attached(name, ranks=1)
        steps(run, 0, CUT)
        torch.save(state_of(run), folder / f"{name}.pt")
        steps(run, CUT, STEPS)
        alone[name] = run
    (folder / "ranks").mkdir()
    first, second = on_ranks(folder / "ranks", train_on_ranks, str(folder))
    for name in NAMES:  # a state is whole, so it is the same on both ranks
        for key, mask in masks_of(first[name]["end"]).items():
            assert torch.equal(mask, masks_of(second[name]["end"])[key])
    return alone, first


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_end_with_the_network_of_one_process(name: str, results: Any) -> None:
    alone, ranks = results
    assert_same_network(ranks[name]["end"], alone[name])
    kept = sum(int(mask.sum()) for mask in masks_of(ranks[name]["end"]).values())
    assert kept == ROWS[name].kept(STEPS)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_two_ranks_continues_on_one(name: str, results: Any) -> None:
    _, ranks = results
    run = attached(name, ranks=1, seed=1)
    load_(run, ranks[name]["cut"])
    steps(run, CUT, STEPS)
    assert_same_network(ranks[name]["end"], run)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_one_process_continues_on_two_ranks(name: str, results: Any) -> None:
    alone, ranks = results
    assert_same_network(ranks[name]["resumed"], alone[name])


def parts(rank: int) -> dict[str, Any]:
    """Many small claims in one group, as starting it costs seconds."""
    return {
        "tampered": tampered(rank, "mask"),
        "draws": tampered(rank, "generator"),
        "plain masks": tampered(rank, "moving"),
        "options": options(rank),
        "algebra": algebra(rank),
        "regularizers": regularizers(rank),
        "zeros": zeros(rank),
        "refused": refused(rank),
        "nan": not_finite(rank),
    }


def tampered(rank: int, what: str) -> str:
    model = shard(mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = st.methods.set(sparsity=0.5, total_steps=20, update_every=2)
    sparsifier = st.Sparsifier(model, optimizer, Moving() if what == "moving" else method)
    x, y = batch()
    for step in range(1, 6):
        if rank == 1 and step == 3:
            if what == "mask":
                sharded.local(sparsifier.masks["2.weight"])[0, 0] ^= True
            else:
                sparsifier._generator.manual_seed(77)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        try:
            optimizer.step()
        except RuntimeError as error:
            return str(error)
    return ""


OPTIONS: dict[str, dict[str, Any]] = {
    "rigl": {"pattern": "channel", "sparsity": 0.5},
    "gmp": {"pattern": "channel", "sparsity": 0.3, "scope": "layer"},
    "set": {"drop": "set", "growth": "random-unfired", "revive": False},
    "itop": {"drop": "threshold", "threshold": 0.05, "redistribution": "magnitude"},
    "granet": {"compat": "paper"},
    "snfs": {"drop": "taylor", "redistribution": "nonzeros", "revive": False},
    "static": {"start_mask": "pruned-global"},
}


def with_options(name: str, *, ranks: int, rank: int = 0) -> dict[str, Any]:
    model = network()
    if ranks > 1:
        shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    options = {"sparsity": 0.8, **OPTIONS[name]}
    method = st.methods.create(name, total_steps=STEPS, **options)
    engine = st.Sparsifier(model, optimizer, method)
    run = (model, optimizer, engine)
    steps(run, 0, STEPS, rank=rank, ranks=ranks)
    return {"masks": sharded.full_state(engine.masks), "summary": engine.summary()}


def options(rank: int) -> dict[str, Any]:
    return {name: with_options(name, ranks=2, rank=rank) for name in OPTIONS}


def tied_scores(*, ranks: int) -> dict[str, Tensor]:
    """Few values, so that many are equal; seven rows and one row leave ranks uneven and empty."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"a": (7, 5), "b": (1, 4), "c": (6, 3, 2)}
    out = {n: torch.randint(-2, 3, s, generator=generator) * 0.5 for n, s in shapes.items()}
    out["c"] = out["c"].to(torch.float64)
    if ranks == 1:
        return out
    holder = nn.ParameterDict({n: nn.Parameter(t, requires_grad=False) for n, t in out.items()})
    shard(holder)
    return {name: p.detach() for name, p in holder.items()}


def cuts(scores: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    every = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    out = [st.masks.keep_global(scores, count) for count in (0, 1, 20, 33, 74, 75)]
    half = st.masks.keep_global(scores, 40)
    out += [half, st.masks.keep_global(scores, 17, within=half)]
    out.append(st.masks.keep_layerwise(scores, {"a": 9, "b": 3, "c": 0}))
    out.append(st.masks.drop(half, scores, dict.fromkeys(scores, 1)))
    out.append(st.masks.grow(half, scores, {"a": 3, "b": 0, "c": 2}, allowed=every))
    out.append(st.masks.keep_global_strict(scores, 30))
    return [sharded.full_state(masks) for masks in out]


def algebra(rank: int) -> list[dict[str, Tensor]]:
    return cuts(tied_scores(ranks=2))


def regularizers(rank: int) -> dict[str, Any]:
    out = {}
    for regularizer in (st.HyperSparse(0.7), st.L1(), st.L2()):
        model = shard(network())
        weights = st.select(model)
        grads = sharded.full_state(regularizer.grad(weights))
        loss = regularizer.loss(weights)
        loss.backward()
        second = {name: sharded.full(p.grad) for name, p in weights.items() if p.grad is not None}
        name = type(regularizer).__name__
        out[name] = {"grad": grads, "loss": loss.detach(), "backward": second}
    return out


def zeros(rank: int) -> dict[str, bool]:
    """Pruned weights and state of every optimizer of torch that FSDP2 takes."""
    out = {}
    for name, make in {
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
        "adam-fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    }.items():
        model = shard(network())
        optimizer = make(model.parameters())
        method = st.methods.rigl(sparsity=0.8, total_steps=STEPS)
        engine = st.Sparsifier(model, optimizer, method)
        steps((model, optimizer, engine), 0, STEPS, rank=rank, ranks=2)
        state = sharded.optimizer_state(optimizer)["state"]
        index = {id(p): i for i, p in enumerate(model.parameters())}
        out[name] = all(
            not sharded.full(p)[~sharded.full(engine.masks[n])].any()
            and not any(
                value[~sharded.full(engine.masks[n])].any()
                for value in state[index[id(p)]].values()
                if value.shape == p.shape
            )
            for n, p in st.select(model).items()
        )
    return out


def refused(rank: int) -> list[str]:
    from torch.distributed.tensor import Shard, distribute_tensor

    messages = []
    model = shard(mlp())
    try:
        st.saliency.synflow(model, nn.functional.cross_entropy, [batch()], 0.5)
    except ValueError as error:
        messages.append(str(error))
    mesh = next(model.parameters()).device_mesh  # type: ignore[attr-defined]
    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [Shard(1)]))
    try:
        st.Sparsifier(model, torch.optim.SGD(model.parameters()), st.methods.static(sparsity=0.5))
    except ValueError as error:
        messages.append(str(error))
    return messages


def not_finite(rank: int) -> str:
    """The bad weight is on rank 1 alone; both must stop, or one would wait for ever."""
    model = shard(mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rows = sharded.local(st.select(model)["2.weight"].grad)  # type: ignore[arg-type]
    if rank == 1:
        rows[0] = torch.inf
    optimizer.step()
    try:
        sparsifier.check_finite()
    except FloatingPointError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(tmp_path_factory.mktemp("claims"), parts)


def test_a_rank_that_changes_its_rows_is_named_with_the_layer(claims: Any) -> None:
    for found in claims:
        assert "step 4: rank 1 has changed its rows of layer '2.weight'" in found["tampered"]


def test_a_rank_that_draws_otherwise_is_named_with_the_layer(claims: Any) -> None:
    for found in claims:
        assert "step 4: rank 1 disagrees with rank 0 on random draws" in found["draws"]
        assert "step 4: rank 1 disagrees with rank 0 on layer '0.weight'" in found["plain masks"]


@pytest.mark.parametrize("name", OPTIONS)
def test_options_give_the_masks_of_one_process(name: str, claims: Any) -> None:
    alone = with_options(name, ranks=1)
    for found in claims:
        assert found["options"][name]["summary"] == alone["summary"]
        for layer, mask in alone["masks"].items():
            assert torch.equal(mask, found["options"][name]["masks"][layer]), layer


def test_the_mask_algebra_is_that_of_whole_tensors_ties_too(claims: Any) -> None:
    for found in claims:
        for alone, ranks in zip(cuts(tied_scores(ranks=1)), found["algebra"], strict=True):
            assert all(torch.equal(mask, ranks[name]) for name, mask in alone.items())


@pytest.mark.parametrize("regularizer", [st.HyperSparse(0.7), st.L1(), st.L2()])
def test_the_regularizer_is_that_of_one_process(regularizer: Any, claims: Any) -> None:
    weights = st.select(network())
    for found in claims:
        ranks = found["regularizers"][type(regularizer).__name__]
        torch.testing.assert_close(ranks["loss"], regularizer.loss(weights).detach())
        for name, grad in regularizer.grad(weights).items():
            torch.testing.assert_close(ranks["grad"][name], grad)
            torch.testing.assert_close(ranks["backward"][name], grad)


def test_pruned_weights_and_their_state_stay_zero(claims: Any) -> None:
    for found in claims:
        assert all(found["zeros"].values()), found["zeros"]


def test_what_needs_the_whole_model_is_refused(claims: Any) -> None:
    for scores, columns in (found["refused"] for found in claims):
        assert "before fully_shard" in scores
        assert "Shard(0)" in columns


def test_a_weight_that_is_not_finite_stops_all_ranks(claims: Any) -> None:
    for found in claims:
        assert "step 1, in 2.weight" in found["nan"]
