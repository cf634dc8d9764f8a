"""What a study took of a cluster, from the accounting: GPU hours, waiting, how much of the cores was used."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ablate.context import write_json
from ablate.execution.estimate import times
from ablate.execution.slurm import jobs
from ablate.execution.slurm.ledger import ArrayRecord, submissions
from ablate.store import Store

FIELDS = ("JobID", "JobName", "ElapsedRaw", "Submit", "Start", "AllocTRES", "TotalCPU")


@dataclass(frozen=True)
class Usage:
    """What jobs of one kind took, all tries counted: hours, median wait in seconds, share of the cores used."""

    kind: str
    tries: int
    hours: float
    gpu_hours: float
    core_hours: float
    wait_seconds: float | None
    cpu_share: float | None


@dataclass(frozen=True)
class _Try:
    seconds: float
    gpus: int
    cores: int
    cpu_seconds: float
    wait: float | None


def usage(store: Store, name: str) -> list[Usage]:
    """Return what an experiment's submissions took, by kind, and keep it, with the estimate, beside the plan.

    One sacct call; raises SlurmError where the site keeps no accounting.
    """
    kinds: dict[str, str] = {}
    records: list[ArrayRecord] = []
    for submission in submissions(store):
        if submission.facts["experiment"] == name:
            own = [record for record in submission.arrays() if record.job]
            records += own
            kinds |= {record.name: record.facts["kind"] for record in own}
    tries: dict[str, list[_Try]] = {kind: [] for kind in kinds.values()}
    for job, found in _accounted(records):
        if job in kinds:
            tries[kinds[job]].append(found)
    lines = [_summed(kind, own) for kind, own in tries.items() if own]
    record = {"kinds": [asdict(line) for line in lines], "stages": [asdict(line) for line in times(store, name)]}
    write_json(store.experiment(name).usage_json, {"time": time.time(), **record})
    return lines


def _accounted(records: Iterable[ArrayRecord]) -> Iterator[tuple[str, _Try]]:
    for place, job, elapsed, submitted, started, tres, cpu in jobs.sacct(records, FIELDS, "--duplicates"):
        if "." not in place and int(elapsed or 0):
            asked = dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
            cores = int(asked.get("cpu", "1"))
            yield job, _Try(int(elapsed), _gpus(asked), cores, _seconds(cpu), _wait(submitted, started))


def _gpus(asked: Mapping[str, str]) -> int:
    """Return the GPUs of a job; some sites count them by type alone."""
    typed = (int(count) for name, count in asked.items() if name.startswith("gres/gpu:"))
    return int(asked["gres/gpu"]) if "gres/gpu" in asked else sum(typed)


def _wait(submitted: str, started: str) -> float | None:
    try:
        return (datetime.fromisoformat(started) - datetime.fromisoformat(submitted)).total_seconds()
    except ValueError:  # Unknown, None
        return None


def _seconds(text: str) -> float:
    """Return ``[days-][hours:]minutes:seconds[.fraction]`` in seconds."""
    days, _, rest = text.rpartition("-")
    parts = [float(part) for part in re.findall(r"[\d.]+", rest)]
    total = 0.0
    for part in parts:
        total = total * 60 + part
    return int(days or 0) * 86400 + total


def _summed(kind: str, tries: list[_Try]) -> Usage:
    waits = [item.wait for item in tries if item.wait is not None]
    cores = sum(item.seconds * item.cores for item in tries)
    return Usage(
        kind,
        len(tries),
        sum(item.seconds for item in tries) / 3600,
        sum(item.seconds * item.gpus for item in tries) / 3600,
        cores / 3600,
        statistics.median(waits) if waits else None,
        sum(item.cpu_seconds for item in tries) / cores if cores else None,
    )


def total(lines: Iterable[Usage]) -> dict[str, Any]:
    """Return the sums of hours over kinds."""
    known = list(lines)
    return {key: sum(getattr(line, key) for line in known) for key in ("tries", "hours", "gpu_hours", "core_hours")}
