"""Hand a plan to SLURM: what is missing and not queued, as job arrays, written down before and after each sbatch."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablate.catalogs.models import models
from ablate.context import write_text
from ablate.errors import AblateError, Location, UsageError
from ablate.execution.environment import snapshot_package
from ablate.execution.record import record_plan
from ablate.execution.slurm import commands, jobs
from ablate.execution.slurm.arrays import Array, Item, Place, Queued, arrange, arrange_behind
from ablate.execution.slurm.commands import PAUSES, Refused, SlurmBusy, interrupts_later
from ablate.execution.slurm.element import element_events, more_time
from ablate.execution.slurm.ledger import (
    ArrayRecord,
    Submission,
    Turn,
    new_submission,
    open_submissions,
    submissions,
)
from ablate.execution.slurm.profile import LoadedProfile, Profile
from ablate.execution.slurm.script import Paths, gpus_of_node, render
from ablate.execution.slurm.shapes import on_login, shapes_of
from ablate.execution.slurm.storage import require_room, require_shared
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage
from ablate.store import Store

LOST_OFTEN = 2
"""Losses on one node after which stages are not sent there again."""
SETTLE_SECONDS = 5.0
"""An sbatch whose caller died may still be on its way for so long."""


@dataclass
class Submitted:
    """What one call did: arrays and stages handed to SLURM, those that were there or did not fit, nodes left out.

    Of a sweep: ``workers`` handed over, and ``queued`` ones that were there.
    ``gpu_hours`` is what the time limits add up to; ``here`` are stages that will run on this machine, ``behind``
    counts those that hang on them.
    """

    arrays: list[ArrayRecord] = field(default_factory=list)
    stages: int = 0
    workers: int = 0
    queued: int = 0
    left: int = 0
    here: list[str] = field(default_factory=list)
    behind: int = 0
    gpu_hours: float = 0.0
    excluded: list[str] = field(default_factory=list)
    folder: Path | None = None


def submit_plan(
    store: Store, plan: Plan, loaded: LoadedProfile, *, dry_run: Path | None = None, canary: bool = False
) -> Submitted:
    """Queue every stage of a plan that is neither done nor queued.

    With ``canary``, one cell of each algorithm goes first, and the rest starts when all of it ended well. With
    ``dry_run``, scripts are written to that folder and nothing is recorded or queued. Raises Refused, with nothing
    of this call left in the queue, where SLURM refuses a job; SlurmBusy, with what was queued kept, where it does not
    answer: the same call then goes on.
    """
    ahead = canaries(plan) if canary else frozenset[str]()
    if dry_run is not None:
        return _write_scripts(store, plan.name, plan.stages, loaded, dry_run, ahead)
    commands.require_slurm()
    require_shared(store, loaded)
    store.open()
    require_room(store)
    with Turn(store) as turn:
        record_plan(store, plan)
        return submit_stages(store, plan.name, plan.stages, loaded, turn.renew, ahead)


def canaries(plan: Plan) -> frozenset[str]:
    """Return the stages of the first cell of each algorithm, with its evaluations and all that these need."""
    first: dict[object, list[str]] = {}
    for subject in plan.subjects:
        if subject.role == "cell" and subject.subject == "policy":
            first.setdefault(subject.axes.get("algorithm"), [subject.stage, *subject.evaluations.values()])
    waiting = [stage for stages in first.values() for stage in stages]
    found: set[str] = set()
    while waiting:
        stage = waiting.pop()
        if stage not in found:
            found.add(stage)
            waiting += plan.stages[stage].parents
    return frozenset(found)


def submit_stages(
    store: Store,
    name: str,
    stages: Mapping[str, Stage],
    loaded: LoadedProfile,
    renew: Callable[[], None],
    ahead: frozenset[str] = frozenset(),
) -> Submitted:
    """Queue stages that the store has recorded, those ``ahead`` before all others, see :func:`submit_plan`.

    ``renew`` keeps the caller's turn.
    """
    queued, live = reconcile(store)
    arrays, loaded, result = _prepared(store, stages, queued, live, loaded, ahead)
    if arrays:
        submission = new_submission(store, experiment=name, profile=str(loaded.file))
        submit_arrays(store, submission, arrays, loaded, renew, result)
    return result


def submit_arrays(
    store: Store,
    submission: Submission,
    arrays: Sequence[Array],
    loaded: LoadedProfile,
    renew: Callable[[], None],
    result: Submitted,
) -> None:
    """Queue arrays as a new submission, and say so in ``result``, see :func:`submit_plan`."""
    shutil.copyfile(loaded.file, submission.profile)
    write_text(submission.template, loaded.template)
    result.folder = submission.folder
    _Submitter(store, submission, loaded, renew).submit(arrays, result)


def _prepared(
    store: Store,
    stages: Mapping[str, Stage],
    queued: Queued,
    live: int,
    loaded: LoadedProfile,
    ahead: frozenset[str],
) -> tuple[list[Array], LoadedProfile, Submitted]:
    """Return what is to be queued now, the profile without nodes where jobs were lost, and what to say of the rest.

    Raises UsageError where nothing of it fits, or it may take more than the profile's budget.
    """
    unmade = missing(store, stages, queued)
    here, behind = _not_yet(unmade, stages, loaded)
    wanted = [stage for stage in unmade if stage not in behind]
    result = Submitted(queued=sum(s in queued.places for s in stages), here=here, behind=len(behind) - len(here))
    if not wanted:
        return [], loaded, result
    arrays = _arranged(store, stages, wanted, queued, loaded, ahead)
    fitting, loaded = admitted(store, arrays, live, loaded, result)
    return fitting, loaded, result


def admitted(
    store: Store, arrays: Sequence[Array], live: int, loaded: LoadedProfile, result: Submitted
) -> tuple[list[Array], LoadedProfile]:
    """Return the first arrays there is room for, and the profile without nodes where jobs were lost.

    ``live`` jobs are queued already. Raises UsageError where none fits, or all may take more than the budget.
    """
    _check_budget(arrays, loaded)
    fitting = _fitting(arrays, loaded.profile.limits.submit - live)
    result.left = sum(len(array.stages) for array in arrays[len(fitting) :])
    if not fitting:
        raise UsageError(
            f"{live} jobs are queued, and limits.submit is {loaded.profile.limits.submit}",
            location=loaded.origins.locate("limits", "submit"),
            hint="repeat the command when some have ended",
        )
    if bad := lost_on(store):
        exclude = tuple(dict.fromkeys((*loaded.profile.exclude, *bad)))
        loaded = replace(loaded, profile=loaded.profile.model_copy(update={"exclude": exclude}))
        result.excluded = bad
    return fitting, loaded


def ready_here(store: Store, stages: Mapping[str, Stage], loaded: LoadedProfile) -> list[str]:
    """Return the stages that the profile has run on this machine, are not done, and need nothing but one another."""
    here = on_login(stages, loaded)
    ready: list[str] = []
    for stage in stages.values():  # parents first
        open_parents = {parent for parent in stage.parents if not store.stage(parent).is_done()}
        if stage.id in here and not store.stage(stage.id).is_done() and open_parents <= set(ready):
            ready.append(stage.id)
    return ready


def _not_yet(
    unmade: Sequence[str], stages: Mapping[str, Stage], loaded: LoadedProfile
) -> tuple[list[str], frozenset[str]]:
    """Return what is to run on this machine, and that with all that hangs on it: no job can wait for it."""
    here = on_login(stages, loaded)
    behind: set[str] = set()
    for stage in unmade:  # parents first
        if stage in here or behind & set(stages[stage].parents):
            behind.add(stage)
    return [stage for stage in unmade if stage in here], frozenset(behind)


def missing(store: Store, stages: Iterable[str], queued: Queued) -> list[str]:
    """Return the stages that are neither done nor queued, in their order."""
    return [s for s in stages if s not in queued.places and not store.stage(s).is_done()]


def reconcile(store: Store) -> tuple[Queued, int]:
    """Compare what was written down with the queue; returns stages in the queue, and the user's jobs there.

    An intent without a job id is looked for by its name: it gets its id, or becomes void. What can never start is
    cancelled. A submission of which nothing is left in the queue is closed.
    """
    opened = open_submissions(store)
    _settle([record for submission in opened for record in submission.arrays() if record.job is None])
    known = jobs.queue()
    live = [job for job in known.values() if job.is_live]
    places: dict[str, Place] = {}
    packs: dict[str, int] = {}
    stuck: list[str] = []
    for submission in opened:
        alive = False
        for record in submission.arrays():
            name, array = record.name, record.job or ""
            for index, stages in record.elements.items():
                job = known.get((name, index))
                if job is None:
                    continue
                if job.is_live:
                    alive = True
                    packs[array] = record.pack
                    places |= {stage: (array, index) for stage in stages if not store.stage(stage).is_done()}
                elif job.state == "PENDING":
                    stuck.append(f"{job.id}_{job.index}")
        if not alive:
            submission.close()
    if stuck:
        commands.call(["scancel", *stuck])
    return Queued(places, packs), len(live)


def _settle(intents: Sequence[ArrayRecord]) -> None:
    """Find out what became of arrays that were to be queued when their submission broke off."""
    if not intents:
        return
    youngest = max(record.facts["time"] for record in intents)
    time.sleep(max(0.0, min(SETTLE_SECONDS, youngest + SETTLE_SECONDS - time.time())))
    found = jobs.find_by_name(record.name for record in intents)
    for record in intents:
        if record.name in found:
            record.write_job(found[record.name])
        else:
            record.write_void("sbatch was never heard of")


def _arranged(
    store: Store,
    stages: Mapping[str, Stage],
    wanted: Sequence[str],
    queued: Queued,
    loaded: LoadedProfile,
    ahead: frozenset[str] = frozenset(),
) -> list[Array]:
    shapes = shapes_of(stages, loaded, models())
    for stage, minutes in _more_time(store, loaded.profile).items():
        if stage in shapes and minutes > shapes[stage].minutes:
            shapes[stage] = replace(shapes[stage], minutes=minutes)
    open_stages = {*wanted, *queued.places}
    items = [
        Item(stage, shapes[stage], tuple(parent for parent in stages[stage].parents if parent in open_stages))
        for stage in wanted
    ]
    limits = loaded.profile.limits
    largest = min(limits.array, limits.submit)  # an array that never fits would be left for ever
    if ahead & open_stages:
        return arrange_behind(ahead, items, queued, largest=largest, calls=limits.calls)
    return arrange(items, queued, largest=largest, calls=limits.calls)


def gpu_hours(arrays: Iterable[Array], profile: Profile) -> float:
    """Return the GPU hours of arrays if every job takes all its time, those of its services too."""
    jobs_of = ((len(array.elements), array.shape) for array in arrays)
    return sum(n * shape.nodes * gpus_of_node(shape, profile) * shape.minutes / 60 for n, shape in jobs_of)


def _check_budget(arrays: Sequence[Array], loaded: LoadedProfile) -> None:
    most, asked = loaded.profile.limits.gpu_hours, gpu_hours(arrays, loaded.profile)
    if most is not None and asked > most:
        raise UsageError(
            f"up to {asked:.1f} GPU hours would be asked for, and limits.gpu_hours is {most:g}; nothing is queued",
            location=loaded.origins.locate("limits", "gpu_hours"),
            hint="raise the limit, lower needs.*.time, or run a part of the grid first",
        )


def lost_on(store: Store) -> list[str]:
    """Return the nodes on which elements were lost without a word at least twice, over all submissions of a store."""
    counts = Counter(event["node"] for _, event in _past_events(store) if event["what"] == "lost")
    return sorted(node for node, count in counts.items() if count >= LOST_OFTEN)


def _more_time(store: Store, profile: Profile) -> dict[str, int]:
    """Return the minutes that stages are to have which ran out of time, where the profile gives them more."""
    factor, found = profile.retries.time_factor, dict[str, int]()
    for stages, event in _past_events(store) if factor > 1 else ():
        if event["what"] == "timeout":
            minutes = more_time(event.get("minutes", 0), factor, profile.limits.time)
            found |= {stage: max(minutes, found.get(stage, 0)) for stage in stages}
    return found


def _past_events(store: Store) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield what happened to elements, over all submissions of a store, with the stages of each."""
    for submission in submissions(store):
        for record in submission.arrays():
            for index, stages in record.elements.items():
                yield from ((stages, event) for event in element_events(record, index))


