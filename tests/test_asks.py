"""docs/asks.md names tests that exist; the asks that no other file holds; old faults."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import sparsetrain as st

from .nets import batch, convnet, kept, mlp, train

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "asks.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_the_page_names_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not name or name in found


def test_the_page_answers_all_25_asks_and_its_links_lead_somewhere() -> None:
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", PAGE, flags=re.MULTILINE)] == [
        *range(1, 26)
    ]
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target


def test_every_fault_of_earlier_code_names_the_test_that_holds_it() -> None:
    rows = re.findall(r"^\| ([DH][DH\d, ]*) \| (.*) \|$", PAGE, flags=re.MULTILINE)
    found = [fault for names, _ in rows for fault in names.split(", ")]
    assert found == [f"D{n}" for n in (1, 2, 3, 7, 10, 12, 13)] + [
        f"H{n}" for n in (1, 2, 3, 4, 5, 6, 7, 12, 13, 16)
    ]
    assert all("`test_" in text for _, text in rows)


def sparse(model: nn.Module, sparsity: float = 0.5) -> tuple[torch.optim.Optimizer, st.Sparsifier]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return optimizer, st.Sparsifier(model, optimizer, st.methods.static(sparsity=sparsity))


def test_weights_load_both_ways_between_a_dense_and_a_sparse_run() -> None:
    model, dense = mlp(seed=0), mlp(seed=1)
    optimizer, sparsifier = sparse(model)
    dense.load_state_dict(model.state_dict())  # strict: every key, no other
    model.load_state_dict(mlp(seed=2).state_dict())
    sparsifier.apply_()
    train(model, optimizer, 1)
    assert all(not model.get_parameter(n)[~m].any() for n, m in sparsifier.masks.items())


def test_a_sparse_model_is_copied_pickled_and_averaged_like_any_other() -> None:
    model = convnet()
    optimizer, sparsifier = sparse(model)
    average = torch.optim.swa_utils.AveragedModel(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(
            torch.equal(a, b) for a, b in zip(twin.parameters(), model.parameters(), strict=True)
        )
    optimizer.zero_grad()
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    average.update_parameters(model)
    for name, mask in sparsifier.masks.items():
        assert not average.module.get_parameter(name)[~mask].any()


@pytest.mark.slow
def test_ranking_has_no_limit_at_two_to_the_24() -> None:
    n = 2**24 + 3
    scores = {"w": torch.arange(n, dtype=torch.float64)}
    mask = st.masks.keep_global(scores, 5)["w"]
    assert mask.nonzero().flatten().tolist() == [*range(n - 5, n)]


@pytest.mark.parametrize("dimensions", [1, 3])
def test_convolutions_of_one_and_three_dimensions_are_pruned(dimensions: int) -> None:
    kind = {1: nn.Conv1d, 3: nn.Conv3d}[dimensions]
    model = nn.Sequential(kind(2, 8, 3), nn.ReLU(), kind(8, 8, 3))
    _, sparsifier = sparse(model, 0.75)
    total = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert list(sparsifier.masks) == ["0.weight", "2.weight"]
    assert kept(sparsifier.masks) == st.masks.kept(total, 0.75)


def test_no_code_names_a_device_of_its_own() -> None:
    for path in (ROOT / "src" / "sparsetrain").rglob("*.py"):
        assert ".cuda(" not in path.read_text(), path


@pytest.mark.parametrize("sparsity", [0.29, 0.57, 0.9, 0.333])
def test_the_same_sparsity_asked_twice_changes_nothing(sparsity: float) -> None:
    model = mlp()
    first = st.prune(model, sparsity)
    weights = copy.deepcopy(model.state_dict())
    second = st.prune(model, sparsity)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("classes", "size"), [(200, 32), (37, 32), (10, 64), (200, 64)])
def test_vgg_takes_any_number_of_classes_at_any_size(classes: int, size: int) -> None:
    model = st.models.create("vgg11", num_classes=classes, in_channels=3, image_size=size)
    assert model.eval()(torch.zeros(1, 3, size, size)).shape == (1, classes)


def test_art_survives_a_first_pruned_accuracy_of_zero() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    art = st.ART(
        model,
        optimizer,
        sparsity=0.5,
        dense_epochs=0,
        finetune_epochs=1,
        max_regularize_epochs=3,
    )
    for accuracy in (0.0, 0.0, 0.0):
        train(model, optimizer, 1)
        art.epoch_end(0.9, lambda _, value=accuracy: value)
    assert art.phase == "finetune" and art.outcome == "cap"
    assert art.sparsity == pytest.approx(0.5)
    assert torch.isfinite(model(batch()[0])).all()
