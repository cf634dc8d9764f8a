"""The layout of a store on disk. One class owns these paths; nobody else joins them.

store.json                          the layout's version
stages/<id>/  stage.json            what the stage makes and how it is run
              attempts/<n>/         owner.json, log, events.jsonl, environment.json, failure.json, work/
              output/               the artifacts, renamed into place in one step
              done.json             written last: the stage is done when it exists
experiments/<name>/  spec.yaml, source.json, plan.json, estimate.json, usage.json, evaluation.yaml, trials.jsonl
                     over.json             of a search: all its trials have ended
                     trials/<number>/attempts/<n>/  leases of a search's trial: owner.json, heartbeat, ended.json
                     cells/<axes>/{checkpoint,<suite>} -> ../../../../stages/<id>/output/…
code/<digest>/                      snapshots of the code that attempts ran
slurm/<submission>/<array>/         what was handed to SLURM: stages of each job array, its script, job id, logs
cache/                              anything here can be deleted and is rebuilt
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.context import read_json, write_json
from ablate.errors import StoreError, UnknownNameError

VERSION = 1
LONGEST_NAME = 255


@dataclass(frozen=True)
class AttemptFolder:
    """One try at a stage: who ran it, its log, events and checkpoints."""

    folder: Path

    @property
    def number(self) -> int:
        """Position among the attempts, from 1; a higher number fences off the lower ones."""
        return int(self.folder.name)

    @property
    def owner_json(self) -> Path:
        """Who runs this attempt: host, process id, process start time."""
        return self.folder / "owner.json"

    @property
    def heartbeat(self) -> Path:
        """File whose modification time says when the owner was last alive."""
        return self.folder / "heartbeat"

    @property
    def ended_json(self) -> Path:
        """Written when the attempt has ended, well or not."""
        return self.folder / "ended.json"

    @property
    def failure_json(self) -> Path:
        """Why the attempt failed: type, message, the last lines of the log."""
        return self.folder / "failure.json"

    @property
    def log(self) -> Path:
        """Standard output and error of the stage's processes."""
        return self.folder / "log"

    @property
    def events(self) -> Path:
        """Losses, rewards and progress as JSON lines."""
        return self.folder / "events.jsonl"

    @property
    def environment_json(self) -> Path:
        """Versions, hardware and code digest; never secrets."""
        return self.folder / "environment.json"

    @property
    def work(self) -> Path:
        """Checkpoints of this attempt; dropped when the stage is done."""
        return self.folder / "work"

    @property
    def output(self) -> Path:
        """Where artifacts are made before they are renamed into place."""
        return self.folder / "output"

    def read_failure(self) -> dict[str, Any] | None:
        """Return the recorded failure, or None."""
        return _read_optional(self.failure_json)


@dataclass(frozen=True)
class StageFolder:
    """The folder of one stage."""

    folder: Path

    @property
    def id(self) -> str:
        """The stage's identity."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """What sort of work it is: ids are ``<kind>-<digest>``."""
        return self.folder.name.rpartition("-")[0]

    @property
    def stage_json(self) -> Path:
        """What the stage makes and how it is run."""
        return self.folder / "stage.json"

    @property
    def done_json(self) -> Path:
        """The marker: the stage is done when this file exists."""
        return self.folder / "done.json"

    @property
    def output(self) -> Path:
        """The published artifacts."""
        return self.folder / "output"

    def artifact(self, name: str) -> Path:
        """Return the path of a published artifact; the empty name is the whole output."""
        return self.output / name if name else self.output

    def is_done(self) -> bool:
        """Tell whether the stage's results are published."""
        return self.done_json.exists()

    def read_stage(self) -> dict[str, Any]:
        """Return stage.json."""
        return _object(self.stage_json)

    def read_done(self) -> dict[str, Any] | None:
        """Return done.json, or None while the stage isn't done."""
        return _read_optional(self.done_json)

    @property
    def attempts_folder(self) -> Path:
        """Parent of the attempts."""
        return self.folder / "attempts"

    def attempts(self) -> list[AttemptFolder]:
        """Return the attempts, oldest first."""
        if not self.attempts_folder.is_dir():
            return []
        numbers = sorted(int(entry.name) for entry in self.attempts_folder.iterdir() if entry.name.isdigit())
        return [self.attempt(number) for number in numbers]

    def attempt(self, number: int) -> AttemptFolder:
        """Return the folder of attempt ``number``; it need not exist."""
        return AttemptFolder(self.attempts_folder / str(number))

    def last_failure(self) -> dict[str, Any] | None:
        """Return the failure of the newest attempt, or None when there is none."""
        attempts = self.attempts()
        return attempts[-1].read_failure() if attempts else None


