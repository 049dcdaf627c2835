"""Hugging Face `Trainer`: a callback that keeps its model sparse."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError(
        "sparsetrain.integrations.transformers needs transformers and accelerate: "
        "pip install 'sparsetrain[transformers]'"
    ) from error

from ..selection import named_tensors
from ..sharded import is_sharded
from .guest import Accuracy, Attach, Engine, Guest

FILE = "sparsetrain.pt"
"""The name of the engine's state in each `checkpoint-N` folder."""

_log = logging.getLogger(__name__)


class SparsityCallback(TrainerCallback):
    """Attaches an engine when the training begins, saves it in each `checkpoint-N` folder::

        attach = lambda model, optimizer, steps: st.Sparsifier(
            model, optimizer, st.methods.rigl(sparsity=0.9, total_steps=steps)
        )
        trainer = Trainer(model, arguments, callbacks=[SparsityCallback(attach)], …)

    `trainer.train(resume_from_checkpoint=…)` continues in mid-schedule. With
    `load_best_model_at_end` the masks become those of the best checkpoint. With ART or IMP the
    training stops when the method is done; `num_train_epochs` should allow for all its phases.

    Args:
        attach: (model, optimizer, optimizer steps of the run) -> Sparsifier, ART or IMP.
        accuracy: model -> accuracy on the training data; only ART needs it.
        resume_from: the checkpoint folder, where it lies elsewhere than in `output_dir`: the
            Trainer does not tell its callbacks what `train` was given.
    """

    def __init__(
        self,
        attach: Attach,
        *,
        accuracy: Accuracy | None = None,
        resume_from: str | Path | None = None,
    ) -> None:
        self._guest = Guest(attach, accuracy)
        self._resume_from = resume_from

    @property
    def engine(self) -> Engine:
        """What `attach` made; `engine.masks`, `engine.sparsity` and so on."""
        return self._guest.engine

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        **others: Any,
    ) -> None:
        """Attach; weights and optimizer have been loaded by now.

        Raises:
            FileNotFoundError: a run is continued and its checkpoint has no state of this callback.
            ValueError: the state is of other weights than those loaded, or DeepSpeed is used.
        """
        if args.deepspeed is not None:
            raise ValueError(
                "DeepSpeed keeps the weights in tensors of its own, which cannot be masked; use "
                "DDP or FSDP2"
            )
        saved = None
        if state.global_step:
            path = self._find(args, state.global_step)
            saved = torch.load(path, map_location="cpu", weights_only=True)
            _check_same_weights(model, saved, path)
        self._guest.start(model, _plain(optimizer), state.max_steps, saved)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Make up for an epoch whose end was not announced: one saved after its last step."""
        self._guest.epochs_over(_whole_epochs(state))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Tell ART or IMP; stop where it is done."""
        self._guest.epochs_over(_whole_epochs(state))
        control.should_training_stop = control.should_training_stop or self._guest.done

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        **others: Any,
    ) -> None:
        """Add the engine's state to the checkpoint that has just been written."""
        saved = self._guest.state_dict()  # on every rank: sharded masks are gathered
        saved["weights"] = _sums(model, self.engine.masks)
        if not state.is_world_process_zero:
            return
        folder = _folder(args, state.global_step)
        if not folder.is_dir():
            _log.warning("no folder %s: this checkpoint cannot continue a sparse run", folder)
            return
        unfinished = folder / f"{FILE}.part"
        torch.save(saved, unfinished)
        unfinished.replace(folder / FILE)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Take the hooks off; the zeros stay, also those of a best checkpoint just loaded."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            before = self.engine.sparsity
            path = Path(state.best_model_checkpoint) / FILE
            self._guest.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            if self.engine.sparsity < before:
                _log.warning(
                    "the best checkpoint, %s, has sparsity %.4f; the last weights had %.4f",
                    state.best_model_checkpoint,
                    self.engine.sparsity,
                    before,
                )
        self._guest.finish()

    def _find(self, args: TrainingArguments, step: int) -> Path:
        asked = self._resume_from or args.resume_from_checkpoint or _folder(args, step)
        path = Path(asked) / FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path}, so the masks of step {step} are unknown; pass "
                "SparsityCallback(…, resume_from=FOLDER) for a checkpoint elsewhere, or continue "
                "from one that has this file"
            )
        return path


def _folder(args: TrainingArguments, step: int) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{step}"


def _plain(optimizer: Optimizer) -> Optimizer:
    from accelerate.optimizer import AcceleratedOptimizer

    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer


def _whole_epochs(state: TrainerState) -> int:
    # state.epoch is step / steps an epoch in floating point; a full epoch may come out just below.
    return int(float(state.epoch or 0.0) + 1e-6)


def _sums(model: nn.Module, names: Container[str]) -> dict[str, list[float]]:
    """name -> [sum, sum of absolute values] of each whole tensor: a fingerprint of the weights."""
    sums = {}
    for name, tensor in named_tensors(model).items():
        if name in names and not is_sharded(tensor):
            values = tensor.detach().double()
            sums[name] = [float(values.sum()), float(values.abs().sum())]
    return sums


def _check_same_weights(model: nn.Module, saved: Mapping[str, Any], path: Path) -> None:
    """Masks are of no use with other weights, and the Trainer only warns of what it cannot load."""
    found = _sums(model, saved["weights"])
    for name, (total, size) in saved["weights"].items():
        if name in found and abs(found[name][0] - total) > 1e-6 * size:
            raise ValueError(
                f"{name} is not the weight that {path} was saved with. Either another folder was "
                "loaded: name it, SparsityCallback(…, resume_from=FOLDER). Or the Trainer did not "
                "load this weight and has warned of missing keys, as happens with models whose "
                "names it converts: pass it the model inside a plain nn.Module "
                "(docs/integrations/transformers.md)"
            )
