"""A search as its journal in the store has it: what it is for, its trials, the best of them. Loads Optuna."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
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


class Memory(BaseJournalBackend):
    """A journal that no other process sees, which begins with ``logs``."""

    def __init__(self, logs: Iterable[dict[str, Any]] = ()) -> None:
        self.logs = list(logs)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the logs from a number on."""
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add logs."""
        self.logs += logs


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
    trials = counted(study)
    return Search(study, objectives, tuple(trials), tuple(best_trials(trials, study.directions)))


def read_study(name: str, file: Path) -> optuna.Study:
    """Read a study as it stands: what others write to the file meanwhile is not in it. Raises StoreError."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with readable(file) as logs:
        return optuna.load_study(study_name=name, storage=JournalStorage(Memory(logs)))


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count, those that wait too."""
    return [trial for trial in study.get_trials(deepcopy=False) if not trial.user_attrs.get(SURPLUS)]


def best_trials(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """Return the best feasible trial, of equal ones the first; of several objectives all trials of the Pareto front."""
    feasible = [trial for trial in trials if trial.state == TrialState.COMPLETE and is_feasible(trial)]
    signs = [1 if direction == StudyDirection.MAXIMIZE else -1 for direction in directions]
    gains = {t.number: [sign * value for sign, value in zip(signs, t.values, strict=True)] for t in feasible}
    if len(signs) == 1:
        return sorted(feasible, key=lambda trial: gains[trial.number], reverse=True)[:1]
    return [t for t in feasible if not any(_beats(other, gains[t.number]) for other in gains.values())]


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(mine >= its for mine, its in zip(one, other, strict=True))


def trial_facts(trial: FrozenTrial, objectives: Sequence[str]) -> dict[str, Any]:
    """Return a trial as plain JSON; it has results where it is complete: Optuna gives pruned ones what was watched."""
    is_complete = trial.state == TrialState.COMPLETE
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "values": dict(trial.params),
        "results": dict(zip(objectives, trial.values, strict=True)) if is_complete else None,
        "cause": trial.user_attrs.get(CAUSE),
    }


def is_feasible(trial: FrozenTrial) -> bool:
    """Tell whether a trial's results keep their bounds."""
    return all(excess <= 0.0 for excess in trial.user_attrs.get(EXCESS, ()))


@contextmanager
def readable(file: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the logs of a journal, but for a line that is being written; none where there is no file.

    Raises StoreError where it can't be read, with the line where that is known.
    """
    hint = "restore it, or move it away to begin again"
    logs = []
    try:
        for number, line in enumerate(file.read_bytes().splitlines(keepends=True) if file.exists() else (), start=1):
            if line.endswith(b"\n"):
                if (log := _record(line)) is None:
                    raise StoreError("not a line of Optuna's journal", location=Location(str(file), number), hint=hint)
                logs.append(log)
        yield logs
    except (ValueError, KeyError) as error:
        raise StoreError(f"{file} can't be read: {error}", hint=hint) from error


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("op_code") in range(11) else None