@dataclass(frozen=True)
class ExperimentFolder:
    """What the store keeps of one experiment: its spec, its plan, readable links to its stages."""

    folder: Path

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.folder.name

    @property
    def spec(self) -> Path:
        """The resolved specification, with comments on where it came from."""
        return self.folder / "spec.yaml"

    @property
    def evaluation(self) -> Path:
        """The specification that ``ablate eval`` wrote, where the experiment is one of those."""
        return self.folder / "evaluation.yaml"

    @property
    def plan_json(self) -> Path:
        """Cells, baselines and the stages that make them: all that results and tracking read."""
        return self.folder / "plan.json"

    @property
    def source_json(self) -> Path:
        """The file and overrides the plan was made from."""
        return self.folder / "source.json"

    @property
    def usage_json(self) -> Path:
        """What its jobs took of a cluster, when that was last asked."""
        return self.folder / "usage.json"

    @property
    def estimate_json(self) -> Path:
        """Seconds that a stage of each kind was estimated to take when the experiment first ran."""
        return self.folder / "estimate.json"

    @property
    def trials_jsonl(self) -> Path:
        """Journal of the trials, where the experiment is a search: it only grows, or is a copy of a database's."""
        return self.folder / "trials.jsonl"

    @property
    def storage_json(self) -> Path:
        """The database that the trials are in, where they are in one, and what their study is called there."""
        return self.folder / "storage.json"

    @property
    def begun_with(self) -> list[Path]:
        """The files, of those that there are, without which its search begins anew."""
        return [file for file in (self.trials_jsonl, self.storage_json) if file.exists()]

    @property
    def over_json(self) -> Path:
        """When all trials had ended that the search was to have then."""
        return self.folder / "over.json"

    def read_over(self) -> float | None:
        """Return when all trials had ended, as seconds since the epoch; None where they never had."""
        known = _read_optional(self.over_json)
        return None if known is None else float(known["time"])

    def leases(self, number: int) -> StageFolder:
        """Return the folder of the leases on a trial, which are like those on a stage."""
        return StageFolder(self.folder / "trials" / str(number))

    @property
    def cells(self) -> Path:
        """Folders named after the cells' axes, with links to checkpoints and results."""
        return self.folder / "cells"

    @property
    def tuning(self) -> Path:
        """Folder of an experiment's groups of cells that are tuned apart, each with its trials."""
        return self.folder / "tuning"

    def group(self, name: str) -> GroupFolder:
        """Return the folder of a group of cells that are tuned together; it need not exist."""
        return GroupFolder(self.tuning / name)

    def read_plan(self) -> dict[str, Any]:
        """Return plan.json; the stages of its tuning, as they stand, are among its own, marked ``tuning``.

        Raises UnknownNameError when the experiment was never planned here.
        """
        plan = _read_optional(self.plan_json)
        if plan is None:
            planned = sorted(file.parent.name for file in self.folder.parent.glob("*/plan.json"))
            raise UnknownNameError("experiment of this store", self.name, planned)
        for group in plan.get("tuning", {}).get("groups", ()):
            tried = self.group(group["name"]).stages()
            plan["stages"] = {**{stage: {**about, "tuning": True} for stage, about in tried.items()}, **plan["stages"]}
        return plan


