"""ONNX: the same logits in ONNX Runtime at every batch and size; one sentence without the extra."""

from __future__ import annotations

import importlib.util

import pytest
import torch

import sparsetrain as st

HERE = all(importlib.util.find_spec(n) for n in ("onnx", "onnxscript", "onnxruntime"))
needs_extra = pytest.mark.skipif(not HERE, reason="the optional extra onnx is not installed")


@needs_extra
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "channels", "size", "sizes"),
    [
        ("resnet8", 3, 32, [(32, 32), (16, 16), (33, 47), (64, 64)]),
        ("vgg11", 3, 32, [(32, 32), (16, 16), (33, 47)]),
        ("lenet5", 1, 28, [(28, 28)]),
        ("lenet-300-100", 1, 28, [(28, 28)]),
    ],
)
def test_onnx_runtime_gives_pytorch_s_logits(tmp_path, name, channels, size, sizes):
    import onnxruntime

    model = st.models.create(name, in_channels=channels, image_size=size)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    masks = {name: torch.rand(w.shape) < 0.1 for name, w in st.select(model).items()}
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    path, images = tmp_path / "net.onnx", torch.zeros(2, channels, size, size)
    assert st.compress.export_onnx(model, masks, path, images=images) == path.stat().st_size
    assert model.training and all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    model.load_state_dict(st.compress.fold(before, masks))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3, 64):
        for height, width in sizes:
            x = torch.randn(batch, channels, height, width)
            expected = model.eval()(x).detach()
            logits = torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
            assert (logits - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model = st.models.create("lenet-300-100", in_channels=1, image_size=8)
    with pytest.raises(ValueError, match=r"pip install 'sparsetrain\[onnx\]'"):
        st.compress.export_onnx(model, {}, tmp_path / "x", images=torch.zeros(2, 1, 8, 8))
    assert not list(tmp_path.iterdir())


def test_free_image_sizes_are_found_by_trying():
    from sparsetrain.compress.onnx import takes_other_sizes

    free = {
        name: takes_other_sizes(st.models.create(name, image_size=32), torch.zeros(2, 3, 32, 32))
        for name in ("resnet8", "vgg11", "lenet5", "mlp")
    }
    assert free == {"resnet8": True, "vgg11": True, "lenet5": False, "mlp": False}
