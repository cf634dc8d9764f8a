"""What the stages of a plan would leave on the disk: by what earlier ones left, or by the size of their models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ablate.catalogs.memory import MOMENTS, WEIGHT
from ablate.plan.stage import Stage

BYTES_A_PARAMETER = {"model": 2, **dict.fromkeys(("merge", "pretrain", "sft", "reward_model", "train"), WEIGHT)}
"""What stages that leave a model write for each of its parameters; released weights are of two bytes."""


@dataclass(frozen=True)
class Disk:
    """Bytes that stages would leave, kinds that nothing is known of, and bytes of the largest training's checkpoint."""

    bytes: float
    unknown: tuple[str, ...]
    checkpoint: float

    def as_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return asdict(self)


def disk_of(stages: Iterable[Stage], parameters: Mapping[str, float], measured: Mapping[str, float]) -> Disk:
    """Estimate the disk that ``stages`` take.

    ``parameters`` are those of the largest model that reaches a stage, 0 where that is not known; ``measured`` the
    bytes that a stage of each kind left in this store.
    """
    total, checkpoint, unknown = 0.0, 0.0, dict[str, None]()
    for stage in stages:
        size, each = parameters[stage.id], BYTES_A_PARAMETER.get(stage.kind)
        if size and each:
            total += size * each
            checkpoint = max(checkpoint, size * (WEIGHT + MOMENTS) if stage.execution.trains else 0.0)
        elif stage.kind in measured:
            total += measured[stage.kind]
        else:
            unknown[stage.kind] = None
    return Disk(total, tuple(unknown), checkpoint)
