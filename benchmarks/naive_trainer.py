"""A trainer written as the published ones are: the baseline of `benchmarks/art_epoch.py`.

Images are decoded and augmented one by one through PIL, the regulariser sorts all weights at every
step and goes through autograd, masks are multiplied in a loop, accuracy is read back with
`.item()` after every step, and everything is in float32. Nothing is slowed down on purpose.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset


class Images(TorchDataset):  # pyright: ignore[reportMissingTypeArgument]
    """uint8 [N, H, W, 3] images, decoded, cropped, flipped and normalised one at a time."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, mean: Tensor, std: Tensor) -> None:
        self.pixels, self.labels = pixels, labels
        self.mean, self.std = mean.view(3, 1, 1), std.view(3, 1, 1)
        self.augment = True

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.pixels[index])
        if self.augment:
            padded = Image.new("RGB", (image.width + 8, image.height + 8))
            padded.paste(image, (4, 4))
            left, top = random.randint(0, 8), random.randint(0, 8)
            image = padded.crop((left, top, left + image.width, top + image.height))
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
        return (values - self.mean) / self.std, int(self.labels[index])


def weights_of(model: nn.Module) -> list[Tensor]:
    return [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def hypersparse_loss(model: nn.Module, sparsity: float) -> Tensor:
    """The published loss: all weights sorted, then differentiated by autograd."""
    w = torch.cat([weight.view(-1) for weight in weights_of(model)]).abs()
    border = torch.sort(w.detach()).values[int(sparsity * len(w))]
    bent = torch.tanh(w * (0.6585 / border)).sum()
    return (w * (bent / bent.detach())).sum() - w.sum()


class NaiveTrainer:
    """Plain SGD on a model, with or without the regulariser, with or without masks."""

    def __init__(self, model: nn.Module, images: Images, *, batch_size: int, lr: float) -> None:
        self.model, self.images, self.batch_size = model, images, batch_size
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4, foreach=False
        )
        self.masks: list[Tensor] | None = None
        self.correct = 0

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless shuffled batches."""
        while True:
            yield from DataLoader(self.images, self.batch_size, shuffle=True, drop_last=True)

    def step(self, batch: tuple[Tensor, Tensor], *, sparsity: float, strength: float) -> float:
        """One training step; returns the loss."""
        images, labels = batch
        self.optimizer.zero_grad()
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels)
        if strength:
            loss = loss + strength * hypersparse_loss(self.model, sparsity)
        loss.backward()
        self.optimizer.step()
        if self.masks is not None:
            for weight, mask in zip(weights_of(self.model), self.masks, strict=True):
                weight.data = weight.data * mask
        self.correct += (logits.argmax(1) == labels).sum().item()
        return loss.item()

    def pruned_copy(self, sparsity: float) -> nn.Module:
        """A copy of the whole model with the smallest weights at zero."""
        pruned = copy.deepcopy(self.model)
        weights = weights_of(pruned)
        flat = torch.cat([w.detach().abs().view(-1) for w in weights])
        border = torch.sort(flat).values[int(sparsity * len(flat))]
        for weight in weights:
            weight.data = weight.data * (weight.data.abs() > border).float()
        return pruned

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batches: int) -> float:
        """Accuracy over the first batches."""
        model.eval()
        right, loader = 0, DataLoader(self.images, self.batch_size)
        for _, (images, labels) in zip(range(batches), loader, strict=False):
            right += (model(images).argmax(1) == labels).sum().item()
        model.train()
        return right / (batches * self.batch_size)
