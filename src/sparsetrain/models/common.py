"""What the networks share: size checks, He initialisation, global average pooling."""

from __future__ import annotations

from numbers import Integral
from typing import Literal

from torch import Tensor, nn


def whole(name: str, value: object, *, minimum: int = 1, hint: str = "") -> int:
    """`value` as an int, once it is known to be a whole number and large enough.

    Args:
        name: the argument's name, for the message.
        value: what the caller gave; NumPy integers count as whole numbers, bools do not.
        minimum: smallest value allowed.
        hint: reason and next move, added to the message.

    Returns:
        The same number as a Python int.

    Raises:
        ValueError: not a whole number, or below `minimum`.
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= minimum:
        return int(value)
    tail = f" {hint}" if hint else ""
    raise ValueError(f"{name} must be a whole number >= {minimum}, got {value!r}.{tail}")


def he_init_(model: nn.Module, *, fan: Literal["fan_in", "fan_out"]) -> None:
    """Initialise in place as the papers' CIFAR networks do.

    Convolutions N(0, 2 / fan), linear layers N(0, 0.01²), every bias 0; batch norms keep
    torch's scale 1 and shift 0. Draws from torch's global generator, in module order.

    Args:
        model: network whose parameters are overwritten.
        fan: k² · C_in ("fan_in") or k² · C_out ("fan_out") of a k × k convolution.

    Source: He et al. 2015, arXiv 1502.01852, eq. 10 and 14.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


class GlobalAverage(nn.Module):
    """Mean over whatever map is left: [N, C, H, W] -> [N, C], in any memory format."""

    def forward(self, x: Tensor) -> Tensor:
        """Average over height and width."""
        return x.mean((2, 3))
