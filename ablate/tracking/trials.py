"""What MLflow should hold of a sweep: a run for every trial, above those of its policies. Loads Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from ablate.store import Store
from ablate.tracking.wanted import WantedRun, WantedTrials, mlflow_name
from ablate.trials import CAUSE, POLICIES, Search, is_feasible, read_search

_STATUSES = {
    TrialState.COMPLETE: "FINISHED", TrialState.FAIL: "FAILED", TrialState.PRUNED: "KILLED",
    TrialState.RUNNING: "RUNNING",
}  # fmt: skip


def wanted_trials(store: Store, plan: Mapping[str, Any]) -> WantedTrials:
    """Return the runs of a sweep's trials."""
    search = read_search(store, plan["name"])
    begun = [trial for trial in search.trials if trial.state != TrialState.WAITING]
    evaluations = {entry["stage"]: entry["evaluations"] for entry in plan["subjects"]}
    parents: dict[str, str] = {}
    for trial in begun:
        for policy in trial.user_attrs.get(POLICIES, ()):
            measuring = (_measuring(store, policy, stage) for stage in evaluations.get(policy, {}).values())
            for stage in {policy}.union(*measuring):
                parents.setdefault(stage, _key(trial))
    best = _reached(search, search.best[0]) if len(search.objectives) == 1 and search.best else {}
    is_whole = len(begun) >= plan.get("sweep", {}).get("trials", 0)  # which plans of earlier versions do not say
    is_done = is_whole and all(trial.state.is_finished() for trial in search.trials)
    return WantedTrials(tuple(_wanted(search, trial) for trial in begun), parents, best, is_done)


def _measuring(store: Store, policy: str, stage: str) -> set[str]:
    """Return the stages between a policy and one that measures it, that one too; none where it doesn't."""
    folder = store.stage(stage)
    inputs = folder.read_stage()["inputs"].values() if folder.stage_json.exists() else ()
    parents = {entry["stage"] for entry in inputs}
    found = set().union(*(_measuring(store, policy, parent) for parent in parents - {policy}))
    return found | {stage} if found or policy in parents else set()


def _key(trial: FrozenTrial) -> str:
    return f"trial-{trial.number}"


def _wanted(search: Search, trial: FrozenTrial) -> WantedRun:
    is_best = trial.number in {other.number for other in search.best}
    tags = {
        "ablate.kind": "trial", "ablate.trial": str(trial.number), "ablate.state": trial.state.name.lower(),
        "ablate.best": str(is_best).lower(), "ablate.feasible": str(is_feasible(trial)).lower(),
        **{f"ablate.policy.{place}": stage for place, stage in enumerate(trial.user_attrs.get(POLICIES, ()))},
    }  # fmt: skip
    if cause := trial.user_attrs.get(CAUSE):
        tags["ablate.failure"] = str(cause)
    return WantedRun(
        key=_key(trial),
        name=f"trial {trial.number}",
        status=_STATUSES[trial.state],
        params={mlflow_name(key): str(value) for key, value in trial.params.items()},
        tags=tags,
        metrics=_reached(search, trial),
        output=None,
        started=None if trial.datetime_start is None else trial.datetime_start.timestamp(),
        ended=None if trial.datetime_complete is None else trial.datetime_complete.timestamp(),
    )


def _reached(search: Search, trial: FrozenTrial) -> dict[str, float]:
    """Return what a trial reached by the names of the objectives, none where it has no result."""
    if trial.state != TrialState.COMPLETE:
        return {}
    names = (mlflow_name(name.removeprefix("-")) for name in search.objectives)
    return dict(zip(names, trial.values, strict=True))
