"""Hugging Face `Trainer`, the real one, in real short runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sparsetrain as st

from .integration_tools import (
    LOUD,
    SIZE,
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

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from sparsetrain.integrations.transformers import FILE, SparsityCallback  # noqa: E402

pytestmark = [pytest.mark.slow, *LOUD]


def trainer(folder: Path, callback: SparsityCallback, *, seed: int = 0, **arguments: Any) -> Any:
    model = vit(seed=seed)
    settings = transformers.TrainingArguments(
        **{
            "output_dir": str(folder),
            "num_train_epochs": 4,
            "per_device_train_batch_size": SIZE,
            "train_sampling_strategy": "sequential",
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "save_strategy": "steps",
            "save_steps": 11,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "save_total_limit": None,
            **arguments,
        }
    )
    return transformers.Trainer(
        model=model,
        args=settings,
        train_dataset=digits(),
        eval_dataset=digits()[:64],
        callbacks=[callback],
        optimizers=(sgd(model), None),
    )


def test_the_trainer_gives_the_masks_and_weights_of_an_own_loop(tmp_path: Path) -> None:
    callback = SparsityCallback(granet)
    run = trainer(tmp_path, callback)
    run.train()
    assert callback.engine.step == 4 * STEPS
    assert_equal(run.model, callback.engine, *own_loop(granet, epochs=4))


@pytest.mark.parametrize("attach", [granet, art])
@pytest.mark.parametrize("step", [11, 16])  # in the middle of an epoch, and at the end of one
def test_a_run_continued_from_a_checkpoint_ends_as_the_whole_one(
    tmp_path: Path, attach: Any, step: int
) -> None:
    whole = SparsityCallback(attach, accuracy=accuracy)
    run = trainer(tmp_path / "a", whole, num_train_epochs=6, save_steps=step)
    run.train()
    again = SparsityCallback(attach, accuracy=accuracy)
    second = trainer(tmp_path / "a", again, num_train_epochs=6, save_steps=step, seed=9)
    second.train(resume_from_checkpoint=str(tmp_path / "a" / f"checkpoint-{step}"))
    assert again.engine.sparsity > 0
    assert_equal(run.model, whole.engine, second.model, again.engine)


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    callback = SparsityCallback(granet)
    run = trainer(
        tmp_path, callback, per_device_train_batch_size=SIZE // 4, gradient_accumulation_steps=4
    )
    run.train()
    assert callback.engine.step == run.state.global_step == 4 * STEPS


def test_the_trainers_own_fused_adamw_keeps_the_zeros(tmp_path: Path) -> None:
    callback = SparsityCallback(granet)
    run = trainer(tmp_path, callback, learning_rate=1e-3, max_grad_norm=1.0)
    run.optimizer = None
    run.train()
    assert "AdamW" in type(run.optimizer.optimizer).__name__
    assert run.optimizer.optimizer.defaults["fused"]
    for name, mask in callback.engine.masks.items():
        assert not run.model.get_parameter(name)[~mask].any()


def test_art_goes_through_its_phases_and_stops_the_trainer(tmp_path: Path) -> None:
    callback = SparsityCallback(art, accuracy=accuracy)
    run = trainer(tmp_path, callback, num_train_epochs=50)
    run.train()
    assert isinstance(callback.engine, st.ART) and callback.engine.phase == "done"
    assert run.state.global_step <= 6 * STEPS
    assert callback.engine.sparsity == pytest.approx(0.6, abs=1e-3)


def test_the_best_checkpoint_brings_its_own_masks(tmp_path: Path) -> None:
    callback = SparsityCallback(granet)
    run = trainer(
        tmp_path,
        callback,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,  # on purpose: the worst is the first, of another sparsity
        eval_strategy="steps",
        eval_steps=11,
    )
    run.train()
    best = Path(run.state.best_model_checkpoint)
    assert best.name == "checkpoint-11"
    masks = torch.load(best / FILE, weights_only=True)["engine"]["masks"]
    for name, mask in callback.engine.masks.items():
        assert torch.equal(mask, masks[name])
        assert not run.model.get_parameter(name)[~mask].any()


def test_a_checkpoint_without_masks_or_with_others_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, SparsityCallback(granet))
    run.train()
    middle, late = tmp_path / "checkpoint-11", tmp_path / "checkpoint-22"
    shutil.copy(late / FILE, middle / FILE)
    with pytest.raises(ValueError, match="another folder was loaded"):
        trainer(tmp_path, SparsityCallback(granet)).train(resume_from_checkpoint=str(middle))
    (middle / FILE).unlink()
    with pytest.raises(FileNotFoundError, match="resume_from=FOLDER"):
        trainer(tmp_path, SparsityCallback(granet)).train(resume_from_checkpoint=str(middle))


def bert(seed: int) -> Any:
    torch.manual_seed(seed)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=17,
            max_position_embeddings=64,
            num_labels=10,
        )
    )


def train_bert(folder: Path, *, seed: int, checkpoint: Path | None = None) -> Any:
    """20 steps with all that the Trainer does by default: fused AdamW, clipping, decay."""
    pixels = [(d["pixel_values"].flatten() * 16).long() for d in digits()]
    data = [{"input_ids": x, "labels": d["labels"]} for x, d in zip(pixels, digits(), strict=True)]
    callback, model = SparsityCallback(granet), bert(seed)
    settings = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=20, save_steps=10, report_to="none", use_cpu=True
    )
    made = transformers.Trainer(
        model=model, args=settings, train_dataset=data, callbacks=[callback]
    )
    made.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return model, callback.engine


def test_a_bert_with_dropout_is_continued_to_the_bit(tmp_path: Path) -> None:
    model, engine = train_bert(tmp_path, seed=0)
    again = train_bert(tmp_path, seed=9, checkpoint=tmp_path / "checkpoint-10")
    assert not any("embeddings" in name for name in engine.masks)
    assert_equal(model, engine, *again)


def test_a_weight_that_the_trainer_only_warns_not_to_load_is_an_error(tmp_path: Path) -> None:
    train_bert(tmp_path, seed=0)
    path = tmp_path / "checkpoint-10" / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "intermediate.dense.weight" in name)
    tensors["renamed"] = tensors.pop(name)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"^{re.escape(name)} is not the weight"):
        train_bert(tmp_path, seed=9, checkpoint=path.parent)


def test_a_moved_checkpoint_is_found_by_resume_from(tmp_path: Path) -> None:
    whole = SparsityCallback(granet)
    run = trainer(tmp_path / "a", whole)
    run.train()
    moved = tmp_path / "elsewhere"
    (tmp_path / "a" / "checkpoint-11").rename(moved)
    again = SparsityCallback(granet, resume_from=moved)
    second = trainer(tmp_path / "b", again, seed=9)
    second.train(resume_from_checkpoint=str(moved))
    assert_equal(run.model, whole.engine, second.model, again.engine)
