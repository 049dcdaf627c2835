"""The flags of HyperSparse, GraNet and ITOP; what a command line of theirs asks for, in our words.

Names, defaults and meanings are those of the sources' parsers and READMEs.
"""

from __future__ import annotations

import argparse
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

FLAGS = {
    "HyperSparse": """
        --outdir --override_dir --manual_seed --prune_rate --eta --lambda_init --size_model_buffer
        --dataset --path_data --model_arch --model_depth --path_load_model --epochs --warmup_epochs
        --batch_size --workers --regularization_func --lr --lr_decay --lr_step --weight_decay
        --momentum --model --output --prune-rate --model-arch --model-depth --model-num-classes""",
    "GraNet/CIFAR": """
        --batch-size --test-batch-size --batch-size-jac --multiplier --epochs --lr --momentum --l2
        --optimizer --no-cuda --seed --log-interval --save --data --decay_frequency --l1
        --start-epoch --save-features --bench --decay-schedule --fp16 --valid_split --resume --model
        --iters --max-threads --nolr_scheduler --sparse --method --sparse-init --growth --prune
        --redistribution --prune-rate --pruning-rate --fix --update-frequency --init-density
        --final-density --init-prune-epoch --final-prune-epoch --rm-first""",
    "GraNet/ImageNet": """
        --save -a --arch -c --model-config -j --workers --spp --grow-switch --verbose --density --l2
        --epochs --start-epoch -b --lr --warmup --label-smoothing --momentum --wd --bn-weight-decay
        -p --resume -e --evaluate --pretrained-weights --fp16 --static-loss-scale
        --dynamic-loss-scale --prof --benchmark-training --benchmark-inference --bench-iterations
        --bench-warmup --master_port --local_rank --seed --gather-checkpoints --sparse --growth
        --prune --redistribution --prune-rate --fix --sparse-init --multiplier --update-frequency
        --init-density --final-density --init-prune-epoch --final-prune-epoch --method --rm_first
        --nnodes --node_rank --nproc_per_node --master_addr""",
    "ITOP": """
        --density --death --death-rate --growth --sparse_init --update_frequency --l2 --multiplier
        --redistribution --decay_frequency --model""",
}


def sparsity(density: str) -> float:
    return float(1 - Decimal(density))


def parser(**defaults: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(allow_abbrev=False)
    for name, default in defaults.items():
        made.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name, default=default)
    return made


def from_hypersparse(words: list[str]) -> dict[str, Any]:
    """What a line of HyperSparse's train.py asks for; spec: the defaults of its parser."""
    made = parser(
        outdir=None, prune_rate="0.9", eta="1.05", lambda_init="5e-6", size_model_buffer="1",
        dataset="cifar10", model_arch="resnet", model_depth="32", epochs="160", warmup_epochs="60",
        batch_size="64", lr="0.1", lr_decay="0.1", weight_decay="1e-4", momentum="0.9",
    )  # fmt: skip
    made.add_argument("--regularization_func", "--regulaization_func", dest="kind", default="HS")
    made.add_argument("--lr_step", type=int, nargs="+", default=[80, 120])
    made.add_argument("--override_dir", action="store_true")
    a = made.parse_args(words)
    resnet = a.model_arch == "resnet"
    return {
        "method": "art",
        "out": a.outdir and str(Path(a.outdir)),
        "sparsity": float(a.prune_rate),
        "strength": float(a.lambda_init),
        "strength_factor": float(a.eta),
        "window": 2 * int(a.size_model_buffer) + 1,
        "regularizer": {"HS": "hypersparse", "L1": "l1", "L2": "l2"}[a.kind],
        "model": f"resnet{a.model_depth}" if resnet else f"vgg{a.model_depth}",
        "width": 2 if resnet else None,
        "dense_epochs": int(a.warmup_epochs),
        "finetune_epochs": int(a.epochs),
        "decays after": a.lr_step,
        "nesterov": False,
        "compat": "paper",
        "validation": 0.0,
        "padding_mode": "zero",
        "batch_size": int(a.batch_size),
        "dataset": a.dataset,
        **{name: float(getattr(a, name)) for name in ("lr", "lr_decay", "weight_decay")},
        "momentum": float(a.momentum),
    }


