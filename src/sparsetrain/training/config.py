"""Every setting of a run, as one tree of frozen dataclasses.

On the command line and in a YAML file the tree is flat: each name below occurs once, so `--lr 0.1`
and `lr: 0.1` need no section. The defaults are the demo: `recipes/demo.yaml` spells them out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .options import ArtOptions as ArtOptions


@dataclass(frozen=True)
class DataConfig:
    """What is learned from."""

    dataset: str = "digits"
    """A name that `sparsetrain datasets` lists; a folder of images by class; or hf:NAME, an image
    data set of the Hugging Face Hub (extra `datasets`)."""
    data_dir: Path | None = None
    """Where data sets lie or are downloaded to; None is the user's cache folder. Of imagenet the
    folder that holds train/CLASS/*.JPEG and val/CLASS/*.JPEG."""
    download: bool = True
    """Fetch what is missing."""
    validation: float | None = None
    """Share of the training set held out to select by; 0 trains on all of it. None is 0.1, and 0
    under compat=paper."""
    split_seed: int = 0
    """Seed of that split, apart from the run's, so that seeds are compared on the same images."""
    crop_padding: int | None = None
    """Pixels padded before the random crop; None is the data set's own."""
    padding_mode: Literal["zero", "reflect"] | None = None
    """What is padded with; None is the data set's own."""
    flip: bool | None = None
    """Random left-right flips; None is the data set's own."""
    image_size: int | None = None
    """Side in pixels of what the network sees, of a folder, imagenet or hf:NAME; None is a folder's
    first image's, else 224."""
    workers: int | None = None
    """Processes that decode the images of imagenet or hf:NAME, for each training process; 0: it
    decodes itself; None is one a core, at most 8."""
    prefetch: int = 2
    """Batches that each of them has ready ahead."""
    reduced_decoding: bool = True
    """Decode a JPEG at 1/2, 1/4 or 1/8 of its size where that has pixels enough."""


@dataclass(frozen=True)
class ModelConfig:
    """What learns."""

    model: str = "resnet8"
    """A name that `sparsetrain models` lists; or timm:NAME, a network of timm, if that is
    installed."""
    width: int | None = None
    """Width factor of the network; None is the model's own."""
    init: Literal["fan_in", "fan_out"] | None = None
    """Fan that convolutions of the ImageNet ResNets are initialised for; None is fan_out."""


@dataclass(frozen=True)
class MethodConfig:
    """How the mask is chosen; the method's own options stand in a group of their own."""

    method: str = "art"
    """A name that `sparsetrain methods` lists."""
    sparsity: float = 0.9
    """Fraction of prunable weights that end as zeros, in [0, 1)."""
    compat: Literal["none", "paper"] = "none"
    """paper: test every epoch, train on the full training set unless `validation` is given, and
    count as the published code of art, granet and smart_ratio does."""
    include: tuple[str, ...] = ()
    """Names or globs of the weights to prune; none: all prunable ones."""
    exclude: tuple[str, ...] = ()
    """Names or globs of weights that stay dense and are not counted; quote a glob."""


@dataclass(frozen=True)
class OptimConfig:
    """How long, how fast."""

    epochs: int = 40
    """Total of all phases."""
    batch_size: int = 64
    """Images a step, of all processes together."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """The update rule."""
    lr: float = 0.1
    """Learning rate at the start of every phase."""
    momentum: float = 0.9
    """SGD's momentum."""
    nesterov: bool = False
    """Nesterov's form of it."""
    weight_decay: float = 1e-4
    """Decay of the weights, as SGD and Adam add it to the gradient."""
    decay_norms: bool = True
    """Decay batch norms and biases as well; without, only parameters of two or more dimensions."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """Learning rate over the last phase; earlier phases keep `lr`."""
    warmup: float = 0.0
    """Epochs at the start of the run over which the learning rate rises, step by step, from near
    zero to what it would be."""
    milestones: tuple[float, ...] = (0.5, 0.75)
    """Fractions of the phase at which the step schedule decays."""
    lr_decay: float = 0.1
    """Factor at each milestone."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    accumulate: int = 1
    """Parts that each process's share of a step's images is computed in, one after the other, so
    that less memory is needed; batch norm sees a part at a time."""
    ema: float | None = None
    """Decay of a moving average of the weights, as 0.9999; validation, test and the saved network
    are then the average's. None keeps none."""


@dataclass(frozen=True)
class RunConfig:
    """Where, how exactly, and what is kept."""

    seed: int = 0
    """Seed of the initial weights, the order of the images and their augmentation."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the device computes in it, else fp32."""
    threads: int | None = None
    """CPU threads; None is one where a step is small, else torch's own choice."""
    parallel: Literal["none", "ddp", "fsdp"] = "none"
    """How the processes that torchrun starts share the work: ddp, each holds the network; fsdp,
    each holds a part of it. Both take batch_size / processes images a step each."""
    channels_last: bool = True
    """Memory layout that convolutions prefer; fsdp does without."""
    compile: Literal["none", "auto", "default", "reduce-overhead", "max-autotune"] = "none"
    """torch.compile of the network: a mode of it, or auto: default on a GPU (not with deterministic
    or fsdp), none on a CPU. It takes a minute at the start."""
    sparse_compute: Literal["auto", "always", "never"] = "never"
    """Forward and backward passes with kept weights alone, on a CPU, where masks stay for the step:
    auto where that is measured to be faster (by density with deterministic), always everywhere."""
    sparse_eval: Literal["auto", "always", "never"] = "auto"
    """ART's pruned copies judged by kernels that compute with kept weights alone, in float32, on a
    CPU: auto where that is faster by a fixed estimate, so that repeats are equal."""
    deterministic: bool = False
    """Bit-identical repeats on a GPU too, at some speed."""
    out: Path | None = None
    """Run folder; None is runs/ and a name made of the settings."""
    resume: Literal["auto", "never"] = "auto"
    """auto: continue a folder that has the same settings; never: refuse one that exists."""
    checkpoint_every: str = "1ep"
    """Steps, epochs or minutes between checkpoints, as 500it, 1ep or 10min; Ctrl-C, SIGTERM and
    the end of training write one too."""
    keep: int = 2
    """Checkpoints kept, newest first."""
    trace: bool = True
    """Keep what the analyses of `sparsetrain report` need: a file of some kilobytes an epoch, most
    of them where masks move. Not under fsdp, where no process has the whole network."""
    tensorboard: bool = False
    """Write each epoch's numbers into the run folder's `tensorboard` as they come."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """A step whose loss or gradients are NaN or infinite: fail, or leave it out and count it; 20
    in a row fail too. skip looks at every gradient first: on a GPU a wait at each step."""


@dataclass(frozen=True)
class TrainConfig:
    """One run, whole.

    Attributes:
        options: the method's own options, an instance of `options.options_type(method)`.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sparse: MethodConfig = field(default_factory=MethodConfig)
    options: Any = field(default_factory=ArtOptions)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)


SECTIONS = ("data", "model", "sparse", "options", "optim", "run")

# Where a run lies and how it is computed and watched; two runs that differ only here are the same.
# `on_nonfinite` too: a run that has failed on a bad step may be continued with skip.
NOT_IDENTITY = frozenset(
    {
        "data_dir",
        "download",
        "workers",
        "prefetch",
        "threads",
        "compile",
        "parallel",
        "out",
        "resume",
        "checkpoint_every",
        "keep",
        "trace",
        "tensorboard",
        "on_nonfinite",
    }
)


def validation_share(config: TrainConfig) -> float:
    """The part of the training set that a run holds out."""
    if config.data.validation is not None:
        return config.data.validation
    return 0.0 if config.sparse.compat == "paper" else 0.1
