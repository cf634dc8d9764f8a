"""How much memory training takes, and what fits: parameters times bytes, before anything is loaded.

Weights that are trained stay float32 and so do their gradients and AdamW's two moments: 4 + 4 + 8 bytes a parameter;
bfloat16 passes keep a copy of 2 more. So full fine-tuning takes 18 bytes a parameter, a frozen model 6. Activations
come on top: a share of every device is left to them, and the micro-batch is what fits into it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ablate.catalogs.parameters import DType
from ablate.context import Sharding
from ablate.errors import UsageError

GIB = 2**30
WEIGHT, GRADIENT, MOMENTS = 4, 4, 8
COPY = {"float32": 0, "bfloat16": 2}
"""Bytes a parameter of the copy that passes in another type multiply with."""
SHARE = 0.8
"""Of a device's memory, for weights and what belongs to them; the rest is for activations."""

SHARDINGS: tuple[Sharding, ...] = ("ddp", "zero2", "zero3")
"""From the fastest to the one that takes least memory: what fits first is chosen."""


def trained_bytes(parameters: float, dtype: DType, sharding: Sharding = "ddp", gpus: int = 1) -> float:
    """Return the bytes on each of ``gpus`` of a model whose weights are all trained.

    DDP keeps everything on each; ZeRO-2 shares gradients and moments out, ZeRO-3 the weights, too (Rajbhandari et al.
    2020, arXiv 1910.02054, section 3, with float32 weights).
    """
    weights, states = WEIGHT + COPY[dtype], GRADIENT + MOMENTS
    copied, shared = {"ddp": (weights + states, 0), "zero2": (weights, states), "zero3": (0, weights + states)}[
        sharding
    ]
    return parameters * (copied + shared / gpus)


def frozen_bytes(parameters: float, dtype: DType) -> float:
    """Return the bytes of a model that only makes forward passes."""
    return parameters * (WEIGHT + COPY[dtype])


def adapter_parameters(parameters: float, rank: int) -> float:
    """Return about how many parameters an adapter of all linear layers has.

    For a Llama of width h, h / 128 layers and a feed-forward of 2.7 h: a layer has 12 h^2 weights and its adapter
    19 rank h, so that parameters = 12 h^3 / 128.
    """
    width: float = (parameters * 128 / 12) ** (1 / 3)
    return 19 / 12 * rank / width * parameters


def choose_sharding(parameters: float, gpus: int, memory: float, dtype: DType = "bfloat16") -> Sharding:
    """Return the first sharding with which full fine-tuning fits ``gpus`` devices of ``memory`` bytes each.

    Raises UsageError with the number of devices that would do.
    """
    for sharding in SHARDINGS:
        if trained_bytes(parameters, dtype, sharding, gpus) <= SHARE * memory:
            return sharding
    enough = -(-trained_bytes(parameters, dtype) // (SHARE * memory))
    raise UsageError(
        f"full fine-tuning of {parameters / 1e9:.3g} billion parameters takes "
        f"{trained_bytes(parameters, dtype) / GIB:.0f} GiB, more than {gpus} x {memory / GIB:.0f} GiB hold",
        hint=f"use {enough:.0f} such devices (ZeRO-3), or train an adapter (lora_rank)",
    )


@dataclass(frozen=True)
class Placement:
    """One way to place PPO's four models: bytes on the device that trains, on another one, in host memory."""

    name: str
    device: float
    other: float = 0.0
    host: float = 0.0


def ppo_placements(policy: float, reward_model: float, rank: int = 16, dtype: DType = "bfloat16") -> list[Placement]:
    """Return the placements of policy, value network (of the reward model's size), reference and reward model."""
    both = policy + reward_model
    trained, frozen = trained_bytes(both, dtype), frozen_bytes(both, dtype)
    adapters = adapter_parameters(policy, rank) + adapter_parameters(reward_model, rank)
    largest = frozen_bytes(max(policy, reward_model), dtype)
    return [
        Placement("all on one device", trained + frozen),
        Placement(f"adapters of rank {rank} on shared backbones", frozen + trained_bytes(adapters, dtype)),
        Placement("reference and reward model in host memory between uses", trained + largest, host=WEIGHT * both),
        Placement("reference and reward model on another device", trained, other=frozen),
    ]
