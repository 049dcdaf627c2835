"""Results are the caller's own: writing into them reaches no input, no weight, no other result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsetrain as st
from sparsetrain.inference import CompiledNetwork

from .inference_nets import trained_looking_


class Gives(nn.Module):
    """Gives what a function makes of the input, a linear layer's result and a parameter."""

    def __init__(self, makes: Callable[..., Any]) -> None:
        super().__init__()
        self.fc, self.makes = nn.Linear(8, 8), makes
        self.p = nn.Parameter(torch.randn(3, 8))

    def forward(self, x: Tensor) -> Any:
        return self.makes(x, self.fc(x), self.p)


RESULTS: dict[str, Callable[..., Any]] = {
    "copies": lambda x, y, p: (y, x.clone(), p),
    "one value twice": lambda x, y, p: (y, y.clone(), y.clone()),
    "views": lambda x, y, p: (y, y[:, :4], x.view(-1), p.t()),
    "part of a parameter": lambda x, y, p: p[:2].unsqueeze(0),
    "a parameter for each image": lambda x, y, p: p.expand(x.shape[0], 3, 8),
    "pieces": lambda x, y, p: (*x.chunk(2, 1), *y.chunk(2, 1)),
    "a computed constant": lambda x, y, p: (y, p * 2, (p * 2).view(-1)),
    "einsum": lambda x, y, p: (torch.einsum("bi->ib", x), torch.einsum("ij->ji", p)),
    "dropout": lambda x, y, p: (nn.functional.dropout(x, 0.5, training=False), torch.sigmoid(x)),
}


def compiled_for(makes: Callable[..., Any]) -> tuple[CompiledNetwork, nn.Module]:
    torch.manual_seed(0)
    model = trained_looking_(Gives(makes), sparsity=0.5)
    return st.compile_sparse(model, torch.randn(4, 8), choice="sparse"), model


def leaves(results: Any) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)


@pytest.mark.parametrize("results", RESULTS)
def test_writing_into_a_result_reaches_nothing_else(results: str) -> None:
    compiled, model = compiled_for(RESULTS[results])
    x = torch.randn(4, 8)
    with torch.no_grad():
        wanted = [result.clone() for result in leaves(model(x))]
    for place in range(len(wanted)):
        given = x.clone()
        found = leaves(compiled(given))
        found[place].fill_(7.0)
        assert torch.equal(given, x)
        for other in set(range(len(wanted))) - {place}:
            torch.testing.assert_close(found[other], wanted[other], rtol=1e-5, atol=1e-5)
        for one, other in zip(leaves(compiled(x)), wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_nothing_is_copied_that_is_the_networks_own_result() -> None:
    for makes in (lambda x, y, p: y, lambda x, y, p: (y + 1, y.view(-1), x), lambda x, y, p: y.t()):
        assert compiled_for(makes)[0]._shared == ()
