"""A study of light stages on the cluster that answers `sinfo` here, and a stand-in for SLURM's commands."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ablate.algorithms.registry import METHODS
from ablate.cli import main
from ablate.context import read_json, write_json
from ablate.plan.kinds import KINDS, Kind
from ablate.store import StageFolder, Store

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HELPERS = Path(__file__).parents[1] / "helpers"
SPEC = """\
name: small
policy: pocket-small
sft: {dataset: pocket-instructions}
grid:
  - {dataset: pocket-hh, algorithm: dpo, dpo.beta: [0.1, 0.2]}
evaluate: {policy: [pocket-gold]}
"""
PROFILE = """\
partitions: main
limits: {calls: 12}
needs: {default: {memory: 200M, time: 10}}
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


class StandIn:
    """The stand-in's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name in ("sbatch", "squeue", "sinfo", "sacct", "scancel", "scontrol"):
            (self.bin / name).write_text(f'#!/bin/sh\nexec {sys.executable} -S {self.script(name)} "$@"\n')
            (self.bin / name).chmod(0o755)

    def script(self, name: str) -> Path:
        """Give the helper the command's name."""
        path = self.folder / name
        shutil.copyfile(HELPERS / "standin_slurm.py", path)
        return path

    def jobs(self) -> list[dict[str, Any]]:
        path = self.folder / "jobs.json"
        return json.loads(path.read_text()) if path.exists() else []

    def change(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        write_json(self.folder / "jobs.json", [job | change(job) for job in self.jobs()])

    def set(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)


@pytest.fixture
def standin(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path / "standin")


def environment(tmp_path: Path, standin: StandIn) -> dict[str, str]:
    paths = {"PATH": f"{standin.bin}:{os.environ['PATH']}", "STANDIN": str(standin.folder)}
    python = {"PYTHONPATH": os.pathsep.join([str(HELPERS), *filter(None, sys.path)])}
    return {**paths, **python, "LIGHT_WORK_FOLDER": str(tmp_path)}


@pytest.fixture
def files(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Write the ``SPEC`` of the test's file, and a profile beside it."""
    (tmp_path / "small.yaml").write_text(request.module.SPEC)
    (tmp_path / "cluster.yaml").write_text(PROFILE)


@pytest.fixture
def apart(tmp_path: Path, standin: StandIn, files: None) -> Run:
    """Run the command line as a process of its own, which can be killed; stages are light."""

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ABLATE_")}
        return subprocess.run(
            [sys.executable, str(HELPERS / "light_cli.py"), *words],
            cwd=tmp_path,
            env={**kept, **environment(tmp_path, standin)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


@pytest.fixture
def ablate(
    tmp_path: Path, standin: StandIn, files: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the command line in this process; stages are light."""
    for name in KINDS:
        monkeypatch.setitem(KINDS, name, Kind("light_work:pretend", heavy=False))
    for name, method in METHODS.items():
        monkeypatch.setitem(METHODS, name, dataclasses.replace(method, entry="light_work:pretend"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str, said: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(said))
            for name in [name for name in os.environ if name.startswith("ABLATE_")]:
                patch.delenv(name)
            for name, value in (environment(tmp_path, standin) | variables).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["ablate", *words])
            with pytest.raises(SystemExit) as stop:
                main()
        code = stop.value.code
        assert code is None or isinstance(code, int)
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(words, code or 0, printed.out, printed.err)

    return call
