"""Cancel, hold and release what is queued, and say why a stage does not run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ablate.execution.slurm import commands, jobs
from ablate.execution.slurm.arrays import spelled_indices
from ablate.execution.slurm.element import element_events
from ablate.execution.slurm.ledger import Turn
from ablate.execution.slurm.status import Handed, cluster_statuses, handed_over, restarts, workers_of
from ablate.execution.slurm.submit import reconcile
from ablate.execution.study import StageStatus, last_lines, no_stage, tail
from ablate.store import Store

AT_ONCE = 200
"""Jobs named in one call."""


def live_jobs(store: Store, name: str, stages: Iterable[str] = ()) -> dict[str, Handed]:
    """Return the stages and workers of an experiment that are queued or run, or those of ``stages``.

    ``stages`` are beginnings of ids. With a stage come those that share an element with it: jobs are cancelled and held
    as a whole. Raises UsageError for a beginning that no stage or worker of the experiment has.
    """
    beginnings = tuple(stages)
    planned = store.experiment(name).read_plan()["stages"]
    workers = {item.worker: item for item in workers_of(store, name)}
    for beginning in beginnings:
        if not any(known.startswith(beginning) for known in (*planned, *workers)):
            raise no_stage(beginning, name)
    wanted = [stage for stage in planned if not beginnings or stage.startswith(beginnings)]
    queue = jobs.queue()

    def is_live(item: Handed) -> bool:
        job = queue.get(item.key)
        return job is not None and job.is_live

    live = filter(is_live, handed_over(store, wanted).values())
    found = {stage: item for item in live for stage in item.stages if not store.stage(stage).is_done()}
    of_workers = tuple(beginning for beginning in beginnings if beginning not in workers)  # 10_1 is not 10_12, too
    chosen = {
        known: item
        for known, item in workers.items()
        if not beginnings or known in beginnings or known.startswith(of_workers)
    }
    return found | {known: item for known, item in chosen.items() if is_live(item)}


def unnamed_jobs(store: Store) -> dict[str, Handed]:
    """Return the stages that are queued or run in elements of which no experiment names a stage, by its last plan."""
    with Turn(store):  # what another process is about to queue has no job yet, and would be taken for void
        named = {stage for name in store.experiment_names() for stage in store.experiment(name).read_plan()["stages"]}
        queued, _ = reconcile(store)
    kept = {place for stage, place in queued.places.items() if stage in named}
    return handed_over(store, [stage for stage, place in queued.places.items() if place not in kept])


def cancel(store: Store, live: dict[str, Handed]) -> int:
    """Cancel the jobs of stages; returns how many."""
    with Turn(store):  # whoever submits meanwhile would hang new jobs on these
        return _call(["scancel"], live)


def hold(live: dict[str, Handed]) -> tuple[int, int]:
    """Keep what has not started from starting; returns how many jobs, and how many have started and go on."""
    known = jobs.queue()
    pending = {stage: item for stage, item in live.items() if item.key in known and known[item.key].is_pending}
    started = {item.key for item in live.values()} - {item.key for item in pending.values()}
    return _call(["scontrol", "hold"], pending), len(started)


def release(live: dict[str, Handed]) -> int:
    """Let start what was held; returns how many jobs."""
    return _call(["scontrol", "release"], live)


def _call(command: list[str], live: dict[str, Handed]) -> int:
    by_job: dict[str, set[int]] = {}
    for item in live.values():
        if item.array:
            by_job.setdefault(item.array, set()).add(item.index)
    names = [f"{job}_[{spelled_indices(indices)}]" for job, indices in by_job.items()]
    for start in range(0, len(names), AT_ONCE):
        commands.call([*command, *names[start : start + AT_ONCE]])
    return sum(map(len, by_job.values()))


def why(store: Store, name: str, stage: str) -> list[str]:
    """Return, a line each, how a stage stands, what it waits for, what happened to its job, and where its logs are."""
    lines = {line.id: line for line in cluster_statuses(store, [name])[name]}
    line = lines[stage]
    told = [f"{stage}  {line.label}", f"{line.status}{f': {line.note}' if line.note else ''}"]
    told += _inputs(store, line, lines)
    handed = handed_over(store, [stage]).get(stage)
    if handed is None:
        return [*told, "never handed to SLURM"]
    told.append(f"job {handed.job or '(id not known)'}, {handed.record.name} element {handed.index}")
    if again := restarts(handed):
        told.append(f"begun again after {again}")
    for event in element_events(handed.record, handed.index)[-6:]:
        facts = ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("time", "what"))
        told.append(f"  {event['what']}: {facts}")
    output = handed.record.output(handed.index)
    told.append(f"script: {handed.record.script}")
    if output.exists():
        told += [f"printed: {output}", *(f"  | {text}" for text in tail(output, 5))]
    attempts = store.stage(stage).attempts()
    if attempts:
        told += [f"log: {attempts[-1].log}", *(f"  | {text}" for text in last_lines(attempts[-1], 5))]
    return told


def _inputs(store: Store, line: StageStatus, lines: dict[str, StageStatus]) -> list[str]:
    """Say of every input that is not done how it stands."""
    told = []
    for ref in store.stage(line.id).read_stage()["inputs"].values():
        parent = lines.get(ref["stage"])
        if parent is not None and parent.status != "done":
            told.append(
                f"  needs {parent.id}  {parent.label}: {parent.status}{f', {parent.note}' if parent.note else ''}"
            )
    return list(dict.fromkeys(told))


def experiment_of(store: Store, stage: str) -> str | None:
    """Return an experiment that has a stage; None where there is none."""
    for name in store.experiment_names():
        if stage in store.experiment(name).read_plan()["stages"]:
            return name
    return None


def log_files(store: Store, stage: str) -> list[Path]:
    """Return what a stage's newest attempt and its job's script print to, as far as they exist."""
    attempts = store.stage(stage).attempts()
    handed = handed_over(store, [stage]).get(stage)
    files = [attempts[-1].log] if attempts else []
    files += [handed.record.output(handed.index)] if handed else []
    return [file for file in files if file.exists()]
