"""A study of light stages on the cluster that answers `sinfo` here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ablate.context import read_json
from ablate.store import StageFolder, Store

HELPERS = Path(__file__).parents[1] / "helpers"
SPEC = """\
name: small
policy: pocket-small
sft: {dataset: pocket-instructions}
grid:
  - {dataset: pocket-hh, algorithm: dpo, dpo.beta: [0.1, 0.2]}
evaluate: {policy: [pocket-gold]}
"""


class Study:
    """A folder with a specification, a profile and a store, and the command line in it."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        self.folder, self.store = folder, Store(folder / "store")
        self.before: list[str] = []
        self.paths = os.pathsep.join([str(HELPERS), *filter(None, sys.path)])
        (folder / "small.yaml").write_text(SPEC)
        environment = {"PYTHONPATH": self.paths, "LIGHT_WORK_FOLDER": str(folder), "LIGHT_WORK_SECONDS": str(seconds)}
        self.profile(environment=environment)

    def profile(self, **changes: object) -> None:
        """Write the profile; keys once written stay."""
        path = self.folder / "cluster.yaml"
        known = json.loads(path.read_text()) if path.exists() else {}
        first = {"needs": {"default": {"cpus": 1, "memory": "200M", "time": 10}}, "limits": {"time": 60}}
        path.write_text(json.dumps(first | known | changes))  # JSON is YAML

    def ablate(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command line, by the words ``before``, with light stages in place of all that computes."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ABLATE_")}
        return subprocess.run(
            [*self.before, sys.executable, str(HELPERS / "light_cli.py"), *words],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": self.paths, "LIGHT_WORK_FOLDER": str(self.folder), **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def submit(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Hand the study to the cluster."""
        return self.ablate("run", "small.yaml", "--on", "cluster.yaml", **variables)

    @staticmethod
    def slurm(*command: str) -> str:
        """Run a SLURM command and return what it prints."""
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout

    def stages(self) -> list[StageFolder]:
        """The stages of the plan."""
        return [self.store.stage(stage) for stage in self.store.experiment("small").read_plan()["stages"]]

    def jobs(self) -> list[str]:
        """Job ids of the study that are queued or run, elements apart."""
        return [job for job, state in self.queue() if state != "COMPLETING"]

    def queue(self) -> list[tuple[str, str]]:
        """Job ids and states of this study's elements: others may use the cluster, too."""
        tokens = {path.name.rpartition("-")[2] for path in self.store.slurm.glob("2*")}
        listed = (line.split("|") for line in self.slurm("squeue", "-h", "-r", "-o", "%i|%j|%T").splitlines())
        return [(job, state) for job, name, state in listed if tokens & set(name.split("."))]

    def wait(self, seconds: float) -> None:
        """Wait until nothing of it is in the queue."""
        deadline = time.monotonic() + seconds
        while jobs := self.jobs():
            assert time.monotonic() < deadline, self.slurm("squeue")
            self._put_right(jobs)
            time.sleep(0.5)

    def _put_right(self, jobs: list[str]) -> None:
        """Do as an administrator does after a launch that failed on a busy node: SLURM drains it and holds the job."""
        listed = (line.split("|") for line in self.slurm("squeue", "-h", "-r", "-o", "%i|%r").splitlines())
        held = [job for job, reason in listed if job in jobs and "launch" in reason and "held" in reason]
        for job in held:
            for node in self.slurm("sinfo", "-h", "-N", "-t", "drain", "-o", "%N").split():
                self.slurm("scontrol", "update", f"nodename={node}", "state=resume")
            self.slurm("scontrol", "release", job)

    def check_done_once(self) -> None:
        """Every stage is done, by one attempt, and none began before its inputs were done."""
        records = {stage.id: stage.read_done() for stage in self.stages()}
        assert all(records.values()), {stage for stage, record in records.items() if record is None}
        for stage in self.stages():
            ends = [read_json(a.ended_json)["status"] for a in stage.attempts() if a.ended_json.exists()]
            assert ends.count("done") == 1
            for ref in stage.read_stage()["inputs"].values():
                parent, own = records[ref["stage"]], records[stage.id]
                assert parent and own and parent["ended"] <= own["started"]


@pytest.fixture
def really(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Run the command line in the test's folder, with the work that really trains; returns what it prints.

    A call may take the ``PATIENCE`` of the test's file, in seconds.
    """

    def call(*words: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "ablate", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=request.module.PATIENCE,
            check=False,
        )
        assert ended.returncode in (0, 3), ended.stderr
        return ended.stdout

    return call


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    made = Study(tmp_path)
    yield made
    if left := made.jobs():
        made.slurm("scancel", *left)
