"""A sweep as the source of a run's stages: it begins trials, hears how their stages end, and tells Optuna."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from ablate.context import write_json
from ablate.errors import SpecError, suggestion
from ablate.execution import lease
from ablate.execution.environment import snapshot_code
from ablate.execution.keys import require_keys
from ablate.execution.local import Change, LocalRun, Observer, Source, run_local
from ablate.execution.record import record_plan
from ablate.execution.slots import Machine
from ablate.execution.study import not_done
from ablate.experiment.loading import LoadedExperiment
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage
from ablate.results.cost import Cost
from ablate.results.long import collect_plan
from ablate.store import AttemptFolder, Store
from ablate.sweeps.engine import check_same, name_objectives, pruner_of, sampler_of, tell, turned
from ablate.sweeps.leases import LOSSES, TrialLeases
from ablate.sweeps.objective import MissingResult, Objective, events_fields, events_value
from ablate.sweeps.storage import Record, answering, open_record
from ablate.sweeps.trials import Planner, SweepPlanner, TrialPlan
from ablate.trials import CAUSE, EXCESS, POLICIES, SURPLUS, counted, read_study

LOOK_SECONDS = 2.0
"""Between two looks at training events and at other workers' trials, and two signs of life of this one's."""


class Listener(Protocol):
    """Who is told how trials begin and end."""

    def began(self, trial: FrozenTrial, *, again: bool) -> None:
        """A trial is this worker's now; ``again``: it was another one's, or of an earlier call."""

    def told(self, trial: FrozenTrial) -> None:
        """A trial has ended: complete, pruned or failed."""


@dataclass
class _Open:
    trial: optuna.Trial
    lease: AttemptFolder
    planned: TrialPlan
    done: set[str]
    retries: int = 0
    reported: set[int] = field(default_factory=set)
    watched: bool = False

    @property
    def missing(self) -> dict[str, Stage]:
        return {stage_id: stage for stage_id, stage in self.planned.stages.items() if stage_id not in self.done}


class Sweeper:
    """The trials of one worker. Any number of workers may take part in one sweep, and end at any moment."""

    def __init__(
        self,
        store: Store,
        loaded: LoadedExperiment,
        parallel: int,
        listener: Listener,
        planner: Planner | None = None,
    ) -> None:
        """Open the sweep, begun or not; raises SpecError for one that makes no sense. ``parallel``: trials at once.

        ``planner`` plans other trials than those of the section ``sweep``.
        """
        self.store, self.parallel, self.listener = store, parallel, listener
        self.planner: Planner = planner or SweepPlanner(loaded, store)
        self.loaded, self.sweep, self.space = self.planner.loaded, self.planner.sweep, self.planner.space
        self.possible: dict[str, Stage] = {}
        self.corners = [self.planner.one(corner) for corner in self.space.corners()]
        ends = {self.space.chosen(planned.values): planned for planned in self.corners}
        for planned in self.corners:
            self.possible |= planned.stages
        self.objective = Objective.read(self.loaded, self.sweep, self.corners[0].plan.suites)
        self.cells = "+".join(planned.digest(self.objective.suites) for planned in ends.values())
        sampler_of(self.sweep, self.space.ranges, self.loaded, 0)
        self.pruner = pruner_of(self.sweep, self.loaded)
        self.most = self.sweep.most
        self.folder = store.experiment(self.loaded.experiment.name)
        self.study: optuna.Study
        self.record: Record
        self.open: dict[int, _Open] = {}
        self.leases = TrialLeases(self.folder)
        self.looked = 0.0
        self.is_full = False
        self.is_spent = False
        self.gave_up: str | None = None
        self.mistake: SpecError | None = None

    def begin(self) -> None:
        """Open the storage, with what the sweep starts from."""
        self.folder.folder.mkdir(parents=True, exist_ok=True)
        self.record = open_record(self.loaded, self.sweep, self.folder)
        self.study = self.record.study
        check_same(self.study, self.sweep, self.loaded.experiment.name, self.folder, self.cells)
        name_objectives(self.study, self.sweep)
        self.study.pruner = self.pruner
        self.record.enqueue(self.sweep.start)
        self.is_full = sum(trial.state.is_finished() for trial in counted(self.study)) >= self.most
        self._record()  # with what is measured and reported beside the trials' results now

    def look(self) -> bool:
        """Read the storage as it stands, where the sweep has been begun; tell whether it has.

        Raises UsageError where it was begun with another search.
        """
        file, name = self.folder.trials_jsonl, self.loaded.experiment.name
        if not file.exists():
            return False
        self.study = read_study(name, file)
        check_same(self.study, self.sweep, name, self.folder, self.cells)
        return True

    @property
    def first(self) -> TrialPlan:
        """A trial as there may be: the one that the sweep starts from, else one of lowest values."""
        starts = [self.planner.one(start) for start in self.sweep.start if self.space.is_whole(start)]
        return [*starts, *self.corners][0]

    @property
    def shared(self) -> frozenset[str]:
        """The stages that all trials have."""
        return frozenset.intersection(*(frozenset(planned.stages) for planned in self.corners))

    @property
    def own(self) -> int:
        """How many stages a trial has at most beside them."""
        return max(len(planned.stages) for planned in self.corners) - len(self.shared)

    @property
    def unfinished(self) -> int:
        """How many trials are under way or still to begin."""
        begun = self._begun()
        running = sum(trial.state == TrialState.RUNNING for trial in begun)
        return running + (self.most - len(begun) if self._may_begin(begun) else 0)

    def change(self, run: LocalRun) -> Change | None:
        """Tell Optuna what has ended and begin what there is room for; None when the sweep is over for this worker."""
        known = self.mistake
        if known is not None:
            return None
        add: dict[str, Stage] = {}
        stop: set[str] = set()
        for number in list(self.open):
            add |= self._look_at(self.open[number], run)
        if self.mistake is not None:
            return Change({}, {stage_id for item in self.open.values() for stage_id in item.missing})
        if time.monotonic() - self.looked > LOOK_SECONDS:
            for item in list(self.open.values()):
                stop |= self._prune(item) if self.leases.holds(item.trial.number, item.lease) else self._drop(item)
            for orphan in self._orphans():
                add |= self._open(*orphan)
            self.looked = time.monotonic()
        while len(self.open) < self.parallel and (begun := self._begin()) is not None:
            add |= self._open(*begun)
        if self.open or add or stop:
            return Change(add, stop)
        if any(map(self.leases.is_open, self._others())):  # nobody else might be left to take it over
            return Change()
        if self.is_over():
            write_json(self.folder.over_json, {"time": time.time()})
        return None

    def is_over(self) -> bool:
        """Return whether all trials have ended, those of other workers too, and none will begin."""
        begun = self._begun()
        return all(trial.state.is_finished() for trial in begun) and not self._may_begin(begun)

    def leave(self) -> None:
        """Give up the trials that are under way, to whoever goes on: this worker did not die over them."""
        for item in self.open.values():
            lease.end(item.lease, "left")

    def _begin(self) -> tuple[optuna.Trial, AttemptFolder] | None:
        """Ask for a trial; None when the sweep has all it may have."""
        trials, begun = counted(self.study), self._begun()
        if not self._may_begin(begun):
            return None
        self.study.sampler = sampler_of(self.sweep, self.space.ranges, self.loaded, len(trials))
        trial = self.study.ask()
        if self._is_one_too_many(trial):
            return None
        held = self.leases.claim(trial.number)
        return None if held is None else (trial, held)  # None: another worker found it without an owner

    def _is_one_too_many(self, trial: optuna.Trial) -> bool:
        """End a trial that other workers were faster than: it counts for nothing."""
        if sum(other.number < trial.number for other in self._begun()) < self.most:
            return False
        trial.set_user_attr(SURPLUS, True)
        self._end(trial, None, TrialState.FAIL)
        return True

    def _open(self, trial: optuna.Trial, held: AttemptFolder) -> dict[str, Stage]:
        """Plan a trial, record it with all others, and return the stages it lacks."""
        # by its own number: another worker may have begun a trial since this one was asked for
        self.study.sampler = sampler_of(self.sweep, self.space.ranges, self.loaded, trial.number)
        planned = self.planner.one(self.space.suggest(trial))
        trial.set_user_attr(POLICIES, planned.policies)
        self._record()
        done = {stage_id for stage_id in planned.stages if self.store.stage(stage_id).is_done()}
        known = next(frozen for frozen in self.study.get_trials(deepcopy=False) if frozen.number == trial.number)
        self.leases.listen_anew()
        item = self.open[trial.number] = _Open(trial, held, planned, done, reported=set(known.intermediate_values))
        self.listener.began(known, again=bool(self.leases.earlier(trial.number)))
        return item.missing

    def _record(self) -> None:
        """Record one plan of all trials, those too that others drew while it was written: the last to write has all."""
        recorded = -1
        while len(drawn := self._drawn(counted(self.study))) > recorded:
            record_plan(self.store, self._plan_of(drawn))
            recorded = len(drawn)
        self.record.keep()

    def _begun(self) -> list[FrozenTrial]:
        return [trial for trial in counted(self.study) if trial.state != TrialState.WAITING]

    def _may_begin(self, begun: list[FrozenTrial]) -> bool:
        self.gave_up = self._common_cause(begun)
        return len(begun) < self.most and self.gave_up is None and not self._has_spent_all(begun)

    def _drawn(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Return trials but for those that wait, or that another worker is drawing values for now."""
        return [trial for trial in trials if self.space.is_whole(trial.params)]

    def _plan_of(self, drawn: Iterable[FrozenTrial]) -> Plan:
        return self.planner.all(trial.params for trial in drawn)

    def _look_at(self, item: _Open, run: LocalRun) -> dict[str, Stage]:
        """End a trial whose stages have all ended; return the stages to run again, where some failed."""
        missing = item.missing
        ended = {stage_id: run.outcomes[stage_id] for stage_id in missing if stage_id in run.outcomes}
        item.done |= {stage_id for stage_id, outcome in ended.items() if outcome.status == "done"}
        self._check_watched(item)
        if len(ended) < len(missing):
            return {}
        if not self.leases.holds(item.trial.number, item.lease):
            self._drop(item)
            return {}
        failed = [outcome for outcome in ended.values() if outcome.status == "failed"]
        if not item.missing:
            self._complete(item)
        elif item.retries < self.sweep.retries or not failed:
            item.retries += bool(failed)
            return item.missing
        else:
            self._fail(item, failed[0].message)
        return {}

    def _check_watched(self, item: _Open) -> None:
        """Keep the error to stop with where a trial's first policy has ended and never reported what is watched."""
        watch, first = self.sweep.pruner, self.store.stage(item.planned.policies[0])
        if watch is None or item.watched or first.id not in item.done:
            return
        item.watched = True
        fields = {name for attempt in first.attempts() for name in events_fields(_events(attempt.events))}
        if fields and watch.value not in fields and self.mistake is None:
            place = self.loaded.origins.locate(self.sweep.section, "pruner", "value")
            text = f"the training events of {first.id} have no field {watch.value!r}: the pruner would stop nothing"
            hint = f"{suggestion(watch.value, fields)}; the same command then goes on with the trials there are"
            self.mistake = SpecError(text, location=place, hint=hint)

    def _complete(self, item: _Open) -> None:
        results = collect_plan(self.store, self.loaded.experiment.name, item.planned.plan.as_json())
        try:
            reached = self.objective.reached(results, item.planned.policies)
        except MissingResult as error:
            self._fail(item, f"no result: {error}")
            return
        if reached.excess:
            item.trial.set_user_attr(EXCESS, list(reached.excess))
        self._tell(item, reached.values, TrialState.COMPLETE)

    def _fail(self, item: _Open, cause: str) -> None:
        item.trial.set_user_attr(CAUSE, cause)
        self._tell(item, None, TrialState.FAIL)

    def _tell(self, item: _Open, values: tuple[float, ...] | None, state: TrialState) -> None:
        self.study.sampler = sampler_of(self.sweep, self.space.ranges, self.loaded, item.trial.number)
        ended = self._end(item.trial, values, state)
        lease.end(item.lease, state.name.lower())
        del self.open[item.trial.number]
        self.listener.told(ended)

    def _end(self, trial: optuna.Trial, values: Sequence[float] | None, state: TrialState) -> FrozenTrial:
        ended = tell(self.study, trial, values, state)
        self.record.keep()
        return ended

    def _prune(self, item: _Open) -> set[str]:
        """Report the training of a trial's first policy; return the stages to stop where the trial falls behind."""
        watch, first = self.sweep.pruner, item.planned.policies[0]
        if watch is None or first in item.done or not (attempts := self.store.stage(first).attempts()):
            return set()
        sign = -1 if turned(self.sweep) else 1
        events = (event for attempt in attempts for event in _events(attempt.events))
        for step, value in events_value(events, watch.value).items():
            if step not in item.reported:
                item.trial.report(sign * value, step)
                item.reported.add(step)
        if not item.trial.should_prune():
            return set()
        self._tell(item, None, TrialState.PRUNED)
        return self._alone_in(item)

    def _alone_in(self, item: _Open) -> set[str]:
        """Return the stages of a trial that is open no more and that no open one needs."""
        return set(item.missing) - {stage_id for other in self.open.values() for stage_id in other.planned.stages}

    def _drop(self, item: _Open) -> set[str]:
        """Leave a trial to the worker that took it over while this one stood still; return the stages to stop."""
        del self.open[item.trial.number]
        return self._alone_in(item)

    def _orphans(self) -> Iterator[tuple[optuna.Trial, AttemptFolder]]:
        """Take over trials whose workers died or left, while there is room for them."""
        for number in self._others():
            if len(self.open) >= self.parallel or (held := self.leases.claim(number)) is None:
                continue
            frozen = next(known for known in self.study.get_trials(deepcopy=False) if known.number == number)
            if frozen.state.is_finished():  # meanwhile, by the worker whose lease has just ended
                lease.end(held, "ended before")
                continue
            trial = optuna.Trial(self.study, frozen._trial_id)
            earlier = self.leases.earlier(number)
            if not earlier and self._is_one_too_many(trial):  # nobody has begun it
                lease.end(held, "fail")
                continue
            if (lost := sum(not attempt.ended_json.exists() for attempt in earlier)) > LOSSES:
                trial.set_user_attr(CAUSE, f"{lost} workers died over it")
                self.listener.told(self._end(trial, None, TrialState.FAIL))
                lease.end(held, "fail")
                continue
            yield trial, held

    def _others(self) -> list[int]:
        """Return the trials that others have begun and not ended."""
        running = self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        return [trial.number for trial in running if trial.number not in self.open]

    def _common_cause(self, begun: list[FrozenTrial]) -> str | None:
        """Return why most trials failed, where that are enough to give up and none has ended well; else None."""
        causes: list[str] = [t.user_attrs.get(CAUSE, "") for t in begun if t.state == TrialState.FAIL]
        enough = min(self.sweep.give_up, self.most)
        if len(causes) < enough or any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in begun):
            return None
        return max(causes, key=causes.count)

    def _has_spent_all(self, begun: list[FrozenTrial]) -> bool:
        if self.is_spent or self.sweep.max_hours is self.sweep.max_gpu_hours is None:
            return self.is_spent
        stages = self._plan_of(self._drawn(begun)).stages
        costs = [Cost.of(self.store.stage(stage_id).read_done()) for stage_id in stages]
        hours = sum(cost.seconds or 0.0 for cost in costs) / 3600
        gpu_hours = sum(cost.gpu_hours or 0.0 for cost in costs)
        limits = (hours, self.sweep.max_hours), (gpu_hours, self.sweep.max_gpu_hours)
        self.is_spent = any(most is not None and spent >= most for spent, most in limits)
        return self.is_spent


