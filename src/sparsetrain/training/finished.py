"""A finished run's network, read from its folder and ready for images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from .. import models
from ..types import Masks
from .config import TrainConfig
from .errors import BadInput
from .feeds import load_data
from .folder import RunFolder
from .inputs import Inputs
from .session import model_options


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished run.

    Attributes:
        model: its network with the zeros in it, in evaluation mode, on the CPU, float32.
        masks: name -> bool tensor, True where a weight is not 0.
        inputs: what the images must be, and the names of the classes.
        record: everything in `record.json`.
    """

    model: nn.Module
    masks: Masks
    inputs: Inputs
    record: Mapping[str, Any]

    def prepare(self, images: Tensor) -> Tensor:
        """Pixels as the network takes them; see `Inputs.prepare`."""
        return self.inputs.prepare(images)


@dataclass(frozen=True, eq=False)
class Parts:
    """A finished run's files.

    Attributes:
        config: its settings.
        record: everything in `record.json`.
        weights: its state dict, on the CPU.
        masks: name -> bool tensor, where a prunable weight is not 0: a run's file keeps no masks.
    """

    config: TrainConfig
    record: dict[str, Any]
    weights: dict[str, Tensor]
    masks: dict[str, Tensor]

    def inputs(self) -> Inputs:
        """What the images must be; from the data set where the record is of an earlier version.

        Raises:
            ValueError: the data set is needed and missing.
        """
        if "inputs" in self.record:
            return Inputs.of_record(self.record["inputs"])
        return Inputs.of(load_data(self.config.data))

    def network(self, inputs: Inputs) -> nn.Module:
        """The network with the weights in it, on the CPU.

        Raises:
            BadInput: the weights are of another network.
        """
        model = models.create(
            self.config.model.model,
            num_classes=len(inputs.classes),
            in_channels=inputs.shape[0],
            image_size=inputs.shape[1],
            **model_options(self.config.model),
        )
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise BadInput("the run's weights are not those of its settings' network.") from error
        return model


def opened(path: Path) -> Parts:
    """The files of a finished run.

    Raises:
        BadInput: no finished run lies there, or it cannot be read.
    """
    folder = RunFolder(path)
    config, record = folder.load_config(), folder.load_record()
    if record is None:
        raise BadInput(f"the run in {path} is not finished; continue it with `sparsetrain train`.")
    try:
        weights = load(folder.weights.read_bytes())
        masks = {name: weights[name] != 0 for name in record["sparsity"]["per_layer"]}
    except (OSError, KeyError, SafetensorError) as error:
        raise BadInput(f"cannot read the network of {path}: {error}.") from error
    return Parts(config, record, weights, masks)


def load_run(path: str | os.PathLike[str]) -> TrainedRun:
    """The network of a finished run, ready to be used::

        run = st.load_run("runs/granet")
        logits = run.model(run.prepare(pixels))  # uint8 [N, C, H, W]
        fast = st.compile_sparse(run.model, run.prepare(pixels))

    Args:
        path: the run folder.
    Raises:
        ValueError: no finished run lies there, or it cannot be read.
    """
    parts = opened(Path(path))
    inputs = parts.inputs()
    return TrainedRun(parts.network(inputs).eval(), parts.masks, inputs, parts.record)
