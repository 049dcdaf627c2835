"""Networks that are no chain of convolutions, for the tests of compiled inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def trained_looking_(model: nn.Module, sparsity: float = 0.9) -> nn.Module:
    """Weights of usual size, zeros in random places, batch norms that matter; evaluation mode."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                fan = max(1, parameter[0].numel())
                parameter.normal_(std=(2 / fan / (1 - sparsity)) ** 0.5)
                parameter.mul_(torch.rand_like(parameter) >= sparsity)
            else:
                parameter.uniform_(-0.5, 1.5)
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.track_running_stats:
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.25, 2)
    return model.eval()


class Branches(nn.Module):
    """Parallel convolutions, a concatenation, SiLU, a sum of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same")
        self.left, self.right = nn.Conv2d(8, 8, (1, 5), padding=(0, 2)), nn.Conv2d(8, 8, 3, 1, 1)
        self.norm, self.head = nn.BatchNorm2d(24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        both = F.relu(self.left(x) + self.right(x))
        x = torch.cat([x, both, F.silu(self.left(both))], 1)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.norm(x)), 1).flatten(1))


class PreActivation(nn.Module):
    """Norm and ReLU before convolutions, an identity shortcut, a depthwise and a strided one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.dilated = nn.Conv2d(4, 6, 3, padding=2, dilation=2)
        self.uneven = nn.Conv2d(6, 6, 3, stride=(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        x = F.relu(self.depthwise(x))
        x = F.max_pool2d(F.relu(self.dilated(x)), 3, 2, 1)
        return self.uneven(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)).mean((2, 3))


class InPlace(nn.Module):
    """ReLU and sums in place, on values that others read before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.again, self.relu = nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True)
        self.fc = nn.Linear(6 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        y = self.again(x)
        y += x
        x = self.relu(y)
        z = x.view(x.size(0), x.size(1), 64)
        z.mul_(0.5)
        return self.fc(F.dropout(F.max_pool2d(x, 2), training=self.training).flatten(1))


class Shared(nn.Module):
    """One convolution called twice, one norm after both, a tied linear weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        x = F.relu(self.norm(self.conv(x))).mean((-2, -1))
        return self.second(F.relu(self.first(x)))


class ViTBlock(nn.Module):
    """Patches, attention, LayerNorm and a GELU layer on tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.place = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.zeros(1, 4, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(F.relu(x)).mean(1)


class TwoInputs(nn.Module):
    """Two inputs, one by name, and a dict of results, an input among them."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)

    def forward(self, x: Tensor, *, y: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        both = F.relu(self.image(x)).mean((2, 3)) + self.vector(y)
        return {"both": both * scale, "pair": (self.vector(y), y)}  # type: ignore[dict-item]


class ConvNorms(nn.Module):
    """ReLU6, a norm without running statistics, a transposed and a one-dimensional convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.instant = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
        self.up, self.line = nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv1d(4, 4, 3)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.instant(self.conv(x)))
        x = F.relu(self.norm(self.line(self.up(x).flatten(2))))
        return x.amax(2)


NETS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "branches": (Branches, (3, 7, 9)),
    "pre-activation": (PreActivation, (4, 12, 12)),
    "in-place": (InPlace, (3, 8, 8)),
    "shared": (Shared, (4, 6, 6)),
    "vit": (ViTBlock, (3, 8, 8)),
}
