"""How stages stand on a cluster: the store's word first, then the queue's, then the accounting's.

A stage is done when its marker is there, whatever SLURM says; and none is failed because SLURM says nothing.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from ablate.errors import UnknownNameError, UsageError
from ablate.execution.runner import EXIT_CODES
from ablate.execution.slurm import jobs
from ablate.execution.slurm.commands import SlurmError
from ablate.execution.slurm.element import AGAIN, WORKER, element_events
from ablate.execution.slurm.jobs import ENDED, NEVER, Job, Jobs, reason_in_words
from ablate.execution.slurm.ledger import ArrayRecord, submissions
from ablate.execution.slurm.profile import SWEEP
from ablate.execution.study import StageStatus, Standing, stage_statuses, tail
from ablate.liveness import Status
from ablate.store import Store

STOPPED = ("failed", "interrupted")
CLUSTER_WORDS = ("queued", "blocked", "cancelled", "unknown")
"""What a stage may be beside what the store says."""


@dataclass(frozen=True)
class Handed:
    """Where a stage was handed to SLURM last: its array, index, and the id of the array's job, if it is known."""

    record: ArrayRecord
    index: int
    array: str | None

    @property
    def key(self) -> tuple[str, int]:
        """What its job is known by."""
        return self.record.name, self.index

    @property
    def stages(self) -> tuple[str, ...]:
        """All stages of its element."""
        return self.record.elements[self.index]

    @property
    def worker(self) -> str:
        """What its element is called where it is a worker, without stages."""
        return f"{WORKER}-{self.job or self.record.name}"

    @property
    def job(self) -> str:
        """The job as SLURM's commands take it; empty while its id is not known."""
        return f"{self.array}_{self.index}" if self.array else ""


@dataclass(frozen=True)
class Cluster:
    """What SLURM says now; ``silent`` is its error where squeue does not answer."""

    queue: Jobs
    silent: str = ""


def handed_over(store: Store, wanted: Iterable[str]) -> dict[str, Handed]:
    """Return where stages were handed to SLURM last."""
    found: dict[str, Handed] = {}
    names = set(wanted)
    for submission in submissions(store):
        for record in submission.arrays():
            array = record.job
            for index, stages in record.elements.items():
                found |= {stage: Handed(record, index, array) for stage in stages if stage in names}
    return found


def workers_of(store: Store, name: str) -> list[Handed]:
    """Return the workers of an experiment that were ever handed to SLURM, oldest first."""
    return [
        Handed(record, index, record.job)
        for submission in submissions(store)
        if submission.facts["experiment"] == name
        for record in submission.arrays()
        if record.work is not None
        for index in record.elements
    ]


def worker_statuses(store: Store, name: str) -> list[StageStatus]:
    """Return how the workers of a sweep stand, see :func:`cluster_statuses`."""
    workers = _workers_to_tell_of(store, name)
    return _worker_lines(workers, look()) if workers else []


def _workers_to_tell_of(store: Store, name: str) -> list[Handed]:
    """Return the workers of a search; none where nothing was left to do for them, or for whoever went on instead."""
    workers, over = workers_of(store, name), store.experiment(name).read_over()
    if all(_end(item) == 0 for item in workers):
        return []
    return workers if over is None or over < workers[-1].record.facts["time"] else []


def _end(item: Handed) -> int | None:
    """Return the exit code of an element that has ended for good; None for another."""
    events = element_events(item.record, item.index)
    code = events[-1].get("code") if events and events[-1]["what"] == "ended" else None
    return None if code == AGAIN else code


def _worker_lines(workers: Sequence[Handed], cluster: Cluster) -> list[StageStatus]:
    """Return the workers that are at work or will be; where there are none, how the last ones ended without success."""
    known = {item: cluster.queue.get(item.key) for item in workers}
    live = {item: job for item, job in known.items() if job is not None and job.is_live}
    if live or cluster.silent or not workers:
        begun = StageStatus("", SWEEP, "worker of the sweep", "waiting")
        return [_queued(replace(begun, id=item.worker), item, job) for item, job in live.items()]
    last = [item for item in workers if item.record.folder.parent == workers[-1].record.folder.parent]
    return [] if any(_end(item) == 0 for item in last) else [_dead(item) for item in last]