@dataclass(frozen=True)
class GroupFolder(ExperimentFolder):
    """What the store keeps of cells that are tuned together: an experiment of trials, and what they have come to."""

    @property
    def experiment(self) -> str:
        """The name of the experiment that the trials are recorded as: this folder's among those of the experiments."""
        return "/".join(self.folder.parts[-3:])

    @property
    def outcome_json(self) -> Path:
        """The winner, the trials it is the best of and, once all have ended, their stages; all from the journal."""
        return self.folder / "outcome.json"

    def read_outcome(self) -> dict[str, Any] | None:
        """Return outcome.json; None while no trial has ended."""
        return _read_optional(self.outcome_json)

    def stages(self) -> Mapping[str, Any]:
        """Return the stages of the trials: while any is under way all, then those that were done."""
        known = self.read_outcome() or {}
        plan = _read_optional(self.plan_json) or {}
        stages: Mapping[str, Any] = known.get("stages") or plan.get("stages") or {}
        return stages


class Store:
    """A folder of stages and experiments; any POSIX file system will do."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self._stages = str(self.stages)

    @property
    def marker(self) -> Path:
        """The file that says which layout this store has."""
        return self.root / "store.json"

    @property
    def cache(self) -> Path:
        """Folder of what can be rebuilt: digests, the MLflow database."""
        return self.root / "cache"

    @property
    def code(self) -> Path:
        """Folder of code snapshots."""
        return self.root / "code"

    @property
    def slurm(self) -> Path:
        """Folder of what was handed to SLURM."""
        return self.root / "slurm"

    @property
    def stages(self) -> Path:
        """Folder of all stages."""
        return self.root / "stages"

    @property
    def experiments(self) -> Path:
        """Folder of all experiments."""
        return self.root / "experiments"

    def check(self) -> None:
        """Refuse a store of a newer layout; a folder without a marker counts as empty."""
        marker = _read_optional(self.marker)
        version = VERSION if marker is None else marker.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise StoreError(
                f"store {self.root} has layout version {version}; this ablate knows up to {VERSION}",
                hint="upgrade ablate, or name another store with --store",
            )

    def open(self) -> Store:
        """Check the layout, create the marker when the store is new, and return the store itself."""
        self.check()
        self.stages.mkdir(parents=True, exist_ok=True)
        self.experiments.mkdir(exist_ok=True)
        self.cache.mkdir(exist_ok=True)
        if not self.marker.exists():
            write_json(self.marker, {"version": VERSION})
        return self

    def stage(self, stage_id: str) -> StageFolder:
        """Return the folder of a stage; it need not exist."""
        return StageFolder(self.stages / stage_id)

    def marker_stamp(self, stage_id: str) -> tuple[int, int, int] | None:
        """Return time, size and inode of a stage's done.json, which differ when it is written anew; None without it."""
        try:
            found = os.stat(f"{self._stages}/{stage_id}/done.json")  # a hundred thousand Paths take a second
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def experiment(self, name: str) -> ExperimentFolder:
        """Return the folder of an experiment; it need not exist."""
        return ExperimentFolder(self.experiments / name)

    def experiment_names(self) -> list[str]:
        """Return the names of the experiments planned in this store."""
        if not self.experiments.is_dir():
            return []
        return sorted(entry.name for entry in self.experiments.iterdir() if (entry / "plan.json").exists())

    def done_stages(self, most: int) -> Iterator[StageFolder]:
        """Yield stages whose results are published, at most so many of each kind: by id, thus in no order of time."""
        counts: Counter[str] = Counter()
        for entry in sorted(self.stages.iterdir()) if self.stages.is_dir() else ():
            folder = StageFolder(entry)
            if counts[folder.kind] < most and folder.is_done():
                counts[folder.kind] += 1
                yield folder


def file_name(label: str) -> str:
    """Return a label as a file name: no slash, at most the 255 bytes that file systems take."""
    name = label.replace("/", "_")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    ending = f"… {hashlib.sha256(label.encode()).hexdigest()[:16]}"
    return name.encode()[: LONGEST_NAME - len(ending.encode())].decode(errors="ignore") + ending


def bytes_below(folder: Path) -> int:
    """Return what the files below a folder take; one that other folders link to counts for none."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            facts = os.lstat(os.path.join(parent, name))
            total += facts.st_size if facts.st_nlink == 1 else 0
    return total


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise StoreError(f"{path} is not a JSON object")
    return value


def _read_optional(path: Path) -> dict[str, Any] | None:
    try:
        return _object(path)
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise StoreError(f"{path} is not valid JSON: {error}") from error
