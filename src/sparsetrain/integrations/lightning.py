"""Lightning: a callback that keeps the network of a `LightningModule` sparse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        "sparsetrain.integrations.lightning needs Lightning: pip install 'sparsetrain[lightning]'"
    ) from error

from .guest import Accuracy, Attach, Engine, Guest


class SparsityCallback(Callback):
    """Attaches an engine when the training starts, saves it in Lightning's checkpoints::

        attach = lambda model, optimizer, steps: st.Sparsifier(
            model, optimizer, st.methods.rigl(sparsity=0.9, total_steps=steps)
        )
        trainer = Trainer(max_epochs=10, callbacks=[SparsityCallback(attach)])

    `trainer.fit(…, ckpt_path=…)` continues in mid-schedule. With ART or IMP the training stops
    when the method is done; `max_epochs` should allow for all its phases.

    Args:
        attach: (module, optimizer, optimizer steps of the run) -> Sparsifier, ART or IMP.
        accuracy: module -> accuracy on the training data; only ART needs it.
    """

    def __init__(self, attach: Attach, *, accuracy: Accuracy | None = None) -> None:
        self._guest = Guest(attach, accuracy)
        self._loaded: Mapping[str, Any] | None = None

    @property
    def engine(self) -> Engine:
        """What `attach` made; `engine.masks`, `engine.sparsity` and so on."""
        return self._guest.engine

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach; weights and optimizer have been loaded by now.

        Raises:
            ValueError: not exactly one optimizer, or a checkpoint without this callback's state.
        """
        if len(trainer.optimizers) != 1:
            raise ValueError(
                f"SparsityCallback needs exactly one optimizer, got {len(trainer.optimizers)}; "
                "attach st.Sparsifier in your module's on_train_start, one for each optimizer"
            )
        if trainer.global_step and self._loaded is None:
            raise ValueError(
                "the checkpoint holds no state of SparsityCallback, so its masks and step are "
                "unknown; load its weights into the module instead of passing ckpt_path"
            )
        steps = int(trainer.estimated_stepping_batches)
        self._guest.start(pl_module, trainer.optimizers[0], steps, self._loaded)
        self._loaded = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for an epoch whose end was not announced: a checkpoint at validation is one."""
        self._guest.epochs_over(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell ART or IMP; stop where it is done."""
        self._guest.epochs_over(trainer.current_epoch + 1)
        trainer.should_stop = trainer.should_stop or self._guest.done

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off; the zeros stay."""
        self._guest.finish()

    def state_dict(self) -> dict[str, Any]:
        """Saved by Lightning in each checkpoint."""
        return self._guest.state_dict() if self._guest.started else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by Lightning before there is an optimizer; kept until the training starts."""
        self._loaded = state_dict or None
