"""Networks of timm, by a stand-in of that name: what it is asked for, and what is said without."""

from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType

import pytest
from torch import Tensor, nn

from sparsetrain import cli, models
from tests.sweep_tools import make_runs_quick


class Transformer(nn.Module):
    """Made for one image size, as timm's vision transformers are."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, img_size: int = 224) -> None:
        super().__init__()
        if img_size % 4:
            raise AssertionError(f"{img_size} is no multiple of the patch size 4")
        self.patch_embed = nn.Conv2d(in_chans, 16, 4, 4)
        self.head = nn.Linear(16 * (img_size // 4) ** 2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.patch_embed(images).flatten(1))


class Convolutions(nn.Module):
    """Takes any size, and refuses to be told one."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 16, 3, 2)
        self.head = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).mean((2, 3)))


KNOWN = {"vit_nano": Transformer, "convnet_nano": Convolutions}


@pytest.fixture
def timm(monkeypatch):
    """The two functions of timm that are used, as its documentation has them."""

    def create_model(name, *, pretrained=False, **options):
        assert not pretrained
        return KNOWN[name.partition(".")[0]](**options)

    fake = ModuleType("timm")
    vars(fake).update(create_model=create_model, list_models=lambda: sorted(KNOWN))
    monkeypatch.setitem(sys.modules, "timm", fake)


@pytest.mark.parametrize("name", ["vit_nano", "vit_nano.some_tag", "convnet_nano"])
def test_a_network_of_timm_is_built_for_the_images(timm, name):
    model = models.create(f"timm:{name}", num_classes=7, in_channels=1, image_size=8)
    kind = KNOWN[name.partition(".")[0]]
    assert isinstance(model, kind)
    assert model.head.out_features == 7
    assert next(model.parameters()).shape[1] == 1
    if kind is Transformer:
        assert model.head.in_features == 16 * 4


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: models.check("timm:vit_nanu"), "timm has no network 'vit_nanu'. Did you mean vit"),
        (lambda: models.check("timm:vit_nano", width=2), "unknown option 'width': timm:vit_nano"),
        (
            lambda: models.create("timm:vit_nano", image_size=10),
            "timm cannot build vit_nano for 3 x 10 x 10 images: 10 is no multiple",
        ),
    ],
)
def test_what_timm_has_not_is_one_sentence(timm, make, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModuleNotFoundError("No module named 'timm'", name="timm"), "pip install timm"),
        (ModuleNotFoundError("No module named 'x'", name="x"), "cannot be imported (No module"),
        (RuntimeError("operator torchvision::nms does not exist"), "torchvision is for another"),
    ],
)
def test_without_timm_a_run_ends_with_one_sentence(monkeypatch, capsys, tmp_path, error, sentence):
    real = importlib.import_module

    def absent(name, package=None):
        if name == "timm":
            raise error
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--model", "timm:vit_nano", "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "model timm:vit_nano needs timm" in line and sentence in line
    assert not (tmp_path / "runs").exists()


def test_one_is_trained_sparse_by_its_name(timm, monkeypatch, tmp_path, capsys):
    make_runs_quick(monkeypatch, tmp_path)
    words = "train --model timm:vit_nano --method granet --epochs 2 --sparsity 0.75 --device cpu"
    assert cli.main([*words.split(), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["kept_weights"] == record["prunable_weights"] // 4
    (folder,) = (tmp_path / "runs").iterdir()
    assert "timm-vit_nano" in folder.name and ":" not in folder.name