def _fitting(arrays: Sequence[Array], room: int) -> list[Array]:
    """Return the first arrays with no more elements than there is room for: the rest waits for another call."""
    fitting = []
    for array in arrays:
        room -= len(array.elements)
        if room < 0:
            break
        fitting.append(array)
    return fitting


def _write_scripts(
    store: Store,
    experiment: str,
    stages: Mapping[str, Stage],
    loaded: LoadedProfile,
    folder: Path,
    ahead: frozenset[str],
) -> Submitted:
    arrays, loaded, result = _prepared(store, stages, Queued(), 0, loaded, ahead)
    write_scripts(store, experiment, arrays, loaded, folder, result)
    return result


def write_scripts(
    store: Store,
    experiment: str,
    arrays: Sequence[Array],
    loaded: LoadedProfile,
    folder: Path,
    result: Submitted,
) -> None:
    """Write the scripts of a first submission to a folder, alone there; the place of a job id has the array's key."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.sbatch"):
        old.unlink()
    python = loaded.profile.python or sys.executable
    keys = {array.key: f"<{array.key}>" for array in arrays}
    for array in arrays:
        paths = Paths(store.slurm / "<submission>" / array.key, store.code / "<digest>", python)
        name = f"{array.shape.kind}.{experiment}"
        text = render(loaded.template, array, name, keys, loaded.profile, paths, loaded.profile.template)
        write_text(folder / f"{array.key}.sbatch", text)
    result.arrays = [ArrayRecord(folder / array.key) for array in arrays]
    result.stages = sum(len(array.stages) for array in arrays)
    result.gpu_hours, result.folder = gpu_hours(arrays, loaded.profile), folder


class _Submitter:
    """Queues arrays one after the other; what SLURM refuses takes back what this call queued."""

    def __init__(self, store: Store, submission: Submission, loaded: LoadedProfile, renew: Callable[[], None]) -> None:
        self.submission, self.loaded, self.renew = submission, loaded, renew
        self.code = snapshot_package(store)
        self.python = loaded.profile.python or sys.executable
        self.jobs: dict[str, str] = {}

    def submit(self, arrays: Sequence[Array], result: Submitted) -> None:
        for array in arrays:
            for need in array.needs:
                self.jobs.setdefault(need.array, need.array)  # an array of an earlier call is known by its job id
        for array in arrays:
            self.renew()  # before the intent: who lost the turn writes nothing down either
            try:
                with interrupts_later():
                    result.arrays.append(self._submit(array))
            except Refused as error:
                self._take_back(result.arrays)
                raise self._placed(error, array) from error
            result.stages += len(array.stages)
            result.gpu_hours += gpu_hours([array], self.loaded.profile)

    def _submit(self, array: Array) -> ArrayRecord:
        record, name = self.submission.array(array.key), self.submission.job_name(array.key)
        profile = self.loaded.profile
        limits: dict[str, Any] = {"minutes": array.shape.minutes, "signal": profile.signal, "requeue": profile.requeue}
        limits |= {"alike": profile.limits.alike, "longest": profile.limits.time}
        limits["services"] = {name: profile.services[name].model_dump(mode="json") for name in array.shape.services}
        paths = Paths(record.folder, self.code, self.python)
        text = render(self.loaded.template, array, name, self.jobs, profile, paths, profile.template)
        record.write_intent(array, name, profile.retries.model_dump(), limits)
        record.script.write_text(text, encoding="utf-8")  # sbatch takes a copy
        job = self._sbatch(record, name)
        record.write_job(job)
        self.jobs[array.key] = job
        return record

    def _sbatch(self, record: ArrayRecord, name: str) -> str:
        """Queue a script; where the controller did not answer, look whether it heard before it is asked again."""
        for pause in (*PAUSES, None):
            try:
                return commands.submit(["sbatch", "--parsable", str(record.script)])
            except SlurmBusy:
                if pause is None:
                    raise
                time.sleep(pause)
                if found := jobs.find_by_name([name]):
                    return found[name]
                self.renew()
            except Refused:
                record.write_void("SLURM refused it")
                raise
        raise AssertionError("unreachable")

    def _take_back(self, records: Sequence[ArrayRecord]) -> None:
        for record in records:
            record.write_void("another array of the same call was refused")
        if ids := [record.job for record in records if record.job]:
            commands.call(["scancel", *ids])
        self.submission.close()

    def _placed(self, error: Refused, array: Array) -> AblateError:
        """Return SLURM's refusal with the line of the profile that is most likely its cause."""
        path = cause_of(error.message, array.asked_for, self.loaded)
        return UsageError(
            f"SLURM refuses {array.shape.kind}: {error.message}; nothing is queued",
            location=self.loaded.origins.locate(*path) if path else Location(str(self.loaded.file)),
            hint=f"the script: {self.submission.array(array.key).script}; `ablate doctor --on` checks a profile",
        )


