"""accelerate, the real one, in an own loop around `Accelerator.prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sparsetrain as st

from .integration_tools import (
    LOUD,
    STEPS,
    accuracy,
    art,
    assert_equal,
    digits,
    granet,
    own_loop,
    sgd,
    vit,
)

accelerate = pytest.importorskip("accelerate")
pytest.importorskip("transformers")
from sparsetrain.integrations.accelerate import unwrap  # noqa: E402

pytestmark = [pytest.mark.slow, *LOUD]

EPOCHS = 6


def make(attach: Any, *, seed: int = 0, **settings: Any) -> tuple[Any, ...]:
    accelerator = accelerate.Accelerator(cpu=True, **settings)
    model = vit(seed=seed)
    loader = torch.utils.data.DataLoader(digits(), batch_size=32)  # type: ignore[arg-type]
    model, optimizer, loader = accelerator.prepare(model, sgd(model), loader)
    engine = attach(*unwrap(accelerator, model, optimizer), EPOCHS * STEPS)
    accelerator.register_for_checkpointing(engine)
    return accelerator, model, optimizer, loader, engine


def train(made: tuple[Any, ...], epochs: range, *, save: Path | None = None) -> None:
    accelerator, model, optimizer, loader, engine = made
    for epoch in epochs:
        for number, batch in enumerate(loader):
            with accelerator.accumulate(model):
                optimizer.zero_grad()
                accelerator.backward(model(**batch).loss)
                optimizer.step()
            if save is not None and (epoch, number) == (2, 2):
                accelerator.save_state(str(save))
        if isinstance(engine, st.ART) and engine.phase != "done":
            engine.epoch_end(0.2, accuracy)


def test_accelerate_gives_the_masks_and_weights_of_an_own_loop() -> None:
    made = make(granet)
    train(made, range(EPOCHS))
    made[4].finalize()
    assert_equal(made[1], made[4], *own_loop(granet, epochs=EPOCHS))


@pytest.mark.parametrize("attach", [granet, art])
def test_a_state_loaded_in_mid_schedule_ends_as_the_whole_run(tmp_path: Path, attach: Any) -> None:
    whole = make(attach)
    train(whole, range(EPOCHS), save=tmp_path)
    again = make(attach, seed=9)
    again[0].load_state(str(tmp_path))
    rest = again[0].skip_first_batches(again[3], 3)
    accelerator, model, optimizer, _, engine = again
    train((accelerator, model, optimizer, rest, engine), range(2, 3))
    train(again, range(3, EPOCHS))
    assert engine.sparsity > 0
    assert_equal(whole[1], whole[4], model, engine)


def test_accumulated_batches_are_one_step() -> None:
    made = make(granet, gradient_accumulation_steps=4)
    train(made, range(2))
    assert made[4].step == 2 * STEPS // 4


def test_the_wrapped_optimizer_itself_is_refused_never_silently_dense() -> None:
    _, model, optimizer, _, engine = make(granet)
    engine.finalize()
    with pytest.raises((TypeError, AttributeError, ValueError)):
        st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
