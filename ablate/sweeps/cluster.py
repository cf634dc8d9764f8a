"""A sweep on a cluster: its workers as jobs that join and leave, and what each of them does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ablate.catalogs.models import models
from ablate.console import out
from ablate.context import Resources
from ablate.errors import StageError
from ablate.execution.runner import EXIT_CODES
from ablate.execution.slots import Machine
from ablate.execution.slurm.arrays import Work
from ablate.execution.slurm.ledger import Submission
from ablate.execution.slurm.profile import LoadedProfile
from ablate.execution.slurm.shapes import worker_shape
from ablate.execution.slurm.submit import Submitted
from ablate.execution.slurm.workers import submit_workers, write_worker_scripts
from ablate.experiment.loading import load_copy, specification_copy
from ablate.store import Store
from ablate.sweeps.display import SweepDisplay
from ablate.sweeps.run import Sweeper, run_sweep


def hand_over(
    sweeper: Sweeper, workers: int, parallel: int | None, loaded: LoadedProfile, *, dry_run: Path | None = None
) -> Submitted:
    """Queue workers until there are so many, no more than trials that have not ended; ``parallel``: trials of each.

    Each has what the profile gives the heaviest stage that a trial may have. With ``dry_run``, scripts are written to
    that folder and nothing is recorded or queued. Raises as :func:`ablate.execution.slurm.submit.submit_plan`.
    """
    file, overrides = sweeper.loaded.file.absolute(), list(sweeper.loaded.overrides)
    shape, needs = worker_shape(sweeper.possible, loaded, models())
    arguments = {"file": str(file), "overrides": overrides, "parallel": parallel}
    work, name = Work("ablate.sweeps.cluster:work", arguments, needs), sweeper.loaded.experiment.name
    if dry_run is not None:
        count = min(workers, sweeper.unfinished if sweeper.look() else sweeper.most)
        return write_worker_scripts(sweeper.store, name, count, shape, work, loaded, dry_run)

    def wanted() -> int:
        sweeper.begin()
        return min(workers, sweeper.unfinished)

    specification = yaml.safe_dump(specification_copy(file, overrides), sort_keys=False, allow_unicode=True)
    return submit_workers(sweeper.store, name, wanted, shape, work, specification, loaded)


def work(folder: Path, arguments: Mapping[str, Any], resources: Sequence[Resources]) -> int:
    """Take part in the sweep whose array this is; as many stages run at a time as there are ``resources``.

    Returns an exit code: 0 where nothing is left to begin, 130 where it was stopped. Raises StageError where no trial
    ended well.
    """
    submission = Submission(folder.parent)
    loaded = load_copy(submission.specification, Path(arguments["file"]), arguments["overrides"])
    assert loaded.experiment.sweep is not None
    each = resources[0]
    gpus = tuple(gpu for own in resources for gpu in own.gpus)
    machine = Machine(len(resources), each.threads * each.processes, gpus, each)
    with SweepDisplay(out, loaded.experiment.sweep) as shown:
        sweeper = Sweeper(Store(folder.parents[2]), loaded, arguments["parallel"] or machine.jobs, shown)
        finished = run_sweep(sweeper, machine, shown)
    if finished.interrupted:
        return EXIT_CODES["interrupted"]
    if sweeper.gave_up:
        raise StageError(f"gave up, no trial has ended well; most often: {sweeper.gave_up}")
    return EXIT_CODES["done"]
