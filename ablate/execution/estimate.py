"""What an experiment was estimated to take when it first ran, beside what it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ablate.context import read_json, write_json
from ablate.plan.explain import measured, timed_as, timing_key
from ablate.plan.stage import Stage
from ablate.store import Store


@dataclass(frozen=True)
class Times:
    """Stages that are timed together: hours that those done were estimated to take, and took.

    ``estimated`` is null where nothing of their kind had been done in the store when they were first planned.
    """

    kind: str
    stages: int
    done: int
    estimated: float | None
    took: float


def note_estimate(store: Store, name: str, stages: Iterable[Stage]) -> None:
    """Write down the seconds that a stage of each kind is estimated to take; what was once written stays."""
    file = store.experiment(name).estimate_json
    known: dict[str, float | None] = read_json(file) if file.exists() else {}
    keys = dict.fromkeys(timing_key(stage) for stage in stages)
    if all(key in known for key in keys):
        return
    seconds, _ = measured(store)
    write_json(file, {key: known.get(key, seconds.get(key)) for key in (*known, *keys)})


def times(store: Store, name: str) -> list[Times]:
    """Return what an experiment's stages took so far, beside the estimate of when it first ran."""
    experiment = store.experiment(name)
    found: dict[str, list[float | None]] = {}
    for stage in experiment.read_plan()["stages"]:
        folder = store.stage(stage)
        facts = folder.read_stage()
        seconds = (folder.read_done() or {}).get("seconds")
        found.setdefault(timed_as(facts["kind"], facts["config"]), []).append(seconds)
    each: dict[str, float | None] = read_json(experiment.estimate_json) if experiment.estimate_json.exists() else {}
    return [_summed(kind, taken, each.get(kind)) for kind, taken in found.items()]


def _summed(kind: str, taken: list[float | None], each: float | None) -> Times:
    done = [seconds for seconds in taken if seconds is not None]
    estimated = None if each is None else len(done) * each / 3600
    return Times(kind, len(taken), len(done), estimated, sum(done) / 3600)
