"""Where a run stands: everything that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .best import Best
from .config import TrainConfig
from .flops import ForwardFlops, count_forward
from .session import Session
from .totals import Totals


@dataclass
class RunState:
    """A run between two epochs.

    Attributes:
        flops: of the dense forward pass.
        epoch: epochs finished.
        totals: sums over them.
        best: by held-out images, or by the test set under `compat: paper`.
    """

    config: TrainConfig
    session: Session
    flops: ForwardFlops
    epoch: int = 0
    totals: Totals = field(default_factory=Totals)
    best: Best | None = None

    @classmethod
    def fresh(cls, config: TrainConfig, session: Session) -> RunState:
        """Before the first epoch."""
        return cls(config, session, count_forward(session.model, session.image))

    @property
    def paper(self) -> bool:
        """Whether the test set is read every epoch."""
        return self.config.sparse.compat == "paper"

    @property
    def end(self) -> int:
        """Epochs of the whole run, or the most it can take as far as is known."""
        return self.session.plan.end_after(self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings and containers of them."""
        cuda = self.session.place.device.type == "cuda"
        return {
            "epoch": self.epoch,
            "model": self.session.model.state_dict(),
            "optimizer": self.session.optimizer.state_dict(),
            "plan": self.session.plan.state_dict(),
            "totals": self.totals.state_dict(),
            "best": None if self.best is None else self.best.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if cuda else [],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.session.model.load_state_dict(state["model"])
        # The plan first: ART's fine-tuning attaches another engine to the optimizer.
        self.session.optimizer.load_state_dict(state["optimizer"])
        self.session.plan.load_state_dict(state["plan"])
        self.epoch = state["epoch"]
        self.totals = Totals(**state["totals"])
        self.best = None if state["best"] is None else Best(**state["best"])
        torch.set_rng_state(state["rng"])
        if state["rng_cuda"]:
            torch.cuda.set_rng_state_all(state["rng_cuda"])
