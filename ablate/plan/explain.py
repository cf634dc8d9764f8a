"""What a plan would do against a store: counts, what is shared, what would run and why, how long it may take."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.catalogs.models import models
from ablate.plan.disk import Disk, disk_of
from ablate.plan.plan import Plan
from ablate.plan.size import Sizes, model_sizes, sizes_of
from ablate.plan.stage import Stage
from ablate.store import Store

SAMPLED = 500
"""Done stages of each kind whose times are looked at: a large store answers as fast as a small one."""


@dataclass(frozen=True)
class KindCount:
    """One line of the summary: a kind of stage."""

    kind: str
    stages: int
    done: int
    seconds: float | None

    @property
    def to_run(self) -> int:
        """Stages that would run."""
        return self.stages - self.done


@dataclass(frozen=True)
class Explanation:
    """What ``ablate plan`` says."""

    plan: Plan
    kinds: tuple[KindCount, ...]
    to_run: tuple[tuple[Stage, str], ...]
    disk: Disk

    @functools.cached_property
    def unshared(self) -> int:
        """How many stages would run if every cell and baseline made all it needs for itself."""
        planned = (item for item in self.plan.subjects if item.stage in self.plan.stages)
        return sum(_count_ancestors(self.plan, (item.stage, *item.evaluations.values())) for item in planned)

    @functools.cached_property
    def sizes(self) -> Sizes:
        """What the plan's models need of devices."""
        return sizes_of(self.plan.grid, models())

    @property
    def seconds(self) -> float | None:
        """Estimated work of what would run, in worker seconds; None when a kind never ran in this store."""
        needed = [kind for kind in self.kinds if kind.to_run]
        if any(kind.seconds is None for kind in needed):
            return None
        return sum(kind.to_run * (kind.seconds or 0.0) for kind in needed)

    def as_json(self) -> dict[str, Any]:
        """Return the explanation for ``--json``."""
        return {
            "experiment": self.plan.name,
            "cells": len(self.plan.grid.cells),
            "axes": list(self.plan.grid.axes),
            "stages": len(self.plan.stages),
            "requested": self.unshared,
            "kinds": [
                {
                    "kind": item.kind,
                    "stages": item.stages,
                    "done": item.done,
                    "to_run": item.to_run,
                    "seconds": item.seconds,
                }
                for item in self.kinds
            ],
            "embedded": self.plan.embedded,
            "shared_judges": list(self.plan.shared_judges),
            **({"tuning": self.plan.tuning.as_json()} if self.plan.tuning else {}),
            "estimated_worker_seconds": self.seconds,
            "disk": self.disk.as_json(),
            "memory": self.sizes.as_json(),
            "to_run": [
                {"id": stage.id, "kind": stage.kind, "label": stage.execution.label, "why": why}
                for stage, why in self.to_run
            ],
        }


def explain(plan: Plan, store: Store) -> Explanation:
    """Compare a plan with what a store holds; reads only."""
    done = {stage_id for stage_id in plan.stages if store.stage(stage_id).is_done()}
    to_run = tuple((stage, _why(stage, done, store)) for stage in plan.stages.values() if stage.id not in done)
    seconds, left = measured(store) if to_run else ({}, {})
    by_kind: dict[str, list[str]] = {}
    for stage in plan.stages.values():
        by_kind.setdefault(timing_key(stage), []).append(stage.id)
    kinds = tuple(
        KindCount(kind, len(ids), sum(stage_id in done for stage_id in ids), seconds.get(kind))
        for kind, ids in by_kind.items()
    )
    disk = disk_of((stage for stage, _ in to_run), model_sizes(plan.stages, models()), left)
    return Explanation(plan, kinds, to_run, disk)


def disk_to_take(plan: Plan, store: Store) -> Disk:
    """Return what the stages that are not done would leave on the disk, as :func:`explain` does."""
    to_run = [stage for stage in plan.stages.values() if not store.stage(stage.id).is_done()]
    return disk_of(to_run, model_sizes(plan.stages, models()), measured(store)[1])


def _count_ancestors(plan: Plan, wanted: Iterable[str]) -> int:
    seen: set[str] = set()
    stack = list(wanted)
    while stack:
        stage_id = stack.pop()
        if stage_id not in seen:
            seen.add(stage_id)
            stack.extend(plan.stages[stage_id].parents)
    return len(seen)


def timing_key(stage: Stage) -> str:
    """Return what stages are timed together: the kind, and for training the algorithm."""
    return timed_as(stage.kind, stage.identity.config.value)


def timed_as(kind: str, config: Mapping[str, Any]) -> str:
    """Return the timing key of a stage as the store has it."""
    return f"train ({config['algorithm']})" if kind == "train" else kind


def _why(stage: Stage, done: set[str], store: Store) -> str:
    waiting = [parent for parent in stage.parents if parent not in done]
    if waiting:
        return f"needs {waiting[0]}" + (f" and {len(waiting) - 1} more" if len(waiting) > 1 else "")
    failure = store.stage(stage.id).last_failure()
    return f"failed before: {failure['message']}" if failure else "not in the store yet"


def measured(store: Store) -> tuple[dict[str, float], dict[str, float]]:
    """Return medians of the stages done so far: seconds by timing key, bytes by kind."""
    seconds: dict[str, list[float]] = {}
    left: dict[str, list[float]] = {}
    for folder in store.done_stages(SAMPLED):
        record, facts = folder.read_done() or {}, folder.read_stage()
        if "seconds" in record:  # what was adopted took none
            seconds.setdefault(timed_as(facts["kind"], facts["config"]), []).append(record["seconds"])
        if "bytes" in record:
            left.setdefault(folder.kind, []).append(record["bytes"])
    return _medians(seconds), _medians(left)


def _medians(found: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in found.items()}
