"""What a sweep found: its trials, the best of them, and an experiment that runs those values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import FrozenTrial, TrialState

from ablate.catalogs.closed import validated
from ablate.catalogs.loading import read_yaml
from ablate.context import read_json, write_text
from ablate.errors import UnknownNameError, UsageError
from ablate.experiment.loading import load_experiment, overridden_sections
from ablate.experiment.sweep import Sweep
from ablate.liveness import is_running
from ablate.store import ExperimentFolder, Store
from ablate.sweeps.space import Space
from ablate.trials import read_search, trial_facts

HEADER = "# trial "
"""What the file of a best trial begins with."""


@dataclass(frozen=True)
class Found:
    """A sweep as it stands; ``best`` are the trials that no other beats, one unless there are several objectives.

    ``interrupted`` are the numbers of trials under way that no worker has: whoever goes on takes them over.
    """

    name: str
    sweep: Sweep
    trials: tuple[FrozenTrial, ...]
    best: tuple[FrozenTrial, ...]
    interrupted: frozenset[int]

    def as_json(self) -> dict[str, Any]:
        """Return the trials with their values and results, and the numbers of the best."""
        return {
            "name": self.name,
            "maximise": list(self.sweep.maximise),
            "trials": [
                trial_facts(trial, self.sweep.maximise)
                | ({"state": "interrupted"} if trial.number in self.interrupted else {})
                for trial in self.trials
            ],
            "best": [trial.number for trial in self.best],
        }


def find_sweep(store: Store, name: str) -> Found:
    """Read a sweep of the store as it was last run. Raises UnknownNameError where there is none of that name."""
    known = [item for item in store.experiment_names() if store.experiment(item).trials_jsonl.exists()]
    folder = store.experiment(name)
    if name not in known or not folder.spec.exists():
        raise UnknownNameError("sweep of this store", name, known)
    written, origins = read_yaml(folder.spec)
    sweep = validated(Sweep, written["sweep"], origins.inside("sweep").locate)
    search = read_search(store, name)
    under_way = [trial.number for trial in search.trials if trial.state == TrialState.RUNNING]
    interrupted = frozenset(number for number in under_way if not _has_worker(folder, number))
    return Found(name, sweep, search.trials, search.best, interrupted)


def _has_worker(folder: ExperimentFolder, number: int) -> bool:
    attempts = folder.leases(number).attempts()
    return bool(attempts) and is_running(attempts[-1])


def write_best(found: Found, store: Store, file: Path) -> None:
    """Write the experiment of the best trials, which extends the sweep's file with its overrides.

    Its grid has the blocks of each trial of a Pareto front. Raises UsageError while there is no best trial, and where
    the file is there and no such experiment.
    """
    if not found.best:
        raise UsageError(f"there is no best trial of {found.name}: none is complete and keeps its bounds")
    if file.exists() and not (file.is_file() and file.read_text(encoding="utf-8").startswith(HEADER)):
        raise UsageError(
            f"{file} is there, and no best trial of a sweep: nothing was written", hint="name another file"
        )
    source = read_json(store.experiment(found.name).source_json)
    loaded = load_experiment(Path(source["file"]), source["overrides"])
    space = Space(loaded, found.sweep)
    values: Mapping[str, Any] = {
        **overridden_sections(loaded.file, loaded.overrides),
        "extends": os.path.relpath(loaded.file.absolute(), file.absolute().parent),
        "name": f"{found.name}-best",
        "sweep": None,
        "grid": [block for trial in found.best for block in space.cells(trial.params)],
    }
    header = "".join(
        f"{HEADER}{trial.number} of the sweep {found.name}: {_reached(found, trial)}\n" for trial in found.best
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, header + yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def _reached(found: Found, trial: FrozenTrial) -> str:
    names = [name.removeprefix("-") for name in found.sweep.maximise]
    return ", ".join(f"{name} {value:.4g}" for name, value in zip(names, trial.values, strict=True))
