"""What was handed to SLURM, as files of the store: an array's intent before sbatch, its job id after.

slurm/<submission>/  submission.json        experiment, profile, time
                     profile.yaml          the profile, as it was then
                     stage.sbatch.j2       the batch script's template, as it was then
                     specification.yaml    what the workers of a sweep search, as it was then
                     <array>/array.json     stages by index, resources, the job's name: written before sbatch
                             job.json       job id: written after
                             void.json      instead: there is no such job, and should it appear it does nothing
                             stage.sbatch   the script
                             <index>.out    what an element prints
                             <index>.jsonl  what happened to it
                             <index>.minutes  its next time limit, where it ran out of time and is to have more
                             ends.jsonl     how its elements ended, one after the other
                     closed.json            no job of it is left in the queue
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ablate.context import Resources, read_json, write_json
from ablate.errors import LeaseLost, UsageError
from ablate.execution import lease
from ablate.execution.slurm.arrays import Array, Work
from ablate.execution.slurm.profile import Service
from ablate.store import StageFolder, Store


@dataclass(frozen=True)
class ArrayRecord:
    """The files of one job array."""

    folder: Path

    @property
    def array_json(self) -> Path:
        """What is to be queued; also what an element reads to learn its stages."""
        return self.folder / "array.json"

    @property
    def job_json(self) -> Path:
        """The job id."""
        return self.folder / "job.json"

    @property
    def void_json(self) -> Path:
        """Says that the array is not queued and must do nothing."""
        return self.folder / "void.json"

    @property
    def script(self) -> Path:
        """The batch script."""
        return self.folder / "stage.sbatch"

    def output(self, index: int | str) -> Path:
        """File that an element prints to."""
        return self.folder / f"{index}.out"

    def events(self, index: int) -> Path:
        """File of what happened to an element."""
        return self.folder / f"{index}.jsonl"

    def minutes(self, index: int) -> Path:
        """File of the time limit that an element is to have when it is begun again; the batch script reads it."""
        return self.folder / f"{index}.minutes"

    @property
    def ends(self) -> Path:
        """How its elements ended, as JSON lines: the reason of a failure, null for what ended well."""
        return self.folder / "ends.jsonl"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What array.json says."""
        value: dict[str, Any] = read_json(self.array_json)
        return value

    @property
    def name(self) -> str:
        """The job's name, which no other array has."""
        return str(self.facts["name"])

    @cached_property
    def elements(self) -> dict[int, tuple[str, ...]]:
        """Stage ids by index."""
        return {int(index): tuple(stages) for index, stages in self.facts["elements"].items()}

    @property
    def work(self) -> Work | None:
        """What its elements do that are workers; None where they have stages."""
        return Work(**self.facts["work"]) if self.facts.get("work") else None

    @property
    def pack(self) -> int:
        """Stages that may share an element."""
        return int(self.facts["pack"])

    @property
    def is_void(self) -> bool:
        """Whether it was found not to be queued."""
        return self.void_json.exists()

    @property
    def job(self) -> str | None:
        """The job id; None before it is known."""
        return str(read_json(self.job_json)["job"]) if self.job_json.exists() else None

    @property
    def services(self) -> dict[str, Service]:
        """Servers that its stages ask, by name, as the profile had them."""
        return {name: Service.model_construct(**written) for name, written in self.facts["services"].items()}

    def resources(self, position: int) -> Resources:
        """Return what the stage at a position of an element computes with."""
        return Resources.from_json(self.facts["resources"][position])

    def write_intent(self, array: Array, name: str, retries: Mapping[str, int], limits: Mapping[str, Any]) -> None:
        """Write what is about to be queued."""
        self.folder.mkdir(parents=True)
        facts = {
            "name": name,
            "kind": array.shape.kind,
            "elements": {str(index): list(stages) for index, stages in array.elements.items()},
            "pack": array.shape.pack,
            "resources": [asdict(array.shape.resources(position)) for position in range(array.shape.pack)],
            "shape": asdict(array.shape),
            "work": asdict(array.work) if array.work else None,
            "retries": dict(retries),
            **limits,
            "time": time.time(),
        }
        write_json(self.array_json, facts)

    def write_job(self, job: str) -> None:
        """Write the job id."""
        write_json(self.job_json, {"job": job, "time": time.time()})

    def write_void(self, reason: str) -> None:
        """Write that the array is not queued."""
        write_json(self.void_json, {"reason": reason, "time": time.time()})


