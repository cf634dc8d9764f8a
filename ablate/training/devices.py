"""Where tensors live and in which numeric type they are multiplied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from ablate.context import Resources
from ablate.errors import OutOfMemory


def stage_device(resources: Resources) -> torch.device:
    """Return the GPU of this process among those the stage was given, else the CPU.

    The process sees the stage's GPUs only (CUDA_VISIBLE_DEVICES); where several train, each chose its own as it joined.
    """
    if resources.gpus and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


@contextmanager
def room_for(examples: int) -> Iterator[None]:
    """Turn a refusal of memory in the block into OutOfMemory, with the examples that a pass had."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise OutOfMemory(f"no memory for passes of {examples} examples: {error}", examples) from error
        raise


def autocast(device: torch.device | str, dtype: str) -> AbstractContextManager[None]:
    """Return the context a forward pass runs in: ``bfloat16`` multiplies in bfloat16 over float32 weights.

    The weights stay float32 because a learning rate of 5e-7 is below bfloat16's spacing: updates would be lost.
    """
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=getattr(torch, dtype))
