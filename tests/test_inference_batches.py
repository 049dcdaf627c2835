"""Models that compute otherwise for some batches give their own results or refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsetrain as st

from .inference_nets import trained_looking_
from .inference_tools import assert_same


class Forks(nn.Module):
    """Twice a linear layer for some batches."""

    def __init__(self, twice: Callable[[int], bool]) -> None:
        super().__init__()
        self.fc, self.twice = nn.Linear(8, 8), twice

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * 2 if self.twice(x.shape[0]) else self.fc(x)


FORKS: dict[str, Callable[[int], bool]] = {
    "more than 8": lambda n: n > 8,
    "less than 100": lambda n: n < 100,
    "even": lambda n: n % 2 == 0,
    "one": lambda n: n == 1,
    "none": lambda n: n == 0,
    "more than one": lambda n: n > 1,
    "thirteen": lambda n: n == 13,
    "not seven": lambda n: n != 7,
    "three or more than twelve": lambda n: n == 3 or n > 12,
}


@pytest.mark.parametrize("example", [1, 4, 13])
@pytest.mark.parametrize("fork", FORKS)
def test_the_result_is_the_models_for_every_batch_that_is_taken(fork: str, example: int) -> None:
    model = trained_looking_(Forks(FORKS[fork]), sparsity=0.5)
    compiled = st.compile_sparse(model, torch.randn(example, 8), choice="sparse")
    assert_same(compiled, model, torch.randn(example, 8))
    for batch in (0, 1, 2, 3, 7, 8, 9, 12, 13, 99, 100):
        try:
            compiled(torch.randn(batch, 8))
        except ValueError as error:
            assert "Compile" in str(error)
        else:
            assert_same(compiled, model, torch.randn(batch, 8))


def test_other_batches_are_refused_only_where_the_model_asks_for_the_batch() -> None:
    free, forks = Forks(lambda n: False), Forks(FORKS["more than 8"])
    compiled = st.compile_sparse(trained_looking_(free), torch.randn(4, 8), choice="sparse")
    for batch in (0, 1, 2, 9, 64):
        assert_same(compiled, free, torch.randn(batch, 8))
    compiled = st.compile_sparse(trained_looking_(forks), torch.randn(4, 8), choice="sparse")
    with pytest.raises(ValueError, match=r"computes depends on the batch\. Compile the network"):
        compiled(torch.randn(5, 8))


class Squeezes(nn.Module):
    """A squeeze that takes away a batch of one too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.conv(x), 1).squeeze())


def test_one_image_alone_is_refused_where_the_model_treats_it_otherwise() -> None:
    model = trained_looking_(Squeezes(), sparsity=0.5)
    compiled = st.compile_sparse(model, torch.randn(4, 3, 5, 5))
    for batch in (2, 4, 17):
        assert_same(compiled, model, torch.randn(batch, 3, 5, 5))
    for call in (lambda: compiled(torch.randn(1, 3, 5, 5)), lambda: compiled.kernels(1)):
        with pytest.raises(ValueError, match="for a batch of 1 is another network"):
            call()
    alone = st.compile_sparse(model, torch.randn(1, 3, 5, 5))
    assert_same(alone, model, torch.randn(1, 3, 5, 5))


class Hides(nn.Module):
    """Computes something else while it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if torch.compiler.is_compiling() else self.fc(x) * 2


def test_a_trace_that_is_not_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="gives other results than Hides itself"):
        st.compile_sparse(trained_looking_(Hides()), torch.randn(4, 8))


class Compares(nn.Module):
    """Compares the batches of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(x) * (1 if x.shape[0] <= y.shape[0] else 2) + y.sum()


def test_batches_that_the_model_compares_must_be_one() -> None:
    model = trained_looking_(Compares(), sparsity=0.5)
    compiled = st.compile_sparse(model, (torch.randn(4, 8), torch.randn(4, 8)), choice="sparse")
    for batch in (1, 4, 9):
        assert_same(compiled, model, torch.randn(batch, 8), torch.randn(batch, 8))
    with pytest.raises(ValueError, match="with the batch 6 of the other inputs"):
        compiled(torch.randn(6, 8), torch.randn(3, 8))
