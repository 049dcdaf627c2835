"""Weight norm: lengths stay dense, and no row comes to divide 0 by 0."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import sparsetrain as st
from sparsetrain.weight_norm import check_directions, directions

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


def old(dim: int | None = 0) -> nn.Sequential:
    first = nn.utils.weight_norm(nn.Linear(20, 50), dim=dim)  # pyright: ignore[reportArgumentType]
    return nn.Sequential(first, nn.ReLU(), nn.Linear(50, 10))


def new() -> nn.Sequential:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(20, 50)), nn.Linear(50, 10))


def attach(
    model: nn.Module, masks: dict[str, torch.Tensor]
) -> tuple[torch.optim.SGD, st.Sparsifier]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = st.methods.static(masks=masks)
    return optimizer, st.Sparsifier(model, optimizer, method, include=list(masks))
    return optimizer


def test_the_length_stays_dense_in_both_forms() -> None:
    assert list(st.select(old())) == ["0.weight_v", "2.weight"]
    assert list(st.select(new())) == ["1.weight"]
    name = "0.parametrizations.weight.original1"
    assert list(st.select(new(), include=[name, "1.*"])) == [name, "1.weight"]
    assert list(st.select(old(), include="0.weight_g")) == ["0.weight_g"]  # by its exact name


@pytest.mark.parametrize(
    ("make", "name"), [(old, "0.weight_v"), (new, "0.parametrizations.weight.original1")]
)
def test_masks_without_a_weight_in_a_row_are_refused_and_all_others_train(
    make: Callable[[], nn.Module], name: str
) -> None:
    model = make()
    mask = torch.rand(50, 20) < 0.1
    mask[:, 3] = True
    optimizer, sparsifier = attach(model, {name: mask})
    model(torch.randn(8, 20)).square().sum().backward()
    optimizer.step()
    weight = model.get_submodule("0").weight
    assert isinstance(weight, torch.Tensor) and torch.equal(weight != 0, mask)
    sparsifier.finalize()
    mask[7] = mask[9] = False
    with pytest.raises(ValueError, match=rf"2 rows of {name} without a weight left"):
        attach(model, {name: mask})


def test_an_update_that_empties_a_row_says_so_instead_of_becoming_nan() -> None:
    model = old()
    with torch.no_grad():
        model.get_parameter("0.weight_v")[4].mul_(1e-3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.magnitude(0.9, 2, at=0.5))
    assert sparsifier.sparsity == 0
    model(torch.randn(8, 20)).sum().backward()
    with pytest.raises(ValueError, match=r"rows? of 0\.weight_v without a weight left"):
        optimizer.step()


def test_one_shot_pruning_leaves_the_model_alone_then() -> None:
    model = old()
    before = model.get_parameter("0.weight_v").detach().clone()
    with pytest.raises(ValueError, match=r"0\.weight_v without a weight left"):
        st.prune(model, 0.99)
    assert torch.equal(model.get_parameter("0.weight_v"), before)


@pytest.mark.parametrize(("dim", "normed"), [(0, (1,)), (1, (0,)), (None, (0, 1))])
def test_rows_are_those_that_torch_norms(dim: int | None, normed: tuple[int, ...]) -> None:
    model = old(dim)
    found = directions(model, st.select(model))
    assert found == {"0.weight_v": normed}
    mask = torch.zeros(50, 20, dtype=torch.bool)
    mask[:, 0] = True
    with torch.no_grad():
        model.get_parameter("0.weight_v").mul_(mask)
    is_nan = not bool(torch.isfinite(model(torch.ones(1, 20))).all())
    assert is_nan == (dim == 1)
    if is_nan:
        with pytest.raises(ValueError, match=r"19 rows of 0\.weight_v without"):
            check_directions({"0.weight_v": mask}, found)
    else:
        check_directions({"0.weight_v": mask}, found)
