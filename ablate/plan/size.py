"""What the models of a plan need of devices, before anything is loaded: those whose size the catalog knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from ablate.catalogs.memory import GIB, Placement, choose_sharding, ppo_placements, trained_bytes
from ablate.catalogs.models import ModelEntry
from ablate.catalogs.parameters import DType
from ablate.errors import UsageError
from ablate.experiment.grid import Cell, Grid

DEVICE_GIB = 80
COUNTS = (1, 2, 4, 8, 16)
DEFAULT_RANK = 16


@dataclass(frozen=True)
class TrainedModel:
    """A model that is trained whole: bytes on one device, and how it is shared over several (null: it does not fit)."""

    name: str
    parameters: int
    bytes: float
    shardings: Mapping[int, str | None]


@dataclass(frozen=True)
class FourModels:
    """PPO's policy and reward model, and the ways to place them with their value network and reference."""

    policy: str
    reward_model: str
    dtype: DType
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class Sizes:
    """What is known of a plan's models."""

    trained: tuple[TrainedModel, ...]
    ppo: tuple[FourModels, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the sizes for ``--json``; bytes."""
        return asdict(self)


def sizes_of(grid: Grid, models: Mapping[str, ModelEntry]) -> Sizes:
    """Return what the models of the cells need; models made here from scratch fit anywhere and are left out."""
    trained: dict[str, TrainedModel] = {}
    ppo: dict[tuple[str, str, DType], FourModels] = {}
    for cell in grid.cells:
        dtype = _dtype(cell)
        keys = ("policy", "reward_model.init")
        known = {key: (str(cell.values[key]), size) for key in keys if (size := _size(cell, key, models))}
        for name, size in known.values():
            trained.setdefault(name, _trained(name, size, dtype))
        if cell.method.name == "ppo" and len(known) == 2:
            (policy, policy_size), (judge, judge_size) = known["policy"], known["reward_model.init"]
            rank = cell.values.get("ppo.lora_rank")
            placements = ppo_placements(policy_size, judge_size, rank if isinstance(rank, int) else DEFAULT_RANK, dtype)
            ppo.setdefault((policy, judge, dtype), FourModels(policy, judge, dtype, tuple(placements)))
    return Sizes(tuple(trained.values()), tuple(ppo.values()))


def _size(cell: Cell, key: str, models: Mapping[str, ModelEntry]) -> int | None:
    entry = models.get(str(cell.values.get(key)))
    return entry.parameters if entry else None


def _dtype(cell: Cell) -> DType:
    field = cell.method.parameters.model_fields.get("dtype")
    return cast(DType, cell.values.get(f"{cell.method.name}.dtype") or (field.default if field else "float32"))


def _trained(name: str, size: int, dtype: DType) -> TrainedModel:
    shardings = {count: _sharding(size, count, dtype) for count in COUNTS}
    return TrainedModel(name, size, trained_bytes(size, dtype), shardings)


def _sharding(size: int, gpus: int, dtype: DType) -> str | None:
    try:
        return choose_sharding(size, gpus, DEVICE_GIB * GIB, dtype)
    except UsageError:
        return None
