"""Where a run stands: everything that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import sharded
from .average import Average
from .best import Best
from .config import TrainConfig
from .errors import BadInput
from .flops import ForwardFlops
from .session import Session
from .sums import Sums
from .totals import Totals
from .tracing import Tracer
from .work import Work

VERSION = 1  # of a checkpoint's layout


@dataclass
class RunState:
    """A run between two batches.

    Attributes:
        flops: of the dense forward pass.
        epoch: epochs finished.
        totals: sums over them.
        best: by held-out images, or by the test set under `compat: paper`.
        history: the lines of metrics.jsonl.
        batch: batches of the unfinished epoch that were trained on, skipped ones included.
        sums: over them.
        begun: what held when that epoch began; empty before its first batch.
        work: of that epoch's steps.
        tracer: of the run's course; None where it is not kept.
        average: of the weights; None where none is asked for.
    """

    config: TrainConfig
    session: Session
    flops: ForwardFlops
    epoch: int = 0
    totals: Totals = field(default_factory=Totals)
    best: Best | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    batch: int = 0
    sums: Sums = field(init=False)
    work: Work = field(init=False)
    begun: dict[str, float] = field(default_factory=dict)
    tracer: Tracer | None = None
    average: Average | None = None

    def __post_init__(self) -> None:
        self.sums = Sums(self.session.place.device)
        self.work = Work(self.session.plan)

    @classmethod
    def fresh(cls, config: TrainConfig, session: Session) -> RunState:
        """Before the first epoch."""
        traced = config.run.trace and session.place.world.mode != "fsdp"
        tracer = Tracer(config, session) if traced else None
        decay = config.optim.ema
        average = None if decay is None else Average(session.model, decay)
        return cls(config, session, session.flops, tracer=tracer, average=average)

    def shown(self) -> AbstractContextManager[None]:
        """For the while, the network is the one that is evaluated and saved: the average's."""
        return nullcontext() if self.average is None else self.average.shown()

    @property
    def paper(self) -> bool:
        """Whether the test set is read every epoch."""
        return self.config.sparse.compat == "paper"

    @property
    def end(self) -> int:
        """Epochs of the whole run, or the most it can take as far as is known."""
        return self.session.plan.end_after(self.epoch)

    @property
    def step(self) -> int:
        """Batches of the whole run that were trained on."""
        return self.epoch * len(self.session.train) + self.batch

    def end_epoch(self, line: dict[str, Any]) -> None:
        """Close the epoch under its line of metrics."""
        self.history.append(line)
        self.totals.steps += self.batch - self.sums.skipped
        self.totals.skipped_steps += self.sums.skipped
        self.epoch, self.batch = self.epoch + 1, 0
        self.sums = Sums(self.session.place.device, in_a_row=self.sums.in_a_row)
        self.begun = {}

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings and containers of them, whole; collective.

        It loads on any number of processes; with as many, the run goes on as if undisturbed.
        """
        cuda = self.session.place.device.type == "cuda"
        world = self.session.place.world
        generators = world.gather(
            (torch.get_rng_state(), torch.cuda.get_rng_state_all() if cuda else [])
        )
        return {
            "version": VERSION,
            "position": {
                "epoch": self.epoch,
                "batch": self.batch,
                "batches": len(self.session.train),
                "world_size": world.size,
            },
            "sums": self.sums.state_dict(world),
            "begun": dict(self.begun),
            "work": self.work.state_dict(),
            "history": [dict(line) for line in self.history],
            "model": sharded.model_state(self.session.model),
            "optimizer": sharded.optimizer_state(self.session.optimizer),
            "plan": self.session.plan.state_dict(),
            "sparse_compute": compute.choices if (compute := self.session.compute) else {},
            "totals": self.totals.state_dict(),
            "best": None if self.best is None else self.best.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "trace": None if self.tracer is None else self.tracer.state_dict(),
            "rng": generators[0][0],
            "rng_cuda": generators[0][1],
            "rng_others": [list(held) for held in generators[1:]],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            BadInput: the state is of another version of sparsetrain, or of other data.
        """
        self._check(state)
        world = self.session.place.world
        sharded.load_model_state_(self.session.model, state["model"])
        # The plan first: ART's fine-tuning attaches another engine to the optimizer.
        sharded.load_optimizer_state_(self.session.optimizer, state["optimizer"])
        self.session.plan.load_state_dict(state["plan"])
        if self.session.compute is not None:
            self.session.compute.adopt(state.get("sparse_compute", {}))
        self.epoch, self.batch = state["position"]["epoch"], state["position"]["batch"]
        self.sums.load_state_dict(state["sums"], world)
        self.begun = dict(state["begun"])
        self.work.load_state_dict(state.get("work"))
        self.history = [dict(line) for line in state["history"]]
        self.totals = Totals(**state["totals"])
        self.best = None if state["best"] is None else Best(**state["best"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if state.get("trace") is None:
            self.tracer = None  # the course so far was not kept, and half of one misleads
        elif self.tracer is not None:
            self.tracer.load_state_dict(state["trace"])
        generators = [(state["rng"], state["rng_cuda"]), *state.get("rng_others", [])]
        if world.rank < len(generators):  # else it keeps the seed that it began with
            cpu, cuda = generators[world.rank]
            torch.set_rng_state(cpu)
            if cuda:
                torch.cuda.set_rng_state_all(cuda)

    def _check(self, state: Mapping[str, Any]) -> None:
        if state.get("version") != VERSION:
            raise BadInput(
                "the checkpoint was written by another version of sparsetrain; continue with that "
                "one or give another --out."
            )
        there, here = state["position"]["batches"], len(self.session.train)
        if there != here:
            raise BadInput(
                f"the data set has changed since the checkpoint: an epoch had {there} batches and "
                f"has {here} now. Give the same data or another --out."
            )
