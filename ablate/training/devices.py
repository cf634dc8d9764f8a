"""Where tensors live and in which numeric type they are multiplied."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from ablate.context import Resources


def stage_device(resources: Resources) -> torch.device:
    """Return the first GPU the stage was given, else the CPU.

    The process sees the stage's GPUs only (CUDA_VISIBLE_DEVICES), so that the first one has index 0 there.
    """
    if resources.gpus and torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("cpu")


def autocast(device: torch.device | str, dtype: str) -> AbstractContextManager[None]:
    """Return the context a forward pass runs in: ``bfloat16`` multiplies in bfloat16 over float32 weights.

    The weights stay float32 because a learning rate of 5e-7 is below bfloat16's spacing: updates would be lost.
    """
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=getattr(torch, dtype))