@dataclass(frozen=True)
class Submission:
    """What one call of ``ablate run --on`` handed to SLURM."""

    folder: Path

    @property
    def facts_json(self) -> Path:
        """Experiment, profile, time."""
        return self.folder / "submission.json"

    @property
    def profile(self) -> Path:
        """The profile as it was."""
        return self.folder / "profile.yaml"

    @property
    def template(self) -> Path:
        """The batch script's template as it was."""
        return self.folder / "stage.sbatch.j2"

    @property
    def specification(self) -> Path:
        """What the workers of a sweep search, as it was."""
        return self.folder / "specification.yaml"

    @property
    def closed_json(self) -> Path:
        """Written when none of its jobs is left in the queue."""
        return self.folder / "closed.json"

    @property
    def is_open(self) -> bool:
        """Whether jobs of it may be queued."""
        return not self.closed_json.exists()

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What submission.json says."""
        value: dict[str, Any] = read_json(self.facts_json)
        return value

    def array(self, key: str) -> ArrayRecord:
        """Return the files of one of its arrays."""
        return ArrayRecord(self.folder / key)

    def job_name(self, key: str) -> str:
        """Return the name of an array's job: its kind first, which is what a queue's listing shows."""
        number, _, kind = key.partition("-")
        token = self.folder.name.rpartition("-")[2]
        return f"{kind}.{self.facts['experiment']}.{token}.{number}"

    def arrays(self) -> list[ArrayRecord]:
        """Return its arrays in the order in which they were submitted, without what came to nothing."""
        found = sorted(path.parent for path in self.folder.glob("*/array.json"))
        records = (ArrayRecord(folder) for folder in sorted(found, key=lambda f: int(f.name.partition("-")[0])))
        return [record for record in records if not record.is_void]

    def close(self) -> None:
        """Write that none of its jobs is left in the queue."""
        write_json(self.closed_json, {"time": time.time()})


def new_submission(store: Store, **facts: Any) -> Submission:
    """Start a folder for a submission, whose name comes after those of earlier ones, also of the same second."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    submission = Submission(store.slurm / f"{stamp}-{secrets.token_hex(4)}")
    submission.folder.mkdir(parents=True)
    write_json(submission.facts_json, {**facts, "time": time.time()})
    return submission


def submissions(store: Store) -> Iterator[Submission]:
    """Yield all submissions of a store, oldest first."""
    for path in sorted(store.slurm.glob("*/submission.json")):
        yield Submission(path.parent)


def open_submissions(store: Store) -> list[Submission]:
    """Return the submissions that may have jobs in the queue, oldest first."""
    return [submission for submission in submissions(store) if submission.is_open]


class Turn:
    """The right to submit from a store: one process at a time has it, a dead one loses it."""

    def __init__(self, store: Store) -> None:
        self._folder = StageFolder(store.slurm / "turn")

    def __enter__(self) -> Turn:
        self._folder.folder.mkdir(parents=True, exist_ok=True)
        attempt = lease.claim(self._folder)
        if attempt is None:
            owner = read_json(self._folder.attempts()[-1].owner_json)
            raise UsageError(
                f"another ablate submits from this store now (process {owner['pid']} on {owner['host']})",
                hint="wait until it has ended: the same command then submits what is missing",
            )
        self._attempt = attempt
        return self

    def __exit__(self, *error: object) -> None:
        lease.end(self._attempt, "done")

    def renew(self) -> None:
        """Say that the submission goes on; raises LeaseLost where another process took over."""
        if self._folder.attempts()[-1].number != self._attempt.number:
            raise LeaseLost("another ablate took the submission over")
        lease.beat(self._attempt)
