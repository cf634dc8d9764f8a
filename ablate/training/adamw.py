"""AdamW as every loop of ours sets it up, and its state beside the weights in safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ablate.errors import StageError

Named = Mapping[str, nn.Parameter]


def adamw(parameters: Named, learning_rate: float, weight_decay: float, *, fused: bool = False) -> torch.optim.AdamW:
    """Return AdamW over named parameters; vectors (norms, biases) are not decayed."""
    matrices = [value for value in parameters.values() if value.ndim >= 2]
    vectors = [value for value in parameters.values() if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=fused)


def save_state(folder: Path, name: str, parameters: Named, optimiser: torch.optim.AdamW) -> None:
    """Write weights (``<name>.safetensors``; tied ones once) and moments (``<name>_optimiser.safetensors``)."""
    save_file({key: value.detach().contiguous() for key, value in parameters.items()}, folder / f"{name}.safetensors")
    moments = {
        f"{key}/{entry}": tensor.contiguous()
        for key, value in parameters.items()
        for entry, tensor in optimiser.state.get(value, {}).items()
    }
    save_file(moments, folder / f"{name}_optimiser.safetensors")


@torch.no_grad()
def load_state(folder: Path, name: str, parameters: Named, optimiser: torch.optim.AdamW) -> None:
    """Restore what ``save_state`` wrote; raises StageError when it was another model's."""
    weights = load_file(folder / f"{name}.safetensors")
    if weights.keys() != parameters.keys():
        raise StageError(f"{folder / name}.safetensors is of another model; remove this checkpoint")
    for key, value in parameters.items():
        value.copy_(weights[key])
    groups = optimiser.param_groups
    numbers = {id(value): number for number, value in enumerate(v for group in groups for v in group["params"])}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / f"{name}_optimiser.safetensors").items():
        parameter, entry = key.rsplit("/", 1)
        state.setdefault(numbers[id(parameters[parameter])], {})[entry] = tensor
    stored: dict[str, Any] = {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
    optimiser.load_state_dict(stored)  # which knows where each kind of AdamW keeps its step count