class Worker(Source, Protocol):
    """A source of stages that takes part in one sweep, or in several, over the storage that they have in a store."""

    store: Store
    loaded: LoadedExperiment
    most: int
    """How many trials there are in all."""

    @property
    def possible(self) -> Mapping[str, Stage]:
        """Stages as its trials may have, those of every method among them."""

    @property
    def mistake(self) -> SpecError | None:
        """What this worker stops with, once it knows."""

    @property
    def unfinished(self) -> int:
        """How many trials are under way or still to begin."""

    def look(self) -> bool:
        """Open the storage where it is there, and begin nothing; tell whether it is."""

    def begin(self) -> None:
        """Open the storage."""

    def leave(self) -> None:
        """Give up what is under way, to whoever goes on."""


def run_sweep(sweeper: Worker, machine: Machine, observer: Observer) -> LocalRun:
    """Take part in a sweep until it has its trials, on this machine; Ctrl-C leaves what a later call continues.

    So does the SpecError raised where training reports no such value as the pruner watches. Raises UsageError, before
    any trial begins, where one would ask an API and the variable of its key is not set.
    """
    sweeper.store.open()
    snapshot_code(sweeper.store)
    with answering(sweeper.loaded.experiment.name):
        sweeper.begin()
        if sweeper.unfinished:
            require_keys(not_done(sweeper.store, sweeper.possible))
        try:
            run = run_local(sweeper.store, {}, [], machine, observer, sweeper)
        finally:
            sweeper.leave()
    if sweeper.mistake is not None:
        raise sweeper.mistake
    return run


def _events(file: Path) -> Iterator[dict[str, Any]]:
    """Yield what a stage has reported so far; a line that is being written is left out."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return
    yield from (json.loads(line) for line in lines if line.endswith("\n"))
