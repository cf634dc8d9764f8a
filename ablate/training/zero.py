"""Weights, gradients and moments shared out over the processes that train a model: DeepSpeed's ZeRO.

Which of it is chosen by the size of the model and the memory of a device (``ablate.catalogs.memory``), unless the
resources name it. Batches, losses and results are those of one process, but for rounding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablate.catalogs.memory import choose_sharding
from ablate.catalogs.parameters import DType
from ablate.context import Sharding, read_json, write_json
from ablate.errors import StageError, UsageError
from ablate.training.distributed import is_main, world
from ablate.training.lora import has_adapter

STAGES: dict[Sharding, int] = {"ddp": 0, "zero2": 2, "zero3": 3}
FILE = "sharding.json"


def sharding_of(models: Sequence[nn.Module], dtype: DType, asked: Sharding | None, *, gpu: bool) -> Sharding:
    """Return how the processes of a stage share what is trained of ``models``.

    What is ``asked`` counts, but an adapter is small, and every process has all of it. Else the first that has room
    on the devices is chosen, and on CPUs none is. Raises StageError where none has room.
    """
    if world() == 1 or any(map(has_adapter, models)):
        return "ddp"
    if asked is not None or not gpu:
        return asked or "ddp"
    parameters = sum(value.numel() for model in models for value in model.parameters())
    memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    try:
        return choose_sharding(parameters, world(), memory, dtype)
    except UsageError as error:
        raise StageError(error.message, hint=error.hint) from error


def require_deepspeed(sharding: Sharding) -> Any:
    """Return DeepSpeed's module, ready for this process; raises StageError where it is not installed."""
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    try:
        import deepspeed
        from deepspeed.ops import __compatible_ops__ as operators
    except ImportError as error:
        raise StageError(
            f"{sharding} is DeepSpeed's, which can't be imported: {error}",
            hint="DS_BUILD_OPS=0 pip install 'ablate[deepspeed]', or ask for a copy on every device: --sharding ddp",
        ) from error
    operators["deepspeed_shm_comm"] = False  # compiled at first use, for inference on one machine's CPUs alone
    return deepspeed


def config(
    sharding: Sharding, dtype: DType, micro_batch: int = 1, accumulation: int = 1, *, max_grad_norm: float
) -> dict[str, Any]:
    """Return DeepSpeed's configuration: float32 weights, gradients and moments, passes in ``dtype``."""
    stage = STAGES[sharding]
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro_batch * accumulation * world(),
        "gradient_clipping": max_grad_norm,
        "zero_optimization": {"stage": stage, "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        # no module named: gradients travel in float32
        "torch_autocast": {"enabled": dtype != "float32", "dtype": dtype, "lower_precision_safe_modules": []},
        "steps_per_print": 10**9,
    }


def mark(checkpoint: Path, sharding: Sharding) -> None:
    """Write into a checkpoint how many processes share it, and how."""
    write_json(checkpoint / FILE, {"sharding": sharding, "processes": world()})


def require_mark(checkpoint: Path, sharding: Sharding) -> None:
    """Raise StageError where a checkpoint can't be read by these processes: ZeRO's parts fit the same ones only."""
    path = checkpoint / FILE
    written = read_json(path) if path.exists() else {"sharding": "ddp"}
    own = {"sharding": sharding, "processes": world()}
    if written["sharding"] == sharding == "ddp" or written == own:
        return
    was = f"{written['sharding']} over {written['processes']} processes" if "processes" in written else "one copy"
    raise StageError(
        f"{checkpoint} was written with {was}, and this is {sharding} over {world()}",
        hint="go on as it was begun (--sharding, --processes; sharding and gpus of a profile), or remove it",
    )


@torch.no_grad()
def unwrapped(engine: Any) -> nn.Module:
    """Return the model of a DeepSpeed engine, which ends: its weights are its own again, on the CPU.

    The main process gets all of them; the others have an empty model left.
    """
    from deepspeed import zero

    model: nn.Module = engine.module
    places = [(module, name, value) for module in model.modules() for name, value in _own_parameters(module)]
    copies: dict[nn.Parameter, nn.Parameter] = {}
    for _, _, value in places:
        if value not in copies:  # tied weights stay tied
            with zero.GatheredParameters([value], enabled=hasattr(value, "ds_id")):
                data = value.data if is_main() else value.data.new_empty(0)
                copies[value] = nn.Parameter(data.cpu().clone(), requires_grad=value.requires_grad)
    engine.destroy()
    for module, name, value in places:
        setattr(module, name, copies[value])
    return model


def _own_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(module.named_parameters(recurse=False))
