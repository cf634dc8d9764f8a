"""What this machine offers to stages: worker slots, threads for each, GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

MOST_JOBS = 8


@dataclass(frozen=True)
class Machine:
    """Workers at a time, threads of each (cores / workers, never more), and the GPUs they share."""

    jobs: int
    threads: int
    gpus: tuple[int, ...]

    @classmethod
    def detect(cls, jobs: int | None = None, threads: int | None = None, gpus: int | None = None) -> Machine:
        """Return what there is, cut to what is asked for; with GPUs the default is one worker for each."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        found = _gpu_count() if gpus is None else gpus
        workers = jobs or (found if found else min(cores, MOST_JOBS))
        return cls(workers, threads or max(1, cores // workers), tuple(range(found)))


def _gpu_count() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip()])
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (subprocess.SubprocessError, OSError):
        return 0
    return sum(1 for line in listing.stdout.splitlines() if line.startswith("GPU "))
