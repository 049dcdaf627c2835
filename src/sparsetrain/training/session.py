"""Everything a run trains with, built from its settings: data, network, optimizer, plan."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .. import data, models
from ..compute import SparseCompute
from ..data.catalog import AnyDataset
from ..data.deal import Feed
from ..data.download import Progress
from ..kernels.memory import keep_freed_memory
from .compiled import compile_calls, compile_mode
from .config import ModelConfig, TrainConfig, validation_share
from .device import Place, place
from .errors import BadInput
from .feeds import black, held_out_feed, load_data, test_feed, train_feed
from .flops import ForwardFlops, count_forward
from .loop import part_sizes
from .optimizer import make_optimizer
from .parallel import ALONE, World, replicated, shard_, share_of_batch
from .plans import Plan, make_plan
from .sparse import sparse_steps
from .sparse_eval import SparseEvaluation, sparse_evaluation

_log = logging.getLogger(__name__)


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
    dataset: AnyDataset
    model: nn.Module
    network: nn.Module
    optimizer: Optimizer
    plan: Plan
    compute: SparseCompute | None
    judge: SparseEvaluation | None
    flops: ForwardFlops
    train: Feed
    train_images: int
    held_out: Feed | None
    test: Feed


def build_session(
    config: TrainConfig,
    progress: Progress | None = None,
    dataset: AnyDataset | None = None,
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
    if where.device.type == "cpu":
        keep_freed_memory()
    mode = compile_mode(config.run, where.device, world.mode)
    check_model(config.model)
    dataset = load_data(config.data, progress) if dataset is None else dataset
    torch.manual_seed(config.run.seed)
    model = make_model(config.model, dataset, where)
    flops = count_forward(model, black(dataset, where))
    whole = None
    if world.mode == "fsdp":
        whole = copy.deepcopy(model)
        shard_(model, where.device)
    optimizer = make_optimizer(model, config.optim, where.device)
    kept, held = data.split(
        dataset.train_labels, validation_share(config), seed=config.data.split_seed
    )
    if validation_share(config) and not len(held):
        share = f"validation {validation_share(config):g} of {len(kept):,} images"
        _log.warning("%s holds out none, so there is no validation accuracy.", share)
    train = train_feed(config, dataset, kept, where)
    plan = make_plan(config, model, optimizer, train.for_one(), whole)
    if world.rank:  # dropout must not be that of rank 0's images
        torch.manual_seed(config.run.seed + world.rank)
    held_out, test = held_out_feed(dataset, held, where), test_feed(dataset, where)
    compute = sparse_steps(config.run, plan.engine, where.device, compiled=mode is not None)
    judge = sparse_evaluation(
        config.run,
        where,
        black(dataset, where, images=train.full),
        images=len(kept) + len(held),
        macs=flops.total // 2,
    )
    network = replicated(model, world)
    if mode is not None:
        often = [train, held_out, test if config.sparse.compat == "paper" else None]
        sizes = {loader.full for loader in often if loader is not None}
        sizes |= part_sizes(train.full, config.optim.accumulate)
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


def check_model(config: ModelConfig) -> None:
    """Refuse a name or option that no network has, before any data are fetched.

    Raises:
        ValueError: from `models.check`.
    """
    models.check(config.model, **model_options(config))


def make_model(config: ModelConfig, dataset: AnyDataset, where: Place) -> nn.Module:
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
        **model_options(config),
    )
    layout = torch.channels_last if where.channels_last else torch.contiguous_format
    return model.to(where.device, memory_format=layout)  # pyright: ignore[reportCallIssue]


def model_options(config: ModelConfig) -> dict[str, Any]:
    """What the settings say about the network beside its name."""
    given = {"width": config.width, "init": config.init}
    return {key: value for key, value in given.items() if value is not None}