CAUSES: Mapping[str, tuple[str, ...]] = {
    "partition": ("partitions",),
    "account": ("account",),
    "qos": ("qos",),
    "reservation": ("reservation",),
    "feature": ("constraint",),
    "constraint": ("constraint",),
    "time limit": ("limits", "time"),
    "job violates accounting": ("limits", "submit"),
    "array": ("limits", "array"),
    "gres": ("gpu",),
    "node configuration": ("needs",),
    "memory": ("needs",),
    "cpu": ("needs",),
}


def cause_of(words: str, kind: str, loaded: LoadedProfile) -> tuple[str, ...]:
    """Return the key of a profile that SLURM's words speak of; empty where they speak of none."""
    low = words.lower()
    path = next((path for word, path in CAUSES.items() if word in low), ())
    if path == ("needs",):
        keys = [key for key in (kind, kind.partition(".")[0], "default") if key in loaded.profile.needs]
        unwritten = ("gpu",) if loaded.profile.gpu else ("needs", "default", "cpus" if "cpu" in low else "memory")
        path = ("needs", keys[0]) if keys else unwritten
    if path and path[0] == "partitions":
        own = [key for key in (kind, "default") if key in loaded.profile.needs and loaded.profile.needs[key].partitions]
        path = ("needs", own[0], "partitions") if own else path
    return path
