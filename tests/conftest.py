"""One thread a test process: `pytest -n 2` fills two cores without the two fighting."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("quick", max_examples=25, deadline=None)
settings.load_profile("quick")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
