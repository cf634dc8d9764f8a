"""What the models of a plan need of devices, before anything is loaded: those whose size the catalog knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from ablate.catalogs.memory import GIB, Placement, choose_sharding, ppo_placements, trained_bytes
from ablate.catalogs.models import ModelEntry
from ablate.catalogs.parameters import DType
from ablate.errors import UsageError
from ablate.experiment.chains import root_of
from ablate.experiment.grid import Cell, Grid
from ablate.experiment.sections import SECTIONS
from ablate.plan.stage import Stage

DEVICE_GIB = 80
COUNTS = (1, 2, 4, 8, 16)
DEFAULT_RANK = 16


@dataclass(frozen=True)
class TrainedModel:
    """A model that is trained whole: bytes on one device, and how it is shared over several (null: it does not fit)."""

    name: str
    dtype: DType
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


def model_sizes(stages: Mapping[str, Stage], models: Mapping[str, ModelEntry]) -> dict[str, float]:
    """Return the parameters of the largest model that reaches each stage; 0 where it is made here or not known."""
    known = {entry.hub.id: float(entry.parameters or 0) for entry in models.values() if entry.hub}
    sizes: dict[str, float] = {}
    for stage in stages.values():  # parents first
        above = max((sizes.get(parent, 0.0) for parent in stage.parents), default=0.0)
        own = known.get(stage.execution.locations.get("model", ""), 0.0) if stage.kind == "model" else 0.0
        sizes[stage.id] = max(above, own)
    return sizes


def sizes_of(grid: Grid, models: Mapping[str, ModelEntry]) -> Sizes:
    """Return what the models of the cells need; models made here from scratch fit anywhere and are left out."""
    trained: dict[tuple[str, DType], TrainedModel] = {}
    ppo: dict[tuple[str, str, DType], FourModels] = {}
    for cell in grid.cells:
        known = {key: (name, models[name].parameters) for key, name in _names(cell) if name in models}
        sizes = {key: (name, size) for key, (name, size) in known.items() if size is not None}
        for key, (name, size) in sizes.items():
            dtype = _dtype(cell, key)
            trained.setdefault((name, dtype), _trained(name, size, dtype))
        if cell.method.name == "ppo" and len(sizes) == 2:
            (policy, policy_size), (judge, judge_size) = sizes["policy"], sizes["reward_model"]
            rank, dtype = cell.values.get("ppo.lora_rank"), _dtype(cell, "policy")
            placements = ppo_placements(policy_size, judge_size, rank if isinstance(rank, int) else DEFAULT_RANK, dtype)
            ppo.setdefault((policy, judge, dtype), FourModels(policy, judge, dtype, tuple(placements)))
    return Sizes(tuple(trained.values()), tuple(ppo.values()))


def _names(cell: Cell) -> Iterator[tuple[str, str]]:
    """Yield the models that a cell trains: its policy, by the model under a chain, and its reward model."""
    if cell.method.entry:
        yield "policy", root_of(cell.policy)
    if cell.has_reward_model:
        yield "reward_model", str(cell.values["reward_model.init"])


def _dtype(cell: Cell, key: str) -> DType:
    section = cell.method.name if key == "policy" else key
    field = SECTIONS[section].model_fields.get("dtype")
    return cast(DType, cell.values.get(f"{section}.dtype") or (field.default if field else "float32"))


def _trained(name: str, size: int, dtype: DType) -> TrainedModel:
    shardings = {count: _sharding(size, count, dtype) for count in COUNTS}
    return TrainedModel(name, dtype, size, trained_bytes(size, dtype), shardings)


def _sharding(size: int, gpus: int, dtype: DType) -> str | None:
    try:
        return choose_sharding(size, gpus, DEVICE_GIB * GIB, dtype)
    except UsageError:
        return None
