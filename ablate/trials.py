"""A search as its journal in the store has it: what it is for, its trials, the best of them. Loads Optuna."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ablate.errors import Location, StoreError
from ablate.store import Store

CAUSE, SURPLUS = "cause", "surplus"
"""Attributes of a trial: why it failed, that it is one too many."""
EXCESS, POLICIES = "excess", "policies"
"""By how much its results are beyond their bounds (0 or less where it keeps them); the stages of its policies."""
ASKED = "asked"
"""Attribute of a study: what was asked for when it was begun."""


@dataclass(frozen=True)
class Search:
    """A search as it stands.

    ``objectives`` are results, with a minus before those to have small; ``trials`` are those that count, by number;
    ``best`` are the feasible ones that no other beats: at most one, or a Pareto front of several objectives.
    """

    study: optuna.Study
    objectives: tuple[str, ...]
    trials: tuple[FrozenTrial, ...]
    best: tuple[FrozenTrial, ...]

    @property
    def complete(self) -> tuple[FrozenTrial, ...]:
        """The trials that have results."""
        return tuple(trial for trial in self.trials if trial.state == TrialState.COMPLETE)

    def maximises(self, index: int) -> bool:
        """Tell whether an objective is to be large."""
        return self.study.directions[index] == StudyDirection.MAXIMIZE


def read_search(store: Store, name: str) -> Search:
    """Read the search of an experiment that has begun one; nothing is written. Raises StoreError."""
    study = read_study(name, store.experiment(name).trials_jsonl)
    objectives = tuple(study.user_attrs.get(ASKED, {}).get("maximise", ()))
    return Search(study, objectives, tuple(counted(study)), tuple(best_trials(study)))


def read_study(name: str, file: Path) -> optuna.Study:
    """Open a study that was begun, to read it; nothing is written. Raises StoreError."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with readable(file):
        return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(file))))


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count, those that wait too."""
    return [trial for trial in study.get_trials(deepcopy=False) if not trial.user_attrs.get(SURPLUS)]


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


def is_feasible(trial: FrozenTrial) -> bool:
    """Tell whether a trial's results keep their bounds."""
    return all(excess <= 0.0 for excess in trial.user_attrs.get(EXCESS, ()))


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Raise StoreError where a journal can't be read, with the line where that is known."""
    hint = "restore it, or move it away to begin again"
    try:
        for number, line in enumerate(file.read_bytes().splitlines(keepends=True) if file.exists() else (), start=1):
            if line.endswith(b"\n") and not _is_record(line):
                raise StoreError("not a line of Optuna's journal", location=Location(str(file), number), hint=hint)
        yield
    except (ValueError, KeyError) as error:
        raise StoreError(f"{file} can't be read: {error}", hint=hint) from error


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("op_code") in range(11)