def _dead(item: Handed) -> StageStatus:
    events = element_events(item.record, item.index)
    status: Standing = "failed" if _end(item) == EXIT_CODES["failed"] else "interrupted" if events else "cancelled"
    reasons = [event["reason"] for event in events if "reason" in event]
    why = reasons[-1] if reasons else f"see {item.record.output(item.index)}" if events else "before it started"
    return StageStatus(item.worker, SWEEP, "worker of the sweep", status, f"{why} (job {item.job})")


def look() -> Cluster:
    """Ask squeue, once; where it does not answer, that is said and nothing is concluded from it."""
    try:
        return Cluster(jobs.queue())
    except SlurmError as error:
        return Cluster({}, error.message)


def cluster_statuses(store: Store, names: Iterable[str]) -> dict[str, list[StageStatus]]:
    """Return how every stage of experiments stands: the store alone where nothing of them was handed to SLURM.

    One squeue call, and one sacct call where a job that was handed over is neither done nor queued any more.
    """
    standing = {name: stage_statuses(store, name) for name in names}
    handed = handed_over(store, {line.id for lines in standing.values() for line in lines if line.status != "done"})
    workers = {name: _workers_to_tell_of(store, name) for name in standing}
    if not handed and not any(workers.values()):
        return standing
    cluster = look()
    gone = [item for item in handed.values() if item.key not in cluster.queue]
    past = _past(item.record for item in gone) if gone and not cluster.silent else {}

    def told(line: StageStatus) -> StageStatus:
        return _with_job(line, handed[line.id], cluster, past) if line.id in handed else line

    return {
        name: [*_with_blocked(store, [told(line) for line in lines]), *_worker_lines(workers[name], cluster)]
        for name, lines in standing.items()
    }


def chosen_statuses(
    store: Store, names: Iterable[str], states: Sequence[str], where: Sequence[str]
) -> dict[str, list[StageStatus]]:
    """Return how the stages of experiments stand that are in one of ``states`` and of cells with ``axis=value``.

    Raises UsageError for a state, an axis or a value there is not.
    """
    known = sorted({*get_args(Status), *CLUSTER_WORDS})
    for state in states:
        if state not in known:
            raise UnknownNameError("state", state, known)
    found = {}
    for name, lines in cluster_statuses(store, names).items():
        kept = [line for line in lines if not states or line.status in states]
        for condition in where:
            wanted = _stages_of(store, name, condition)
            kept = [line for line in kept if line.id in wanted]
        found[name] = kept
    return found


def _stages_of(store: Store, name: str, condition: str) -> set[str]:
    """Return the stages that cells with ``axis=value`` need."""
    axis, equals, value = condition.partition("=")
    if not equals:
        raise UsageError(f"--where {condition}: not of the form axis=value")
    subjects = store.experiment(name).read_plan()["subjects"]
    values = {str(subject["axes"][axis]) for subject in subjects if axis in subject["axes"]}
    if not values:
        raise UnknownNameError("axis", axis, {axis for subject in subjects for axis in subject["axes"]})
    if value not in values:
        raise UnknownNameError(f"value of {axis}", value, values)
    chosen = [subject for subject in subjects if str(subject["axes"].get(axis)) == value]
    waiting = [stage for subject in chosen for stage in (subject["stage"], *subject["evaluations"].values())]
    found: set[str] = set()
    while waiting:
        stage = waiting.pop()
        if stage not in found:
            found.add(stage)
            waiting += [ref["stage"] for ref in store.stage(stage).read_stage()["inputs"].values()]
    return found


def _past(records: Iterable[ArrayRecord]) -> Jobs:
    """Return what sacct says; nothing where it does not answer: silence is no failure."""
    unique = {record.folder: record for record in records}
    try:
        return jobs.accounted(unique.values())
    except SlurmError:
        return {}


def _with_job(line: StageStatus, item: Handed, cluster: Cluster, past: Jobs) -> StageStatus:
    if line.status == "done":
        return line
    job = cluster.queue.get(item.key)
    if job is not None and (job.is_live or job.state == "PENDING"):
        return _queued(line, item, job)
    if cluster.silent:
        return (
            line if line.status == "running" else replace(line, status="unknown", note=f"{item.job} {cluster.silent}")
        )
    if line.status in ("running", "failed"):
        return line
    return _ended(line, item, job or past.get(item.key))


