"""Tuning: a sweep for each group of an experiment's cells, side by side, and the winner of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ablate.catalogs.suites import load_suites
from ablate.context import write_json
from ablate.errors import SpecError
from ablate.execution.local import Change, LocalRun
from ablate.execution.tuned import as_outcome, what_group_is_asked
from ablate.experiment.loading import LoadedExperiment
from ablate.experiment.tuning import Group, Outcome, Tuning
from ablate.plan.split import tuning_suites
from ablate.plan.stage import Stage
from ablate.shipped import search_folders
from ablate.store import GroupFolder, Store
from ablate.sweeps.run import LOOK_SECONDS, Sweeper
from ablate.sweeps.trials import GroupPlanner
from ablate.trials import CAUSE, best_trials, counted, is_feasible, trial_facts


class GroupListener(Protocol):
    """Who is told how trials begin and how trials and groups end."""

    def began(self, group: Group, trial: FrozenTrial, *, again: bool) -> None:
        """A trial is this worker's now; ``again``: it was another one's, or of an earlier call."""

    def told(self, group: Group, trial: FrozenTrial) -> None:
        """A trial has ended: complete, pruned or failed."""

    def settled(self, group: Group, outcome: Outcome) -> None:
        """All trials of a group have ended."""


@dataclass(frozen=True)
class _Lines:
    """Tells how the trials of one group begin and end."""

    tuner: Tuner
    group: Group

    def began(self, trial: FrozenTrial, *, again: bool) -> None:
        self.tuner.listener.began(self.group, trial, again=again)

    def told(self, trial: FrozenTrial) -> None:
        self.tuner.heard(self.group, trial)


class Tuner:
    """The trials of one worker for all groups; as with a sweep any number of workers may take part."""

    def __init__(
        self, store: Store, loaded: LoadedExperiment, tuning: Tuning, parallel: int, listener: GroupListener
    ) -> None:
        """Plan the ends of every group's search; raises SpecError for one that makes no sense.

        Raises UsageError for a group that was begun with another search. ``parallel``: trials at once, over all groups.
        """
        self.store, self.loaded, self.tuning = store, loaded, tuning
        self.parallel, self.listener = parallel, listener
        suites = list(tuning_suites(loaded, tuning.tune, load_suites(search_folders("evals", Path.cwd()))))
        self.sweepers = {
            group.name: Sweeper(
                store, loaded, 1, _Lines(self, group), GroupPlanner(loaded, tuning, group, suites, store)
            )
            for group in tuning.searched
        }
        self.groups = {group.name: group for group in tuning.searched}
        self.folder = store.experiment(loaded.experiment.name)
        self.looked = dict.fromkeys(self.sweepers, 0.0)
        self.settled: set[str] = set()
        self.is_stopped = False
        self.possible: dict[str, Stage] = {}
        for sweeper in self.sweepers.values():
            self.possible |= sweeper.possible
        self.most = sum(sweeper.most for sweeper in self.sweepers.values())
        self.look()

    def look(self) -> bool:
        """Open the storage of the groups that have been begun, and begin none; tell whether all have.

        Raises UsageError for one that was begun with another search.
        """
        begun = [sweeper.look() for sweeper in self.sweepers.values()]
        return all(begun)

    @property
    def unfinished(self) -> int:
        """How many trials of all groups are under way or still to begin."""
        return sum(sweeper.unfinished for sweeper in self.sweepers.values())

    @property
    def mistake(self) -> SpecError | None:
        """What this worker stops with: a pruner that watches what training does not report."""
        return next((sweeper.mistake for sweeper in self.sweepers.values() if sweeper.mistake is not None), None)

    def most_stages(self) -> int:
        """Return how many stages all trials have at most, those that they share once."""
        shared = frozenset[str]().union(*(sweeper.shared for sweeper in self.sweepers.values()))
        return len(shared) + sum(sweeper.most * sweeper.own for sweeper in self.sweepers.values())

    def begin(self) -> None:
        """Open the storage of every group."""
        for name, sweeper in self.sweepers.items():
            sweeper.begin()
            self._note(name)

    def change(self, run: LocalRun) -> Change | None:
        """Begin trials where the fewest are open, tell Optuna what has ended; None when every group is over."""
        add: dict[str, Stage] = {}
        stop: set[str] = set()
        to_go = [(name, sweeper) for name, sweeper in self.sweepers.items() if name not in self.settled]
        for name, sweeper in sorted(to_go, key=lambda item: len(item[1].open)):
            idle = not sweeper.open and time.monotonic() - self.looked[name] < LOOK_SECONDS
            room = sum(len(other.open) for other in self.sweepers.values()) < self.parallel
            if idle or not (room or sweeper.open):
                continue
            sweeper.parallel = len(sweeper.open) + room
            change = sweeper.change(run)
            if change is not None:
                add |= change.add
                stop |= set(change.stop)
            elif self.mistake is None:
                self.looked[name] = time.monotonic()  # what is left, other workers have; they may die
                if sweeper.is_over():
                    self._settle(name)
        trials = [item for sweeper in self.sweepers.values() for item in sweeper.open.values()]
        needed = {stage_id for item in trials for stage_id in item.missing}
        if self.mistake is not None:
            stopped, self.is_stopped = self.is_stopped, True
            return None if stopped else Change({}, needed)
        if self.sweepers.keys() - self.settled:
            return Change(add, stop - needed)
        write_json(self.folder.over_json, {"time": time.time()})
        return None

    def leave(self) -> None:
        """Give up the trials that are under way, to whoever goes on."""
        for sweeper in self.sweepers.values():
            sweeper.leave()

    def heard(self, group: Group, trial: FrozenTrial) -> None:
        """Keep what a group has come to, now that a trial of it has ended."""
        self._note(group.name)
        self.listener.told(group, trial)

    def _settle(self, name: str) -> None:
        self.settled.add(name)
        self._note(name)
        kept = self.folder.group(name).read_outcome()
        assert kept is not None
        self.listener.settled(self.groups[name], as_outcome(kept))

    def _note(self, name: str) -> None:
        """Keep what a group has come to, also by trials of others that end meanwhile: the last to write has all."""
        kept = None
        while (found := self._outcome(self.groups[name], self.sweepers[name])) != kept:
            write_json(self.folder.group(name).outcome_json, found)
            kept = found

    def _outcome(self, group: Group, sweeper: Sweeper) -> dict[str, Any]:
        """Return the trials of a group and, once all have ended, the best; it follows from the journal alone."""
        over = sweeper.is_over()  # before the trials are read: they are all there, then
        trials, tune = counted(sweeper.study), self.tuning.tune
        ended = Counter(trial.state.name.lower() for trial in trials if trial.state.is_finished())
        best = _best(trials, sweeper.study.directions)
        cause = "" if best or not over else sweeper.gave_up or _why_none(trials)
        return {
            "group": dict(group.axes),
            "state": "open" if not over else "tuned" if best else "failed",
            "cause": cause,
            "best": best,
            "trials": max(sweeper.most, len(trials)),  # another run may ask for more
            "limited_by": tune.limits if over and ended.total() < sweeper.most else None,
            "ended": dict(ended),
            "policies": len(group.at_seed(tune.seed)),
            "seed": tune.seed,
            "asked": what_group_is_asked(tune, group),
            "all": [trial_facts(trial, tune.maximise) for trial in trials],
            "stages": self._done(self.folder.group(group.name)) if over else None,
        }

    def _done(self, folder: GroupFolder) -> dict[str, Any]:
        return {stage_id: facts for stage_id, facts in folder.stages().items() if self.store.stage(stage_id).is_done()}


def _best(trials: list[FrozenTrial], directions: Sequence[StudyDirection]) -> dict[str, Any] | None:
    """Return the best trial and those that reached the same; None where there is none."""
    for best in best_trials(trials, directions):
        equal = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.values == best.values]
        ties = [trial.number for trial in equal if is_feasible(trial) and trial is not best]
        return {"number": best.number, "values": dict(best.params), "result": best.values[0], "ties": ties}
    return None


def _why_none(trials: list[FrozenTrial]) -> str:
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        return "no trial keeps its bounds"
    causes = [trial.user_attrs[CAUSE] for trial in trials if CAUSE in trial.user_attrs]
    return max(causes, key=causes.count) if causes else "no trial was complete"
