"""What the tests of packed kernels share: every processor level, and closeness to float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch import Tensor

from sparsetrain.kernels import native

CLOSE = 1e-5
built = pytest.mark.skipif(
    not native.PATH.exists() or native.library() is None,
    reason="the C++ kernels are not built or are switched off",
)


@pytest.fixture(params=["twin", "generic", "v3", "v4"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """PyTorch alone, and every level that this processor has."""
    if request.param == "twin":
        monkeypatch.setattr(native, "library", lambda: None)
        yield request.param
        return
    library, wanted = native.library(), {"generic": 0, "v3": 3, "v4": 4}[request.param]
    if library is None or library.st_use_level(wanted) != wanted:
        pytest.skip(f"this processor or build has no {request.param}")
    yield request.param
    library.st_use_level(4)


def assert_close(actual: Tensor, expected: Tensor, what: str) -> None:
    """The largest difference is below 1e-5 of the largest value."""
    assert actual.shape == expected.shape
    if expected.numel():
        error = (actual.double() - expected).abs().max()
        assert error <= CLOSE * expected.abs().max() + 1e-30, what
