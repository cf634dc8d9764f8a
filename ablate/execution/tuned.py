"""How far the tuning of an experiment has come, as the store keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablate.catalogs.suites import load_suites
from ablate.experiment.grid import expand
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.sweep import Sweep, Tune
from ablate.experiment.tuning import Group, Outcome, Tuning, groups_of
from ablate.plan.split import tuning_suites
from ablate.shipped import search_folders
from ablate.store import Store


def read_tuning(loaded: LoadedExperiment, store: Store) -> Tuning:
    """Return the groups of an experiment and what its store knows of them; raises SpecError for wrong ones.

    What was found for another search counts for nothing: a run refuses to go on with it.
    """
    tune, whole = loaded.experiment.tune, expand(loaded)
    assert tune is not None
    groups, folder = groups_of(loaded, whole), store.experiment(loaded.experiment.name)
    outcomes: dict[str, Outcome] = {}
    for group in groups:
        kept = folder.group(group.name)
        found = kept.read_outcome() if kept.trials_jsonl.exists() else None
        if group.search and found is not None and found["asked"] == what_group_is_asked(tune, group):
            outcomes[group.name] = as_outcome(found)
    return Tuning(tune, whole, groups, outcomes)


def untuned(loaded: LoadedExperiment) -> LoadedExperiment:
    """Return an experiment with its cells as they are written, and the suites of its tuning among its own."""
    experiment = loaded.experiment
    if experiment.tune is None:
        return loaded
    suites = tuning_suites(loaded, experiment.tune, load_suites(search_folders("evals", Path.cwd())))
    evaluate = experiment.evaluate.model_copy(update={"policy": (*experiment.evaluate.policy, *suites)})
    return replace(loaded, experiment=experiment.model_copy(update={"tune": None, "evaluate": evaluate}))


def what_is_asked(sweep: Sweep) -> dict[str, Any]:
    """Return what a sweep searches and for what, as plain JSON."""
    return {
        "maximise": list(sweep.maximise),
        "search": {key: given.model_dump(mode="json", exclude_defaults=True) for key, given in sweep.search.items()},
        "subject_to": {name: bound.model_dump(mode="json") for name, bound in sweep.subject_to.items()},
    }


def what_group_is_asked(tune: Tune, group: Group) -> dict[str, Any]:
    """Return what the trials of a group search, for what and with which seed, as plain JSON."""
    return {**what_is_asked(group.search_of(tune)), "suites": list(tune.suites), "seed": tune.seed}


def as_outcome(found: Mapping[str, Any]) -> Outcome:
    """Return what the store keeps of a group's trials."""
    best = found["best"] or {}
    return Outcome(
        state=found["state"],
        ended=found["ended"],
        policies=found["policies"],
        values=best.get("values", {}),
        result=best.get("result"),
        best=best.get("number"),
        ties=best.get("ties", ()),
        cause=found["cause"],
        limited_by=found.get("limited_by"),
    )
