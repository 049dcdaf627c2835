"""Our ResNets and VGGs as packed programs: batch norm folded, ReLU and shortcut in the convolution.

Only what benchmarks/runtime.py needs: modules in a row and basic blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsetrain.kernels import sparse_conv as sc
from sparsetrain.kernels.packed import Layout
from sparsetrain.kernels.program import Conv, Pool, Program, Step
from sparsetrain.models.common import GlobalAverage
from sparsetrain.models.resnet import BasicBlock


class _Lowering:
    """Buffers and steps, made module by module."""

    def __init__(self, image: tuple[int, int, int], block: int, halo: int = 1) -> None:
        self.block, self.halo = block, halo
        self.buffers = [Layout(*image, halo, block)]
        self.steps: list[Step] = []

    def buffer(self, channels: int, height: int, width: int) -> int:
        halo = self.halo if height * width > 1 else 0
        self.buffers.append(Layout(channels, height, width, halo, self.block))
        return len(self.buffers) - 1

    def conv(
        self,
        source: int,
        conv: nn.Conv2d | nn.Linear,
        norm: nn.BatchNorm2d | None,
        *,
        relu: bool,
        residual: int | None = None,
    ) -> int:
        layout = self.buffers[source]
        weight, bias = _folded(conv, norm)
        stride, padding = (
            (conv.stride[0], (int(conv.padding[0]), int(conv.padding[1])))
            if isinstance(conv, nn.Conv2d)
            else (1, (0, 0))
        )
        kernel = (weight.shape[2], weight.shape[3])
        geometry = sc.Geometry(
            layout.channels, weight.shape[0], kernel, stride, padding, layout.height, layout.width
        )
        target = self.buffer(geometry.outputs, geometry.out_height, geometry.out_width)
        plan = sc.plan(
            weight != 0,
            geometry,
            block=self.block,
            source_halo=layout.halo,
            target_halo=self.buffers[target].halo,
        )
        values = sc.gather(plan, weight)
        self.steps.append(Conv(source, target, plan, values, bias, residual, relu))
        return target

    def pool(self, source: int, size: int) -> int:
        layout = self.buffers[source]
        target = self.buffer(layout.channels, layout.height // size, layout.width // size)
        self.steps.append(Pool(source, target, "max", (size, size), (size, size)))
        return target

    def mean(self, source: int) -> int:
        layout = self.buffers[source]
        whole = (layout.height, layout.width)
        target = self.buffer(layout.channels, 1, 1)
        self.steps.append(Pool(source, target, "mean", whole, whole))
        return target

    def block_of(self, source: int, block: BasicBlock) -> int:
        middle = self.conv(source, block.conv1, block.bn1, relu=True)
        short = source
        if isinstance(block.downsample, nn.Sequential):
            conv, norm = block.downsample
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            short = self.conv(source, conv, norm, relu=False)
        return self.conv(middle, block.conv2, block.bn2, relu=True, residual=short)


def lower(model: nn.Module, image: tuple[int, int, int], *, block: int) -> Program:
    """The program of a network in evaluation mode; pruned weights are its zeros."""
    made, modules, at = _Lowering(image, block), _flat(model), 0
    while modules:
        module = modules.pop(0)
        if isinstance(module, BasicBlock):
            at = made.block_of(at, module)
        elif isinstance(module, nn.MaxPool2d):
            at = made.pool(at, int(module.kernel_size))
        elif isinstance(module, GlobalAverage):
            at = made.mean(at)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            norm = modules.pop(0) if modules and isinstance(modules[0], nn.BatchNorm2d) else None
            relu = bool(modules) and isinstance(modules[0], nn.ReLU)
            if relu:
                modules.pop(0)
            assert norm is None or isinstance(norm, nn.BatchNorm2d)
            at = made.conv(at, module, norm, relu=relu)
        else:
            raise TypeError(f"no packed step for {type(module).__name__}")
    return Program(tuple(made.buffers), tuple(made.steps), (0,), (at,))


def _flat(module: nn.Module) -> list[nn.Module]:
    if not isinstance(module, nn.Sequential):
        return [module]
    return [inner for child in module for inner in _flat(child)]


def _folded(
    conv: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None
) -> tuple[Tensor, Tensor | None]:
    """Weight as [outputs, channels, rows, columns] and bias with batch norm inside, in float64."""
    weight = conv.weight.detach().double()
    weight = weight if weight.dim() == 4 else weight[:, :, None, None]
    bias = None if conv.bias is None else conv.bias.detach().double()
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = norm.bias.detach().double() - norm.running_mean.double() * scale
        bias = shift if bias is None else bias * scale + shift
        weight = weight * scale.view(-1, 1, 1, 1)
    return weight.float(), None if bias is None else bias.float()


def randomised(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """Batch norm as after a training, so that folding matters, and the weights masked."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.1)
        for name, parameter in model.named_parameters():
            if name in masks:
                parameter.mul_(masks[name])
    return model.eval()
