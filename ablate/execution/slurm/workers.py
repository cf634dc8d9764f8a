"""Workers: elements of job arrays without stages of their own, which share what there is to do through the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ablate.context import write_text
from ablate.execution.slurm import commands, jobs
from ablate.execution.slurm.arrays import Array, Work
from ablate.execution.slurm.ledger import Turn, new_submission
from ablate.execution.slurm.profile import LoadedProfile
from ablate.execution.slurm.shapes import Shape
from ablate.execution.slurm.status import workers_of
from ablate.execution.slurm.storage import require_room, require_shared
from ablate.execution.slurm.submit import Submitted, admitted, reconcile, submit_arrays, write_scripts
from ablate.store import Store


def submit_workers(
    store: Store,
    name: str,
    wanted: Callable[[], int],
    shape: Shape,
    work: Work,
    specification: str,
    loaded: LoadedProfile,
) -> Submitted:
    """Queue as many workers of an experiment as are missing to those ``wanted``, which is asked in this call's turn.

    ``specification`` is kept with them. Raises Refused, with nothing of this call left in the queue, where SLURM
    refuses them.
    """
    commands.require_slurm()
    require_shared(store, loaded)
    store.open()
    require_room(store)
    with Turn(store) as turn:
        _, live = reconcile(store)
        most = wanted()
        known = jobs.queue()
        there = sum(job.is_live for item in workers_of(store, name) if (job := known.get(item.key)) is not None)
        result = Submitted(queued=there)
        if most <= there:
            return result
        arrays, loaded = _admitted(store, most - there, shape, work, live, loaded, result)
        submission = new_submission(store, experiment=name, profile=str(loaded.file))
        write_text(submission.specification, specification)
        submit_arrays(store, submission, arrays, loaded, turn.renew, result)
    return result


def write_worker_scripts(
    store: Store, name: str, count: int, shape: Shape, work: Work, loaded: LoadedProfile, folder: Path
) -> Submitted:
    """Write the scripts of workers to a folder; nothing is recorded or queued."""
    result = Submitted()
    if not count:
        return result
    arrays, loaded = _admitted(store, count, shape, work, 0, loaded, result)
    write_scripts(store, name, arrays, loaded, folder, result)
    return result


def _admitted(
    store: Store, count: int, shape: Shape, work: Work, live: int, loaded: LoadedProfile, result: Submitted
) -> tuple[list[Array], LoadedProfile]:
    """Return as many of ``count`` workers as there is room for beside ``live`` jobs; raises as :func:`admitted`."""
    room = max(loaded.profile.limits.submit - live, 1)  # where there is none at all, that is an error
    arrays, loaded = admitted(store, worker_arrays(min(count, room), shape, work, loaded), live, loaded, result)
    result.workers = sum(len(array.elements) for array in arrays)
    result.left = count - result.workers
    return arrays, loaded


def worker_arrays(count: int, shape: Shape, work: Work, loaded: LoadedProfile) -> list[Array]:
    """Return workers as job arrays, none larger than the profile allows."""
    largest = min(loaded.profile.limits.array, loaded.profile.limits.submit)
    sizes = [min(largest, count - begun) for begun in range(0, count, largest)]
    return [
        Array(f"{number:02d}-{shape.kind}", shape, dict.fromkeys(range(size), ()), work=work)
        for number, size in enumerate(sizes)
    ]
