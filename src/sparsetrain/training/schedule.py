"""Learning rate as a function of the place in a phase."""

from __future__ import annotations

import math

from .config import OptimConfig


def warmed(optim: OptimConfig, step: int, steps: int) -> float:
    """The factor of the learning rate while it warms up.

    Args:
        step: steps of the run already taken.
        steps: steps of an epoch.
    Returns:
        (step + 1) / (w + 1) in the first w = round(warmup steps) steps, then 1.
    Source: Goyal et al. 2017, arXiv 1706.02677, section 2.2; of one step an epoch these are the
        values of GraNet's ImageNet code.
    """
    return min(1.0, (step + 1) / (round(optim.warmup * steps) + 1))


def rate(optim: OptimConfig, step: int, steps: int) -> float:
    """The learning rate of one optimizer step.

    Args:
        optim: `lr`, `schedule`, `milestones` (fractions of the phase) and `lr_decay`.
        step: steps of this phase already taken, 0 <= step < steps.
        steps: steps of the whole phase.
    Returns:
        `lr` for constant; for step, `lr` times `lr_decay` for each milestone reached; for cosine,
        lr (1 + cos(pi step / steps)) / 2, so the last step is just above 0.
    Source: cosine: Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts.
    """
    if optim.schedule == "cosine":
        return optim.lr * (1 + math.cos(math.pi * step / steps)) / 2
    if optim.schedule == "step":
        # In whole steps: 0.7 * 10 is 7.000000000000001 or 6.999... depending on who multiplies.
        reached = sum(step >= round(m * steps) for m in optim.milestones)
        return optim.lr * optim.lr_decay**reached
    return optim.lr
