"""A vision transformer trained sparse on digits by GraNet and by ART, against random masks.

    python benchmarks/vision_transformer.py [--seeds 10 11 12] [--validate] [--smoke]

The weights of the blocks are pruned; the patches' embedding and the classifier, 0.7 % of all, stay
dense. After each method's run a network of the same seed is trained with a mask that never moves:
random positions, but as many in each layer as the method kept. All runs have at most the same
number of epochs. GraNet prunes each layer alike: ranked together, AdamW's weights empty whole
layers of a transformer at 98 %. Settings were chosen with `--validate`: images held out of the
training set, and seeds 100 to 102, which are not reported. Seeds 0 to 2 were seen with earlier
settings.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import machine
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

import sparsetrain as st
from sparsetrain import data

RECORD = Path(__file__).parent / "records" / "vision-transformer.json"
HELD_OUT = 0.25
DENSE = ("embed.weight", "head.weight")


@dataclass(frozen=True)
class Config:
    """The network: an encoder before normalisation, the mean over tokens, a linear classifier."""

    image_size: int = 8
    patch: int = 2
    hidden: int = 64
    layers: int = 4
    heads: int = 4
    widening: int = 2
    classes: int = 10


@dataclass(frozen=True)
class Settings:
    """A run; the same for all methods but for what names one.

    Attributes:
        epochs: in all phases together; of ART, regularising may end early.
        lr, art_lr: of AdamW; ART's is that of its own run and of the random masks beside it.
        beta2, art_beta2: likewise. A regrown weight has no second moment yet: its first step is
            (1 - 0.9) / sqrt(1 - beta2) of the learning rate, 3.2 at 0.999 and 0.45 at 0.95.
        art_dense: epochs of ART before the regulariser.
        art_cap: most epochs of ART with it.
        strength: of HyperSparse in its first epoch.
        factor: growth of the strength an epoch.
    """

    sparsity: float = 0.98
    epochs: int = 50
    batch: int = 64
    lr: float = 5e-3
    art_lr: float = 2e-3
    beta2: float = 0.95
    art_beta2: float = 0.999
    weight_decay: float = 0.01
    granet_stop: float = 0.5
    granet_every: int = 20
    granet_initial: float = 0.0
    granet_drop: float = 0.3
    granet_regrow: float = 0.7
    art_dense: int = 10
    art_cap: int = 20
    strength: float = 1e-4
    factor: float = 1.3


class Block(nn.Module):
    """Attention and two layers, each behind a norm and beside a sum."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, self.heads = config.hidden, config.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up = nn.Linear(width, config.widening * width)
        self.down = nn.Linear(config.widening * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        parts = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + self.out(found)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class VisionTransformer(nn.Module):
    """A ViT as the configuration says."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        patch, tokens = config.patch, (config.image_size // config.patch) ** 2
        self.embed = nn.Conv2d(1, config.hidden, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, tokens, config.hidden))
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.layers)))
        self.norm, self.head = nn.LayerNorm(config.hidden), nn.Linear(config.hidden, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class Task:
    """The digits in memory, and training of one epoch on them."""

    def __init__(self, settings: Settings, *, validate: bool, few: bool = False) -> None:
        found = data.load("digits")
        train, labels = found.train_images, found.train_labels
        test = (found.test_images, found.test_labels)
        if validate:
            kept, held = data.split(labels, HELD_OUT, seed=0)
            test = (train[held], labels[held])
            train, labels = train[kept], labels[kept]
        if few:
            train, labels = train[:64], labels[:64]
        self._mean, self._std = found.mean[0], found.std[0]
        self._images = F.pad(self._scaled(train), (1, 1, 1, 1))
        self._labels, self._settings = labels, settings
        self._shown = (self._scaled(train), labels)
        self._test = (self._scaled(test[0]), test[1])
        self.steps = math.ceil(len(labels) / settings.batch)

    def train_epoch(self, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        """Crops shifted by up to a pixel, in an order drawn from the seed."""
        generator = torch.Generator().manual_seed(seed)
        model.train()
        for some in torch.randperm(len(self._labels), generator=generator).split(
            self._settings.batch
        ):
            dy, dx = torch.randint(0, 3, (2, len(some), 1, 1), generator=generator)
            rows, columns = dy + torch.arange(8).view(1, 8, 1), dx + torch.arange(8)
            images = self._images[some[:, None, None], 0, rows, columns][:, None]
            optimizer.zero_grad()
            F.cross_entropy(model(images), self._labels[some]).backward()
            optimizer.step()

    def train_accuracy(self, model: nn.Module) -> float:
        """On the training images, unshifted."""
        return _accuracy(model, *self._shown)

    def test_accuracy(self, model: nn.Module) -> float:
        """On images not trained on, in percent."""
        return 100 * _accuracy(model, *self._test)

    def _scaled(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - self._mean) / self._std


@torch.no_grad()
def _accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    return (model(images).argmax(1) == labels).float().mean().item()


class Run:
    """One network, its optimizer, and what it is trained with."""

    def __init__(self, task: Task, settings: Settings, seed: int, config: Config) -> None:
        torch.manual_seed(seed)
        self.task, self.settings, self.seed = task, settings, seed
        self.model = VisionTransformer(config)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.lr,
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
        )
        self._epoch = 0

    def epoch(self) -> None:
        """Train on every image once."""
        self.task.train_epoch(self.model, self.optimizer, 1000 * self.seed + self._epoch)
        self._epoch += 1

    def fixed(self, method: st.Method) -> st.Sparsifier:
        """All epochs under one method, learning rate a cosine."""
        engine = st.Sparsifier(self.model, self.optimizer, method, exclude=DENSE, seed=self.seed)
        schedule = CosineAnnealingLR(self.optimizer, self.settings.epochs)
        for _ in range(self.settings.epochs):
            self.epoch()
            schedule.step()
        return engine


def by_granet(run: Run) -> st.types.Masks:
    """GraNet over all epochs; its last masks."""
    s = run.settings
    method = st.methods.granet(
        sparsity=s.sparsity,
        total_steps=s.epochs * run.task.steps,
        update_every=s.granet_every,
        stop=s.granet_stop,
        initial_sparsity=s.granet_initial,
        drop_fraction=s.granet_drop,
        regrow_until=s.granet_regrow,
        scope="layer",
    )
    return run.fixed(method).masks


def by_art(run: Run) -> st.types.Masks:
    """ART; its masks. The learning rate is a cosine again in fine-tuning."""
    s = run.settings
    art = st.ART(
        run.model,
        run.optimizer,
        exclude=DENSE,
        sparsity=s.sparsity,
        dense_epochs=s.art_dense,
        max_regularize_epochs=s.art_cap,
        finetune_epochs=s.epochs - s.art_dense - s.art_cap,
        strength=s.strength,
        strength_factor=s.factor,
    )
    schedule = None
    while art.phase != "done":
        run.epoch()
        if schedule is not None:
            schedule.step()
        art.epoch_end(run.task.train_accuracy(run.model), run.task.train_accuracy)
        if art.phase_changed and art.phase == "finetune":
            schedule = CosineAnnealingLR(run.optimizer, s.epochs - s.art_dense - s.art_cap)
    return art.masks


def at_random(run: Run, counts: dict[str, int]) -> None:
    """A mask that never moves, with so many kept weights in each layer."""
    generator = torch.Generator().manual_seed(run.seed)
    weights = st.select(run.model, exclude=DENSE)
    scores = {n: torch.rand(w.shape, generator=generator) for n, w in weights.items()}
    run.fixed(st.methods.static(masks=st.masks.keep_layerwise(scores, counts)))


METHODS: dict[str, Callable[[Run], Any]] = {"granet": by_granet, "art": by_art}


def compare(
    name: str, seed: int, task: Task, settings: Settings, config: Config, *, alone: bool = False
) -> dict[str, Any]:
    """Accuracies in percent of one method and of random masks with its layers' counts."""
    if name == "art":
        settings = replace(settings, lr=settings.art_lr, beta2=settings.art_beta2)
    run = Run(task, settings, seed, config)
    masks = METHODS[name](run)
    counts = st.masks.count_active(masks)
    row: dict[str, Any] = {"method": name, "seed": seed, "epochs": run._epoch}
    row["accuracy"] = task.test_accuracy(run.model)
    row["kept"] = sum(counts.values())
    row["weights"] = sum(mask.numel() for mask in masks.values())
    if not alone:
        other = Run(task, settings, seed, config)
        at_random(other, counts)
        row["random"] = task.test_accuracy(other.model)
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over seeds, their difference, and the pooled standard error of that difference."""
    ours, theirs = [r["accuracy"] for r in rows], [r["random"] for r in rows]
    variances = [statistics.variance(x) if len(x) > 1 else 0.0 for x in (ours, theirs)]
    error = math.sqrt(sum(variances) / len(rows))
    means = statistics.mean(ours), statistics.mean(theirs)
    return {
        "accuracy": means[0],
        "random": means[1],
        "above": means[0] - means[1],
        "pooled_standard_error": error,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--validate", action="store_true", help="judge by held-out images")
    parser.add_argument("--alone", action="store_true", help="without the random masks")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="a setting")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    changed = {k: float(v) if "." in v or "e" in v else int(v) for k, v in _pairs(options.set)}
    settings, config = Settings(**changed), Config()
    if options.smoke:
        settings = Settings(epochs=3, art_dense=1, art_cap=1, granet_every=1, sparsity=0.9)
        config, options.seeds = Config(hidden=16, layers=1), [0]
    task = Task(settings, validate=options.validate, few=options.smoke)
    judged = not (options.smoke or options.validate or options.alone)
    out = options.out or (RECORD if judged else None)
    record = {"benchmark": "a vision transformer on digits, sparse", **machine()}
    record |= {"network": asdict(config), "settings": asdict(settings)}
    rows = _kept(out, record, options)
    for name in options.methods:
        for seed in options.seeds:
            rows.append(compare(name, seed, task, settings, config, alone=options.alone))
            print(rows[-1], flush=True)
    rows.sort(key=lambda row: (row["method"], row["seed"]))
    record["results"] = [] if options.alone else _by_method(rows)
    for result in record["results"]:
        print({k: v for k, v in result.items() if k != "runs"}, flush=True)
    if out is not None:
        out.write_text(json.dumps(record, indent=2) + "\n")
    missed = [r for r in record["results"] if r["above"] <= r["pooled_standard_error"]]
    return 1 if missed else 0


def _kept(out: Path | None, record: dict[str, Any], options: Any) -> list[dict[str, Any]]:
    """Runs of an earlier record of the same settings that are not to be made again."""
    if out is None or not out.exists():
        return []
    found = json.loads(out.read_text())
    if (found["network"], found["settings"]) != (record["network"], record["settings"]):
        return []
    rows = [row for result in found["results"] for row in result["runs"]]
    again = {(name, seed) for name in options.methods for seed in options.seeds}
    return [row for row in rows if (row["method"], row["seed"]) not in again]


def _by_method(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = dict.fromkeys(row["method"] for row in rows)
    runs = {name: [row for row in rows if row["method"] == name] for name in names}
    return [{"method": name, **summary(found), "runs": found} for name, found in runs.items()]


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in (word.split("=") for word in words)]


if __name__ == "__main__":
    raise SystemExit(main())
