"""accelerate: the plain model and optimizer behind what `Accelerator.prepare` returns."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

try:
    from accelerate import Accelerator, DistributedType
    from accelerate.optimizer import AcceleratedOptimizer
except ImportError as error:
    raise ImportError(
        "sparsetrain.integrations.accelerate needs accelerate: "
        "pip install 'sparsetrain[accelerate]'"
    ) from error


def unwrap(
    accelerator: Accelerator, model: nn.Module, optimizer: Optimizer
) -> tuple[nn.Module, Optimizer]:
    """What `st.Sparsifier`, `st.ART` and `st.IMP` are made of, after `accelerator.prepare`::

        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        sparsifier = st.Sparsifier(*unwrap(accelerator, model, optimizer), method, seed=0)
        accelerator.register_for_checkpointing(sparsifier)

    accelerate's optimizer skips calls between accumulated gradients and has no hooks; the one
    inside is stepped exactly when weights move.

    Args:
        accelerator: the one that prepared them.
        model: prepared or plain.
        optimizer: prepared or plain.
    Returns:
        The plain model and the `torch.optim` optimizer, the same objects that training uses.
    Raises:
        ValueError: under DeepSpeed and Megatron, which keep the weights in tensors of their own.
    """
    if accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ValueError(
            f"accelerate's {accelerator.distributed_type.value} keeps the weights in tensors of "
            "its own, which cannot be masked; use DDP or FSDP2"
        )
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return accelerator.unwrap_model(model), optimizer