def _queued(line: StageStatus, item: Handed, job: Job) -> StageStatus:
    """A job that is at work or waits: the store's word stands where the stage itself has begun."""
    if not job.is_pending:
        note = " ".join(filter(None, (line.note if line.status == "running" else "", f"on {job.nodes}, {job.used}")))
        return replace(line, status="running", note=f"{note} (job {item.job})")
    tries = restarts(item)
    again = f"; begun again after {tries}" if tries else ""
    status: Standing = "blocked" if job.reason == NEVER else "queued"
    return replace(line, status=status, note=f"{reason_in_words(job.reason) or 'waits'}{again} (job {item.job})")


LOSS = ("loss", "losses")
CAUSES = {
    "timeout": ("time-out", "time-outs"),
    "preemption": ("preemption", "preemptions"),
    "lost": LOSS,
    "node": LOSS,
    "failure": ("failure", "failures"),
}
"""What stops an element, in words for one and for several."""


def restarts(item: Handed) -> str:
    """Return what an element was begun again for, in words; what it ended with for good is none of it."""
    counts: Counter[tuple[str, str]] = Counter()
    stopped = None
    for event in element_events(item.record, item.index):
        if event["what"] in CAUSES:
            stopped = CAUSES[event["what"]]
        elif event["what"] in ("started", "ended"):
            if stopped and event.get("code", AGAIN) == AGAIN:
                counts[stopped] += 1
            stopped = None
    return ", ".join(f"{count} {words[count > 1]}" for words, count in counts.items())


def _ended(line: StageStatus, item: Handed, job: Job | None) -> StageStatus:
    """A job that is in the queue no more, of a stage without marker or reason of its own."""
    if not item.job:
        return replace(line, status="unknown", note="its submission broke off: `ablate run --on` finds out")
    if job is None:
        return replace(line, status="unknown", note=f"SLURM says nothing of job {item.job} yet")
    ends = [event for event in element_events(item.record, item.index) if event["what"] == "ended"]
    if ends and ends[-1].get("code") == 3:
        return replace(line, status="blocked", note=f"an input was missing when job {item.job} started")
    if ends and "reason" in ends[-1]:
        return replace(line, status="failed", note=f"{ends[-1]['reason']} (job {item.job})")
    if job.is_live:
        return replace(line, status="unknown", note=f"it left the queue, and the accounting lags (job {item.job})")
    if not element_events(item.record, item.index):
        if job.state == "CANCELLED":
            return replace(line, status="cancelled", note=f"before it started (job {item.job})")
        if job.state == "FAILED":
            return replace(line, status="interrupted", note=f"{_never_began(item, job)} (job {item.job})")
    note = f"{ENDED.get(job.state, job.state.lower())}{f' on {job.nodes}' if job.nodes else ''} (job {item.job})"
    status: Standing = "cancelled" if job.state == "CANCELLED" else "interrupted"
    return replace(line, status=status, note=" ".join(filter(None, (note, line.note))))


def _never_began(item: Handed, job: Job) -> str:
    """Say why a job failed that never came to its stages: its script printed it, or could not."""
    output = item.record.output(item.index)
    printed = [text for text in tail(output, 5) if text.strip()]
    if printed:
        return f"its script ended before the stage began: {printed[-1].strip()}"
    if output.exists():
        return "its script ended before the stage began, and printed nothing"
    return f"{job.nodes or 'its node'} could not write {output}: does it see the store? `ablate doctor --on` finds out"


def _with_blocked(store: Store, lines: Sequence[StageStatus]) -> list[StageStatus]:
    """Call what SLURM cancelled, or what waits, because something before it failed, blocked by that."""
    states = {line.id: line for line in lines}
    if not any(line.status in STOPPED for line in lines):
        return list(lines)

    @functools.cache
    def cause(stage: str) -> StageStatus | None:
        """Return a stage above that failed, one that is needed directly before others."""
        refs = store.stage(stage).read_stage()["inputs"].values()
        parents = [states[ref["stage"]] for ref in refs if ref["stage"] in states]
        failed = (parent for parent in parents if parent.status in STOPPED)
        above = (cause(parent.id) for parent in parents if parent.status != "done")
        return next(failed, None) or next(filter(None, above), None)

    def told(line: StageStatus) -> StageStatus:
        found = cause(line.id) if line.status in ("cancelled", "blocked", "waiting") else None
        return (
            line
            if found is None
            else replace(line, status="blocked", note=f"needs {found.id}, which is {found.status}")
        )

    return [told(line) for line in lines]
