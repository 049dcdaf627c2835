"""Compressed files that are broken, hostile or of another network: one sentence, and no harm."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import sparsetrain as st
from sparsetrain.compress import layout


def model_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20), nn.Linear(20, 4))


@pytest.fixture
def path(tmp_path) -> Path:
    model = model_of()
    st.compress.save(model, st.prune(model, 0.9), tmp_path / "net")
    return tmp_path / "net"


def opened(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def forge(path: Path, change) -> None:
    """Change tensors and description, and sign the result as an attacker would."""
    stored, metadata = opened(path)
    packed = json.loads(metadata["packed"])
    change(stored, packed, metadata)
    if "packed" in metadata:
        metadata["packed"] = json.dumps(packed)
    metadata["sha256"] = layout.digest(metadata, stored)
    path.write_bytes(safetensors.torch.save(stored, metadata=metadata))


def loads_equal_or_refuses(path: Path, expected: dict[str, torch.Tensor]) -> bool:
    model = model_of(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        state = st.compress.read(path)
    except ValueError:
        with pytest.raises(ValueError) as refused:
            st.compress.load(path, model)
        assert "\n" not in str(refused.value)
        assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
        return False
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    return True


def test_a_truncated_file_is_refused_at_every_length(path):
    whole, expected = path.read_bytes(), st.compress.read(path)
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert not loads_equal_or_refuses(path, expected)
    path.write_bytes(whole + b"\0")
    assert not loads_equal_or_refuses(path, expected)


def test_a_flipped_bit_is_refused_wherever_it_is_or_changes_nothing(path):
    whole, expected = path.read_bytes(), st.compress.read(path)
    rng, refused = random.Random(0), 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        refused += not loads_equal_or_refuses(path, expected)
    assert refused > 250


def huge(stored, packed, metadata):
    packed["0.weight"]["shape"] = [2**30, 2**31]


def too_many_bits(stored, packed, metadata):
    packed["0.weight"]["low_bits"] = 63


def negative(stored, packed, metadata):
    packed["0.weight"]["shape"] = [-20, -30]


def fewer_values(stored, packed, metadata):
    stored["0.weight:values"] = stored["0.weight:values"][:-1].clone()


def more_values_than_places(stored, packed, metadata):
    stored["0.weight:values"] = torch.ones(601)


def all_ones(stored, packed, metadata):
    stored["0.weight:positions"] |= 255


def no_positions(stored, packed, metadata):
    del stored["0.weight:positions"]


def twice(stored, packed, metadata):
    stored["0.weight"] = torch.ones(20, 30)


def other_values(stored, packed, metadata):
    stored["0.weight:values"] = torch.ones(len(stored["0.weight:values"]), dtype=torch.int64)


def unknown_type(stored, packed, metadata):
    packed["0.weight"]["dtype"] = "object"


def later_version(stored, packed, metadata):
    metadata["version"] = "2"


def no_description(stored, packed, metadata):
    del metadata["packed"]


def deep_description(stored, packed, metadata):
    metadata["tied"] = "[" * 100_000


def list_of_names(stored, packed, metadata):
    metadata["tied"] = "[]"


def tied_to_nothing(stored, packed, metadata):
    metadata["tied"] = '{"a": "b"}'


def many_dimensions(stored, packed, metadata):
    packed["0.weight"]["shape"] = [1] * 100


HARM = [
    *(huge, too_many_bits, negative, fewer_values, more_values_than_places, all_ones),
    *(no_positions, twice, other_values, unknown_type, later_version, no_description),
    *(deep_description, list_of_names, tied_to_nothing, many_dimensions),
]


@pytest.mark.parametrize("change", HARM, ids=lambda f: f.__name__)
def test_a_forged_file_is_refused_before_memory_is_taken(path, change):
    expected = st.compress.read(path)
    forge(path, change)
    tracemalloc.start()
    refused = not loads_equal_or_refuses(path, expected)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused and peak < 3_000_000


def test_a_file_that_unpacks_to_more_than_allowed_is_refused(path):
    with pytest.raises(ValueError, match=r"unpacks to 3,\d\d\d bytes and max_bytes is 1,000"):
        st.compress.read(path, max_bytes=1000)

    def only_zeros(stored, packed, metadata):
        packed["0.weight"] |= {"shape": [2**30, 2**10], "lists": "kept", "low_bits": 0}
        stored["0.weight:values"] = torch.zeros(0)
        stored["0.weight:positions"] = torch.zeros(0, dtype=torch.uint8)

    forge(path, only_zeros)
    with pytest.raises(ValueError, match="raise it if you trust the file"):
        st.compress.read(path)
    with pytest.raises(ValueError, match=r"0.weight is \(1073741824, 1024\) there and \(20, 30\)"):
        st.compress.load(path, model_of())


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (nn.Sequential(nn.Linear(30, 20)), "weight', which the model does not have"),
        (nn.Sequential(nn.Linear(30, 20), nn.BatchNorm1d(20), nn.Linear(20, 5)), "2.weight is"),
        (nn.Sequential(*model_of(), nn.Linear(4, 4)), "it has no '3.weight' of the model"),
    ],
)
def test_another_network_is_refused_by_name_and_shape(path, model, sentence):
    with pytest.raises(ValueError) as refused:
        st.compress.load(path, model)
    assert sentence in str(refused.value)


def test_an_ordinary_safetensors_file_is_told_apart(path):
    path.write_bytes(safetensors.torch.save(model_of().state_dict()))
    with pytest.raises(ValueError, match=r"was not written by st.compress.save; load it with"):
        st.compress.read(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        st.compress.read(tmp_path / "none")


@pytest.mark.parametrize(
    ("masks", "sentence"),
    [
        ({"0.weigth": torch.ones(20, 30).bool()}, "Did you mean '0.weight'?"),
        ({"0.weight": torch.ones(30, 20).bool()}, r"must be bool of shape \(20, 30\)"),
        ({"0.weight": torch.ones(20, 30)}, "got torch.float32"),
    ],
)
def test_masks_of_another_model_are_refused_and_nothing_is_written(tmp_path, masks, sentence):
    with pytest.raises(ValueError, match=sentence):
        st.compress.save(model_of(), masks, tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_what_no_file_can_hold_is_refused(tmp_path):
    mask = {"w": torch.ones(2, 2).bool()}
    with pytest.raises(ValueError, match="too large for values='float16'; take 'bfloat16'"):
        st.compress.save({"w": torch.full((2, 2), 1e6)}, mask, tmp_path / "net", values="float16")
    with pytest.raises(ValueError, match="values must be None or one of float32"):
        st.compress.save({"w": torch.ones(2, 2)}, mask, tmp_path / "net", values="int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"w is torch.complex128"):
        st.compress.save({"w": torch.ones(2, 2, dtype=torch.complex128)}, mask, tmp_path / "net")
    with pytest.raises(ValueError, match="two tensors would be stored as 'w:values'"):
        clash = {"w": torch.zeros(50, 50), "w:values": torch.zeros(1)}
        st.compress.save(clash, {"w": torch.rand(50, 50) < 0.1}, tmp_path / "net")
    assert not list(tmp_path.iterdir())
