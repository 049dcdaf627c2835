"""Trained sparse networks give their logits when compiled, to 1e-5 of the largest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain.inference.choice import Choice

from .inference_tools import TOLERANCE, assert_same

# Side of the images, steps of training, sparsity.
NETS = {"resnet8": (8, 60, 0.9), "vgg11": (16, 30, 0.9), "mlp": (8, 300, 0.9)}


def digits(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalised images and labels, to train and to test."""
    data = st.data.load("digits")
    train, test = (
        F.interpolate(images.float().div(255).sub(0.3).div(0.35), size)
        for images in (data.train_images, data.test_images)
    )
    return train, data.train_labels, test, data.test_labels


@pytest.fixture(scope="module", params=NETS)
def trained(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """A network trained with a fixed mask for a few seconds, and the test images."""
    size, steps, sparsity = NETS[request.param]
    torch.manual_seed(0)
    images, labels, test, truth = digits(size)
    model = st.models.create(request.param, num_classes=10, in_channels=1, image_size=size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    st.Sparsifier(model, optimizer, st.methods.static(sparsity=sparsity))
    for _ in range(steps):
        batch = torch.randint(0, len(images), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = (model(test).argmax(1) == truth).float().mean()
    assert right > 0.7  # chance is 0.1: batch norms and weights are those of a training
    return model, test


@pytest.mark.parametrize("choice", ["sparse", "dense", "model"])
def test_logits_of_a_trained_network_equal_dense_pytorch_s(
    trained: tuple[nn.Module, Tensor], choice: Choice
) -> None:
    model, test = trained
    compiled = st.compile_sparse(model, test[:64], choice=choice)
    if choice == "sparse":
        assert {kind for _, kind in compiled.kernels()} == {"sparse"}
    for batch in (1, 64, 130):
        found = compiled(test[:batch])
        with torch.no_grad():
            wanted = model(test[:batch])
        assert (found - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
        assert_same(compiled, model, test[:batch])
