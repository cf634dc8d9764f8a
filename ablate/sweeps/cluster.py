"""A sweep or a tuning on a cluster: its workers as jobs that join and leave, and what each of them does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ablate.catalogs.models import models
from ablate.console import out
from ablate.context import Resources
from ablate.errors import StageError
from ablate.execution.local import LocalRun
from ablate.execution.runner import EXIT_CODES
from ablate.execution.slots import Machine
from ablate.execution.slurm.arrays import Work
from ablate.execution.slurm.ledger import Submission
from ablate.execution.slurm.profile import LoadedProfile
from ablate.execution.slurm.shapes import worker_shape
from ablate.execution.slurm.submit import Submitted
from ablate.execution.slurm.workers import submit_workers, write_worker_scripts
from ablate.execution.tuned import read_tuning
from ablate.experiment.loading import LoadedExperiment, load_copy, specification_copy
from ablate.store import Store
from ablate.sweeps.display import SweepDisplay, TuningDisplay
from ablate.sweeps.run import Sweeper, Worker, run_sweep
from ablate.sweeps.storage import answering
from ablate.sweeps.tuning import Tuner


def hand_over(
    searcher: Worker, workers: int, parallel: int | None, loaded: LoadedProfile, *, dry_run: Path | None = None
) -> Submitted:
    """Queue workers until there are so many, no more than trials that have not ended; ``parallel``: trials of each.

    Each has what the profile gives the heaviest stage that a trial may have. With ``dry_run``, scripts are written to
    that folder and nothing is recorded or queued. Raises as :func:`ablate.execution.slurm.submit.submit_plan`.
    """
    file, overrides = searcher.loaded.file.absolute(), list(searcher.loaded.overrides)
    shape, needs = worker_shape(searcher.possible, loaded, models())
    arguments = {"file": str(file), "overrides": overrides, "parallel": parallel}
    work, name = Work("ablate.sweeps.cluster:work", arguments, needs), searcher.loaded.experiment.name
    if dry_run is not None:
        count = min(workers, searcher.unfinished if searcher.look() else searcher.most)
        return write_worker_scripts(searcher.store, name, count, shape, work, loaded, dry_run)

    def wanted() -> int:
        with answering(name):
            searcher.begin()
            return min(workers, searcher.unfinished)

    specification = yaml.safe_dump(specification_copy(file, overrides), sort_keys=False, allow_unicode=True)
    return submit_workers(searcher.store, name, wanted, shape, work, specification, loaded)


def work(folder: Path, arguments: Mapping[str, Any], resources: Sequence[Resources]) -> int:
    """Take part in the search whose array this is; as many stages run at a time as there are ``resources``.

    Returns an exit code: 0 where nothing is left to begin, 130 where it was stopped. Raises StageError where no trial
    of a sweep ended well; which groups of a tuning came to nothing is said when their cells are run.
    """
    submission, store = Submission(folder.parent), Store(folder.parents[2])
    loaded = load_copy(submission.specification, Path(arguments["file"]), arguments["overrides"])
    each = resources[0]
    gpus = tuple(gpu for own in resources for gpu in own.gpus)
    machine = Machine(len(resources), each.threads * each.processes, gpus, each)
    finished, gave_up = _search(store, loaded, arguments["parallel"] or machine.jobs, machine)
    if finished.interrupted:
        return EXIT_CODES["interrupted"]
    if gave_up:
        raise StageError(f"gave up, no trial has ended well; most often: {gave_up}")
    return EXIT_CODES["done"]


def _search(store: Store, loaded: LoadedExperiment, parallel: int, machine: Machine) -> tuple[LocalRun, str | None]:
    """Take part in a sweep or a tuning to its end; returns how that went, and why a sweep gave up."""
    sweep, tune = loaded.experiment.sweep, loaded.experiment.tune
    if tune is not None:
        with TuningDisplay(out, tune) as told:
            return run_sweep(Tuner(store, loaded, read_tuning(loaded, store), parallel, told), machine, told), None
    assert sweep is not None
    with SweepDisplay(out, sweep) as shown:
        sweeper = Sweeper(store, loaded, parallel, shown)
        return run_sweep(sweeper, machine, shown), sweeper.gave_up
