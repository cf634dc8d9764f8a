"""The named models under an experiment's cells, before and after SFT: what baselines are rows of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ablate.experiment.grid import Cell, Grid, Values
from ablate.experiment.sections import Scalar
from ablate.plan.axes import SharedModel, tell_apart
from ablate.plan.needs import Start
from ablate.plan.training import TrainingPlanner

Role = Literal["base", "sft"]
MADE_BY: Mapping[Role, tuple[str, ...]] = {"base": ("pretrain.",), "sft": ("pretrain.", "sft.")}
"""First letters of the keys by which a named model is made, before and after SFT."""


@dataclass(frozen=True)
class StartingModel:
    """A named model, and the axes by which its row is known."""

    start: Start
    axes: Values


def starting_models(
    training: TrainingPlanner, grid: Grid, roots: Sequence[Cell], role: Role
) -> dict[Cell, StartingModel]:
    """Return the model under every root of the grid's cells: what their chains, and the parts of merges, end in.

    Its axes are the policy and the axes of the grid that shape it, and what chains write where that makes another one.
    """
    model_of = training.sft_of if role == "sft" else training.base_of
    starts = [model_of(root) for root in roots]
    shaping = ("policy", *(axis for axis in grid.axes if axis.startswith(MADE_BY[role])))
    axes = [{axis: root.values.get(axis) for axis in shaping} for root in roots]
    keys = [(start.model.id, *own.values()) for start, own in zip(starts, axes, strict=True)]
    sharing: dict[tuple[Scalar, ...], list[Values]] = {}
    for key, root in zip(keys, roots, strict=True):
        sharing.setdefault(key, []).append(root.values)
    shared = [
        SharedModel((str(key[0]),), dict(zip(shaping, key[1:], strict=True)), cells) for key, cells in sharing.items()
    ]
    written = dict.fromkeys(key for root in roots for key in root.values if key.startswith(MADE_BY[role]))
    told = dict(zip(sharing, tell_apart(shared, written), strict=True))
    return {root: StartingModel(start, told[key]) for root, start, key in zip(roots, starts, keys, strict=True)}