def shared(a: argparse.Namespace) -> dict[str, Any]:
    """What GraNet's and ITOP's trainers have in common; spec: both hold out a tenth of CIFAR-10."""
    ten, times, epochs = a.data == "cifar10", int(a.multiplier), int(a.epochs)
    return {
        "dataset": a.data,
        "validation": 0.1 if ten else 0.0,
        "padding_mode": "reflect" if ten else "zero",
        "model": {"ResNet50": "resnet50-cifar", "vgg-c": "vgg16"}.get(a.model, a.model),
        "width": None,
        "epochs": epochs * times,
        "decays after": [epochs // 2 * times, 3 * epochs // 4 * times],
        "lr_decay": 0.1,
        "lr": float(a.lr),
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": float(a.l2),
        "batch_size": int(a.batch_size),
        "seed": int(a.seed),
        "compat": "none",
        "precision": "fp32",
    }


MOVES = {"drop": "magnitude", "redistribution": "none", "distribution": "erk"}


def from_granet(words: list[str]) -> dict[str, Any]:
    """What a line of GraNet's CIFAR/main.py asks for; spec: the defaults of its parser."""
    made = parser(
        method="GraNet", sparse_init=None, init_density="0.5", final_density="0.05", data="mnist",
        update_frequency="100", init_prune_epoch="0", final_prune_epoch="110", prune_rate="0.5",
        l2="1e-4", lr="0.1", epochs="250", multiplier="1", batch_size="100", seed="17", model="",
        optimizer="sgd", growth="gradient", death="magnitude", redistribution="none",
        death_rate="0.5",
    )  # fmt: skip
    made.add_argument("--sparse", action="store_true", required=True)
    a = made.parse_args(words)
    images = 45_000 if a.data == "cifar10" else 50_000
    epoch = math.ceil(images / int(a.batch_size)) * int(a.multiplier)
    method = {"GraNet": "granet", "DST": "itop", "GMP": "gmp"}[a.method]
    wanted = shared(a) | {
        "method": method,
        "sparsity": sparsity(a.final_density),
        "update_every": int(a.update_frequency),
        "first step": int(a.init_prune_epoch) * epoch,
        "last step": int(a.final_prune_epoch) * epoch,
        "steps": epoch * int(a.epochs),
    }
    if method == "itop":  # no gradual pruning: the masks move to the end
        wanted |= {"last step": wanted["steps"]}
    else:
        wanted |= {"initial_sparsity": 0.0, "scope": "global"}
    if method == "granet":
        wanted |= {"initial_sparsity": sparsity(a.init_density), "regrow_until": 1.0}
    if method != "gmp":
        wanted |= MOVES | {"growth": "gradient", "drop_fraction": float(a.prune_rate)}
    assert a.sparse_init == "ERK" and a.prune_rate == a.death_rate == "0.5"
    return wanted


def from_itop(words: list[str]) -> dict[str, Any]:
    """What a line of ITOP's CIFAR main.py asks for; spec: the defaults of its parser."""
    made = parser(
        density="0.05", sparse_init="ERK", update_frequency="100", growth="random", l2="5e-4",
        death="magnitude", death_rate="0.5", redistribution="none", lr="0.1", epochs="250", seed="",
        multiplier="1", batch_size="100", model="", data="", decay_frequency="",
    )  # fmt: skip
    made.add_argument("--sparse", action="store_true")
    a = made.parse_args(words)
    epochs = int(a.epochs) * int(a.multiplier)
    # Its README's advice: "at the 1/2 and 3/4 training time".
    common = shared(a) | {"decays after": [epochs / 2, 3 * epochs / 4]}
    if not a.sparse:
        return common | {"method": "dense", "sparsity": 0.0}
    steps = math.ceil(45_000 / int(a.batch_size)) * epochs
    moves = {"method": "itop", "sparsity": sparsity(a.density), "growth": a.growth}
    moves |= {"update_every": int(a.update_frequency), "drop_fraction": float(a.death_rate)}
    return common | MOVES | moves | {"first step": 0, "last step": steps, "steps": steps}


def translated(line: list[str]) -> dict[str, Any]:
    """A line of theirs in our words, by the sources' own defaults."""
    if line[0] == "train.py":
        return from_hypersparse(line[1:])
    return (from_itop if "--density" in line else from_granet)(line[1:])
