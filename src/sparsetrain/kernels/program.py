"""Programs: a network's steps on packed activations, run depth-first, block after block.

A Program is a value: a straight list of steps between buffers. An Executor is made once from it
and run on any batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import native, program_native, program_twin
from .packed import Layout as Layout
from .program_steps import Add as Add
from .program_steps import Affine as Affine
from .program_steps import Conv as Conv
from .program_steps import Flatten as Flatten
from .program_steps import Pool as Pool
from .program_steps import Step as Step


@dataclass(frozen=True, eq=False)
class Program:
    """A straight list of steps.

    Attributes:
        buffers: the layout of each, all with one block size; the first with index 0. A buffer may
            be written more than once.
        steps: run in this order.
        inputs: buffers that the tensors of a call are packed into, each once.
        outputs: buffers that are unpacked when all steps are done.

    Raises:
        ValueError: a step whose layouts do not fit, or that reads what nobody has written.
    """

    buffers: tuple[Layout, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        blocks = sorted({layout.block for layout in self.buffers})
        if len(blocks) != 1:
            raise ValueError(f"buffers must share one block size, got {blocks}.")
        if not self.inputs or len(set(self.inputs)) != len(self.inputs):
            raise ValueError(f"inputs must be one buffer or more, each once, got {self.inputs}.")
        written: set[int] = set()
        for index in self.inputs:
            self._check_place("inputs", index)
            written.add(index)
        for number, step in enumerate(self.steps):
            self._check_step(number, step, written)
            written.add(step.target)
        self._check_read("outputs", self.outputs, written)

    @property
    def block(self) -> int:
        """Images side by side."""
        return self.buffers[0].block

    def _check_step(self, number: int, step: Step, written: set[int]) -> None:
        name = f"step {number} ({type(step).__name__})"
        self._check_place(name, step.target)
        self._check_read(name, step.reads, written)
        try:
            step.check(self.buffers)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def _check_read(self, name: str, places: tuple[int, ...], written: set[int]) -> None:
        for index in places:
            self._check_place(name, index)
            if index not in written:
                raise ValueError(f"{name} reads buffer {index}, which nothing has written before.")

    def _check_place(self, name: str, index: int) -> None:
        if not 0 <= index < len(self.buffers):
            raise ValueError(
                f"{name} names buffer {index}, there are {len(self.buffers)}, from 0 on."
            )


@dataclass(frozen=True)
class Profile:
    """Seconds of one run on one thread.

    Attributes:
        inputs: packing of each input.
        steps: each step.
        outputs: unpacking of each output.
    """

    inputs: tuple[float, ...]
    steps: tuple[float, ...]
    outputs: tuple[float, ...]


class Executor:
    """A program, ready to run; safe to be called from several threads."""

    def __init__(self, program: Program) -> None:
        self.program = program
        built = native.library() is not None
        self._compiled = program_native.Compiled(program) if built else None
        inputs = (program.buffers[index] for index in program.inputs)
        self._sizes = [(layout.channels, layout.height, layout.width) for layout in inputs]

    def __reduce__(self) -> tuple[type[Executor], tuple[Program]]:
        """Copies and unpickled ones are made from the program."""
        return type(self), (self.program,)

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the program on a batch.

        Args:
            tensors: one for each input, float32 [batch, channels, height, width] on the CPU, or
                [batch, channels] for 1x1 images; of any strides, with one batch >= 0.

        Returns:
            One for each output, contiguous float32 [batch, channels, height, width].

        Raises:
            ValueError: another number of tensors, other shapes or another dtype.
        """
        images = self._images(tensors)
        if self._compiled is None or not native.takes(images, torch.float32):
            return program_twin.run(self.program, images)
        return self._compiled.run(images)

    def profile(self, *tensors: Tensor) -> Profile:
        """Run on one thread and measure; without the C++ kernels all times are zero.

        Args:
            tensors: as for a call.
        """
        images = self._images(tensors)
        ends = len(self.program.inputs), len(self.program.outputs)
        seconds = torch.zeros(ends[0] + len(self.program.steps) + ends[1], dtype=torch.float64)
        if self._compiled is not None:
            self._compiled.run(images, seconds)
        parts = seconds.split([ends[0], len(self.program.steps), ends[1]])
        return Profile(*(tuple(part.tolist()) for part in parts))

    def _images(self, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        """The tensors as four-dimensional ones, checked."""
        if len(tensors) != len(self._sizes):
            raise ValueError(f"the program takes {len(self._sizes)} tensors, got {len(tensors)}.")
        batch = tensors[0].shape[0] if tensors[0].dim() else 0
        images = []
        for number, (tensor, size) in enumerate(zip(tensors, self._sizes, strict=True)):
            whole = tensor.detach() if tensor.requires_grad else tensor
            if tensor.dim() == 2 and size[1:] == (1, 1):
                whole = whole[:, :, None, None]
            wanted = (batch, *size)
            if tensor.dtype is not torch.float32 or not tensor.is_cpu or whole.shape != wanted:
                raise ValueError(
                    f"tensor {number} must be float32 of shape {wanted} on the CPU, got "
                    f"{tensor.dtype} of {tuple(tensor.shape)} on {tensor.device}."
                )
            images.append(whole)
        return images
