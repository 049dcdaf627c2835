"""Where a run computes: devices by name, threads by the size of a step."""

from __future__ import annotations

import pytest
import torch

from sparsetrain.training.config import RunConfig
from sparsetrain.training.device import cpu_threads, determinism, place
from sparsetrain.training.errors import BadInput


def test_a_small_step_takes_one_thread_and_a_large_one_torch_s_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with cpu_threads(None, step_flops=10**6) as chosen:
            assert chosen == torch.get_num_threads() == 1
        with cpu_threads(None, step_flops=10**10) as chosen:
            assert chosen == torch.get_num_threads() == 2
        with cpu_threads(1, step_flops=10**10) as chosen:
            assert chosen == torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_precision_asked_for_is_taken():
    assert place(RunConfig(device="cpu", precision="bf16")).bf16
    assert not place(RunConfig(device="cpu", precision="fp32")).bf16
    assert str(place(RunConfig(device="cpu", precision="fp32"))) == "cpu fp32"


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_bad_input(name):
    with pytest.raises(BadInput, match="device"):
        place(RunConfig(device=name))


def test_determinism_is_put_back():
    with determinism(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
