"""One method, seed and data in four loops: the same masks and weights, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from .integration_tools import LOUD, SIZE, STEPS, assert_equal, digits, granet, own_loop, sgd, vit

accelerate = pytest.importorskip("accelerate")
lightning = pytest.importorskip("lightning.pytorch")
transformers = pytest.importorskip("transformers")
from sparsetrain.integrations import lightning as lightning_callback  # noqa: E402
from sparsetrain.integrations import transformers as trainer_callback  # noqa: E402
from sparsetrain.integrations.accelerate import unwrap  # noqa: E402

pytestmark = [pytest.mark.slow, *LOUD]

EPOCHS = 3


def loader() -> Any:
    return torch.utils.data.DataLoader(digits(), batch_size=SIZE)  # type: ignore[arg-type]


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = vit().network  # so that names are those of the other loops

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        return self.network(**batch).loss

    def configure_optimizers(self) -> Any:
        return sgd(self)


def in_lightning(folder: Path) -> tuple[Any, Any]:
    callback, module = lightning_callback.SparsityCallback(granet), Module()
    lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        callbacks=[callback],
        default_root_dir=str(folder),
        enable_progress_bar=False,
        enable_checkpointing=False,
    ).fit(module, loader())
    return module, callback.engine


def in_trainer(folder: Path) -> tuple[Any, Any]:
    callback, model = trainer_callback.SparsityCallback(granet), vit()
    settings = transformers.TrainingArguments(
        str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=SIZE,
        use_cpu=True,
        train_sampling_strategy="sequential",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        save_strategy="no",
        report_to="none",
    )
    transformers.Trainer(
        model=model,
        args=settings,
        train_dataset=digits(),
        callbacks=[callback],
        optimizers=(sgd(model), None),
    ).train()
    return model, callback.engine


def in_accelerate(folder: Path) -> tuple[Any, Any]:
    accelerator, model = accelerate.Accelerator(cpu=True), vit()
    model, optimizer, batches = accelerator.prepare(model, sgd(model), loader())
    engine = granet(*unwrap(accelerator, model, optimizer), EPOCHS * STEPS)
    for _ in range(EPOCHS):
        for batch in batches:
            optimizer.zero_grad()
            accelerator.backward(model(**batch).loss)
            optimizer.step()
    engine.finalize()
    return model, engine


@pytest.mark.parametrize("loop", [in_trainer, in_lightning, in_accelerate])
def test_every_loop_gives_the_masks_and_weights_of_an_own_loop(tmp_path: Path, loop: Any) -> None:
    assert_equal(*loop(tmp_path), *own_loop(granet, epochs=EPOCHS))
