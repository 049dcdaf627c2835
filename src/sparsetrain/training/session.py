"""Everything a run trains with, built from its settings: data, network, optimizer, plan."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import data, models
from ..compute import SparseCompute
from ..data.augment import Augment
from ..data.dataset import Dataset
from ..data.download import Progress
from ..data.loader import Loader
from .compiled import compile_calls, compile_mode
from .config import DataConfig, ModelConfig, TrainConfig, validation_share
from .device import Place, place
from .errors import BadInput
from .flops import ForwardFlops, count_forward
from .optimizer import make_optimizer
from .parallel import ALONE, World, replicated, shard_, share_of_batch
from .plans import Plan, make_plan
from .sparse import sparse_steps
from .sparse_eval import SparseEvaluation, sparse_evaluation

_EVAL_BATCH = 500


@dataclass(frozen=True)
class Session:
    """A run's parts, fresh and on the device.

    Attributes:
        network: what training calls forward on: the model, or its wrapper on several processes.
        compute: lets training steps run sparse; None where they never do.
        judge: lets pruned copies be evaluated sparse; None where they never are.
        flops: of the dense forward pass.
        held_out: images to select by; None where nothing is held out.
        test: touched once, at the end, unless `compat: paper`.
    """

    place: Place
    dataset: Dataset
    model: nn.Module
    network: nn.Module
    optimizer: Optimizer
    plan: Plan
    compute: SparseCompute | None
    judge: SparseEvaluation | None
    flops: ForwardFlops
    train: Loader
    train_images: int
    held_out: Loader | None
    test: Loader


def build_session(
    config: TrainConfig,
    progress: Progress | None = None,
    dataset: Dataset | None = None,
    world: World = ALONE,
) -> Session:
    """Load the data and make network, optimizer and method.

    The network's weights are drawn from torch's global generator, seeded here.

    Args:
        config: resolved settings.
        progress: told how far a download has come.
        dataset: that of the settings where it is in memory already; it is not changed.
        world: the processes that train together; each builds its own session.
    Raises:
        ValueError: anything asked for that does not exist or does not fit, in one sentence.
    """
    share_of_batch(config.optim, world)
    where = place(config.run, world)
    mode = compile_mode(config.run, where.device, world.mode)
    check_model(config.model)
    dataset = load_data(config.data, progress) if dataset is None else dataset
    torch.manual_seed(config.run.seed)
    model = make_model(config.model, dataset, where)
    flops = count_forward(model, _black(dataset, where))
    whole = None
    if world.mode == "fsdp":
        whole = copy.deepcopy(model)
        shard_(model, where.device)
    optimizer = make_optimizer(model, config.optim, where.device)
    kept, held = data.split(
        dataset.train_labels, validation_share(config), seed=config.data.split_seed
    )
    train = _train_loader(config, dataset, kept, where)
    plan = make_plan(config, model, optimizer, train.for_one(), whole)
    if world.rank:  # dropout must not be that of rank 0's images
        torch.manual_seed(config.run.seed + world.rank)
    held_out, test = _held_out(dataset, held, where), test_loader(dataset, where)
    compute = sparse_steps(config.run, plan.engine, where.device, compiled=mode is not None)
    judge = sparse_evaluation(
        config.run,
        where,
        _black(dataset, where, images=train.full),
        images=len(kept) + len(held),
        macs=flops.total // 2,
    )
    network = replicated(model, world)
    if mode is not None:
        often = [train, held_out, test if config.sparse.compat == "paper" else None]
        sizes = {loader.full for loader in often if loader is not None}
        networks = [model] if network is model else [model, network]
        where = replace(where, compiled=compile_calls(networks, mode, sizes))
    return Session(
        place=where,
        dataset=dataset,
        model=model,
        network=network,
        optimizer=optimizer,
        plan=plan,
        compute=compute,
        judge=judge,
        flops=flops,
        train=train,
        train_images=len(kept),
        held_out=held_out,
        test=test,
    )


def load_data(config: DataConfig, progress: Progress | None = None) -> Dataset:
    """The data set that the settings name.

    Raises:
        ValueError: unknown, absent or damaged.
    """
    return data.load(
        config.dataset, root=config.data_dir, download=config.download, progress=progress
    )


def check_model(config: ModelConfig) -> None:
    """Refuse a name or option that no network has, before any data are fetched.

    Raises:
        ValueError: from `models.create`.
    """
    with torch.device("meta"):
        models.create(config.model, **_options(config))


def make_model(config: ModelConfig, dataset: Dataset, where: Place) -> nn.Module:
    """The network for a data set, on the device.

    Raises:
        ValueError: from `models.create`; BadInput where the images are not square.
    """
    height, width = dataset.image_size
    if height != width:
        raise BadInput(f"the images of {dataset.name} are {height}x{width}; they must be square.")
    model = models.create(
        config.model,
        num_classes=dataset.num_classes,
        in_channels=dataset.in_channels,
        image_size=height,
        **_options(config),
    )
    layout = torch.channels_last if where.channels_last else torch.contiguous_format
    return model.to(where.device, memory_format=layout)  # pyright: ignore[reportCallIssue]


def test_loader(dataset: Dataset, where: Place) -> Loader:
    """The test images in order, not augmented."""
    return _plain_loader(dataset, dataset.test_images, dataset.test_labels, where)


def _options(config: ModelConfig) -> dict[str, int]:
    return {} if config.width is None else {"width": config.width}


def _held_out(dataset: Dataset, held: Tensor, where: Place) -> Loader | None:
    if len(held) == 0:
        return None
    return _plain_loader(dataset, dataset.train_images[held], dataset.train_labels[held], where)


def _plain_loader(dataset: Dataset, images: Tensor, labels: Tensor, where: Place) -> Loader:
    return Loader(
        images,
        labels,
        batch_size=_EVAL_BATCH,
        mean=dataset.mean,
        std=dataset.std,
        shuffle=False,
        seed=0,
        device=where.device,
        channels_last=where.channels_last,
        rank=where.world.rank,
        world_size=where.world.size,
    )


def _train_loader(config: TrainConfig, dataset: Dataset, kept: Tensor, where: Place) -> Loader:
    size = min(config.optim.batch_size, len(kept))
    return Loader(
        dataset.train_images[kept],
        dataset.train_labels[kept],
        batch_size=max(1, size // where.world.size),
        mean=dataset.mean,
        std=dataset.std,
        augment=_augment(config.data, dataset.augment),
        shuffle=True,
        seed=config.run.seed,
        device=where.device,
        channels_last=where.channels_last,
        # Batch norm cannot train on a last batch of one image.
        drop_last=len(kept) > size and len(kept) % size == 1,
        rank=where.world.rank,
        world_size=where.world.size,
    )


def _black(dataset: Dataset, where: Place, images: int = 1) -> Tensor:
    """Black images as the network takes them."""
    return torch.zeros(images, *dataset.test_images.shape[1:], device=where.device)


def _augment(config: DataConfig, own: Augment) -> Augment:
    return replace(
        own,
        crop_padding=own.crop_padding if config.crop_padding is None else config.crop_padding,
        padding_mode=config.padding_mode or own.padding_mode,
        flip=own.flip if config.flip is None else config.flip,
    )
