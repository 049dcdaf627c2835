"""Lightning, the real one, in real short runs; its optimizers are stepped with a closure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsetrain as st

from .integration_tools import LOUD, SIZE, STEPS, art, assert_equal, granet, sgd
from .nets import batch, mlp

lightning = pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from sparsetrain.integrations.lightning import SparsityCallback  # noqa: E402

pytestmark = [pytest.mark.slow, *LOUD]

X, Y = batch(seed=3, n=SIZE * STEPS)


class Net(lightning.LightningModule):
    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        self.net = mlp(seed=seed)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = sgd(self)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 1.0)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Loader:
    """Batches in order that can go on in mid-epoch; Lightning asks the loader itself for that."""

    def __init__(self) -> None:
        self.next = 0

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[list[Tensor]]:
        self.next %= STEPS  # Lightning does not exhaust a loader whose length it knows
        while self.next < STEPS:
            at = self.next * SIZE
            self.next += 1
            yield [X[at : at + SIZE], Y[at : at + SIZE]]

    def state_dict(self) -> dict[str, int]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.next = state["next"]


def right(module: nn.Module) -> float:
    assert isinstance(module, Net) and not module.training and not torch.is_grad_enabled()
    return float((module.net(X).argmax(1) == Y).float().mean())


def trainer(folder: Path, *callbacks: Any, **settings: Any) -> Any:
    return lightning.Trainer(
        **{
            "default_root_dir": str(folder),
            "max_epochs": 6,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": list(callbacks),
            **settings,
        }
    )


def own_loop(attach: Any, *, epochs: int) -> tuple[nn.Module, Any]:
    module = Net()
    optimizer = sgd(module)
    engine = attach(module, optimizer, epochs * STEPS)
    for _ in range(epochs):
        for x, y in Loader():
            optimizer.zero_grad()
            nn.functional.cross_entropy(module.net(x), y).backward()
            optimizer.step()
        if isinstance(engine, st.ART) and engine.phase != "done":
            module.eval()
            with torch.no_grad():
                dense = right(module)
            module.train()
            engine.epoch_end(dense, right)
    engine.finalize()
    return module, engine


@pytest.mark.parametrize("attach", [granet, art])
def test_lightning_gives_the_masks_and_weights_of_an_own_loop(tmp_path: Path, attach: Any) -> None:
    callback, module = SparsityCallback(attach, accuracy=right), Net()
    trainer(tmp_path, callback).fit(module, Loader())
    assert callback.engine.sparsity > 0.5
    assert_equal(module, callback.engine, *own_loop(attach, epochs=6))


@pytest.mark.parametrize("attach", [granet, art])
@pytest.mark.parametrize(
    "saves",
    [{"every_n_train_steps": 11}, {"monitor": "loss"}, {"save_on_train_epoch_end": True}],
    ids=["in-an-epoch", "at-validation", "at-the-end-of-an-epoch"],
)
def test_a_run_continued_from_a_checkpoint_ends_as_the_whole_one(
    tmp_path: Path, attach: Any, saves: dict[str, Any]
) -> None:
    keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **saves)
    whole, first = SparsityCallback(attach, accuracy=right), Net()
    trainer(tmp_path, whole, keep).fit(first, Loader(), Loader())
    steps = sorted(int(path.stem.split("=")[1]) for path in tmp_path.glob("step=*.ckpt"))
    again, second = SparsityCallback(attach, accuracy=right), Net(seed=9)
    trainer(tmp_path / "again", again).fit(
        second, Loader(), Loader(), ckpt_path=str(tmp_path / f"step={steps[1]}.ckpt")
    )
    assert steps[1] < 6 * STEPS
    assert_equal(first, whole.engine, second, again.engine)


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    callback = SparsityCallback(granet)
    trainer(tmp_path, callback, accumulate_grad_batches=4).fit(Net(), Loader())
    assert callback.engine.step == 6 * STEPS // 4


def test_the_regulariser_is_not_lost_in_lightnings_closure(tmp_path: Path) -> None:
    sums = []
    for strength in (0.0, 1e-2):

        def attach(model: Any, optimizer: Any, steps: int, strength: float = strength) -> Any:
            method = st.methods.dense()
            return st.Sparsifier(model, optimizer, method, regularizer=st.L1(), strength=strength)

        module = Net()
        trainer(tmp_path, SparsityCallback(attach)).fit(module, Loader())
        sums.append(sum(float(p.detach().abs().sum()) for p in module.parameters()))
    assert sums[1] < 0.9 * sums[0]


def test_art_stops_the_trainer_when_it_is_done(tmp_path: Path) -> None:
    callback = SparsityCallback(art, accuracy=right)
    made = trainer(tmp_path, callback, max_epochs=50)
    made.fit(Net(), Loader())
    assert isinstance(callback.engine, st.ART) and callback.engine.phase == "done"
    assert made.current_epoch <= 6


def test_art_without_accuracy_and_a_foreign_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass accuracy=f"):
        trainer(tmp_path, SparsityCallback(art)).fit(Net(), Loader())
    plain = trainer(tmp_path, max_epochs=1)
    plain.fit(Net(), Loader())
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(ValueError, match="holds no state of SparsityCallback"):
        trainer(tmp_path, SparsityCallback(granet)).fit(
            Net(), Loader(), ckpt_path=str(tmp_path / "plain.ckpt")
        )
