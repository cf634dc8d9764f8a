"""What a sweep found: its trials, the best of them, and an experiment that runs those values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from ablate.catalogs.closed import validated
from ablate.catalogs.loading import read_yaml
from ablate.context import read_json, write_text
from ablate.errors import UnknownNameError, UsageError
from ablate.experiment.loading import load_experiment, overridden_sections
from ablate.experiment.sweep import Sweep
from ablate.store import Store
from ablate.sweeps.engine import read_study
from ablate.sweeps.run import CAUSE, counted
from ablate.sweeps.space import Space


@dataclass(frozen=True)
class Found:
    """A sweep as it stands; ``best`` are the trials that no other beats, one unless there are several objectives."""

    name: str
    sweep: Sweep
    trials: tuple[FrozenTrial, ...]
    best: tuple[FrozenTrial, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the trials with their values and results, and the numbers of the best."""
        return {
            "name": self.name,
            "maximise": list(self.sweep.maximise),
            "trials": [self._facts(trial) for trial in self.trials],
            "best": [trial.number for trial in self.best],
        }

    def _facts(self, trial: FrozenTrial) -> dict[str, Any]:
        results = None if trial.values is None else dict(zip(self.sweep.maximise, trial.values, strict=True))
        facts = {"number": trial.number, "state": trial.state.name.lower(), "values": dict(trial.params)}
        return {**facts, "results": results, "cause": trial.user_attrs.get(CAUSE)}


def find_sweep(store: Store, name: str) -> Found:
    """Read a sweep of the store as it was last run. Raises UnknownNameError where there is none of that name."""
    known = [item for item in store.experiment_names() if trials_file(store, item).exists()]
    folder = store.experiment(name)
    if name not in known or not folder.spec.exists():
        raise UnknownNameError("sweep of this store", name, known)
    written, origins = read_yaml(folder.spec)
    sweep = validated(Sweep, written["sweep"], origins.inside("sweep").locate)
    study = read_study(name, trials_file(store, name))
    return Found(name, sweep, tuple(counted(study)), tuple(best_trials(study)))


def trials_file(store: Store, name: str) -> Path:
    """Return where a sweep's trials are written."""
    return store.experiment(name).folder / "trials.jsonl"


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the best feasible trial, the Pareto front where there are several objectives; none while none is done."""
    if not any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        return []
    if len(study.directions) > 1:
        return study.best_trials
    try:
        return [study.best_trial]
    except ValueError:  # no trial is feasible
        return []


def write_best(found: Found, store: Store, file: Path) -> None:
    """Write the experiment of the best trial, which extends the sweep's file with its overrides.

    Raises UsageError without one best trial.
    """
    if len(found.best) != 1:
        front = f"{len(found.best)} trials are on the Pareto front"
        why = front if found.best else "none is complete and keeps its bounds"
        raise UsageError(f"there is no best trial of {found.name}: {why}")
    best = found.best[0]
    source = read_json(store.experiment(found.name).source_json)
    loaded = load_experiment(Path(source["file"]), source["overrides"])
    values: Mapping[str, Any] = {
        **overridden_sections(loaded.file, loaded.overrides),
        "extends": str(loaded.file.absolute()),
        "name": f"{found.name}-best",
        "sweep": None,
        "grid": Space(loaded, found.sweep).cells(best.params),
    }
    reached = ", ".join(f"{name} {value:.4g}" for name, value in zip(found.sweep.maximise, best.values, strict=True))
    header = f"# trial {best.number} of the sweep {found.name}: {reached}\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, header + yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))
