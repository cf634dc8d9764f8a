"""What this machine offers to stages: worker slots, threads for each, GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field, replace

from ablate.context import Resources, cores
from ablate.errors import UsageError
from ablate.plan.stage import Execution

MOST_JOBS = 8


@dataclass(frozen=True)
class Machine:
    """Workers at a time, threads of each (cores / workers, never more), and the GPUs they share.

    ``training`` says how stages run that several processes can do together: how many those are, and the rest of
    their resources but for threads and GPUs.
    """

    jobs: int
    threads: int
    gpus: tuple[int, ...]
    training: Resources = field(default_factory=Resources)

    def resources(self, gpus: tuple[int, ...], stage: Execution) -> Resources:
        """Return what a stage is given that gets ``gpus``; one that can't be divided trains in one process."""
        if not stage.trains:
            own = self.training
            return Resources(self.threads, gpus, unsafe_code=own.unsafe_code, judges=own.judges)
        processes = self.training.processes if stage.ranks else 1
        return replace(self.training, processes=processes, threads=max(1, self.threads // processes), gpus=gpus)

    def gpus_of(self, stage: Execution) -> int:
        """Return the GPUs a stage takes: one a process, and one more for frozen models that are to be apart."""
        if not stage.gpu or not self.gpus:
            return 0
        processes = self.training.processes if stage.ranks else 1
        return processes + (stage.trains and self.training.frozen == "other-gpu")

    @classmethod
    def detect(
        cls,
        jobs: int | None = None,
        threads: int | None = None,
        gpus: int | None = None,
        training: Resources | None = None,
    ) -> Machine:
        """Return what there is, cut to what is asked for; with GPUs the default is one worker for each.

        Raises UsageError when more GPUs are asked for than there are, or a stage needs more than there are.
        """
        there = 0 if gpus == 0 else _gpu_count()
        if gpus is not None and gpus > there:
            raise UsageError(f"{gpus} GPUs are asked for, and this machine offers {there}")
        used = there if gpus is None else gpus
        workers = jobs or used or min(cores(), MOST_JOBS)
        machine = cls(workers, threads or max(1, cores() // workers), tuple(range(used)), training or Resources())
        if (needed := machine.gpus_of(Execution("", "", trains=True, ranks=True))) > used:
            raise UsageError(f"a training stage would take {needed} GPUs, and there are {used}")
        return machine


def visible_gpus() -> list[str] | None:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, as CUDA reads it (``-1`` ends the list); None: all of them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return names[: names.index("-1")] if "-1" in names else names


def _gpu_count() -> int:
    visible = visible_gpus()
    if visible is not None:
        return len(visible)
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (subprocess.SubprocessError, OSError):
        return 0
    return sum(1 for line in listing.stdout.splitlines() if line.startswith("GPU "))
