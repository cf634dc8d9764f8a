"""What the store says of every stage of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.context import read_json
from ablate.results.cost import Cost
from ablate.results.long import Results
from ablate.store import StageFolder


@dataclass(frozen=True)
class StageRecord:
    """One stage: its config, the stages it takes in, and, once it is done, what it took and ran with."""

    id: str
    kind: str
    config: Mapping[str, Any]
    parents: tuple[str, ...]
    is_done: bool
    cost: Cost
    environment: Mapping[str, Any]


def read_stages(results: Results) -> dict[str, StageRecord]:
    """Return the stages of an experiment's plan by id."""
    return {stage: _read(results.store.stage(stage)) for stage in results.plan["stages"]}


def _read(folder: StageFolder) -> StageRecord:
    stage = folder.read_stage()
    done = folder.read_done()
    attempt = folder.attempt(int((done or {}).get("attempt", 1)))
    has_environment = done is not None and attempt.environment_json.exists()
    return StageRecord(
        id=folder.id,
        kind=folder.kind,
        config=stage.get("config") or {},
        parents=tuple(dict.fromkeys(item["stage"] for item in (stage.get("inputs") or {}).values())),
        is_done=done is not None,
        cost=Cost.of(done),
        environment=read_json(attempt.environment_json) if has_environment else {},
    )
