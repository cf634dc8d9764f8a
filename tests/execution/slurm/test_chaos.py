"""Whatever is killed, requeued, restarted or full: in the end every stage is done once and nothing is left running."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ablate.context import read_json

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def running(study: Any) -> list[str]:
    return [job for job, state in study.queue() if state == "RUNNING"]


def owners(study: Any) -> list[int]:
    """Process ids of the supervisors at work now."""
    found = []
    for stage in study.stages():
        for attempt in stage.attempts()[-1:]:
            if not attempt.ended_json.exists() and attempt.owner_json.exists() and not stage.is_done():
                found.append(int(read_json(attempt.owner_json)["pid"]))
    return found


def restart(pid_file: Path, *command: str) -> None:
    """Kill a daemon of the cluster by its pid file, and start it again."""
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    subprocess.run(command, check=True, timeout=60)


def daemons() -> Path:
    """The folder of the cluster's pid files; skips where its daemons are not ours to kill."""
    config = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=True)
    line = next(line for line in config.stdout.splitlines() if line.startswith("SlurmctldPidFile"))
    folder = Path(line.partition("=")[2].strip()).parent
    if os.getuid() != 0 or not (folder / "slurmd-n1.pid").exists():
        pytest.skip("needs a cluster of our own on this machine")
    return folder


def finish(study: Any, seconds: float) -> None:
    """Repeat the command until nothing is missing, as a user would."""
    deadline = time.monotonic() + seconds
    while True:
        study.wait(seconds)
        answer = study.submit()
        assert answer.returncode == 0, answer.stderr
        if "all stages are done" in answer.stdout:
            return
        assert time.monotonic() < deadline


@pytest.mark.timeout(1500)
def test_killed_requeued_and_cancelled_at_random(study: Any) -> None:
    variables = read_json(study.folder / "cluster.yaml")["environment"]
    study.profile(environment=variables | {"LIGHT_WORK_SECONDS": "2"}, retries={"node": 30})
    assert study.submit().returncode == 0
    chance = random.Random(0)
    for _ in range(12):
        time.sleep(chance.uniform(0.5, 2.5))
        jobs, supervisors = running(study), owners(study)
        act = chance.choice(["requeue", "scancel", "signal", "kill"])
        if act == "kill" and supervisors:
            try:
                os.kill(chance.choice(supervisors), signal.SIGKILL)
            except ProcessLookupError:
                continue
        elif jobs:
            job = chance.choice(jobs)
            if act == "requeue":
                study.slurm("scontrol", "requeue", job)
            else:
                study.slurm("scancel", *(["--signal=USR1", "--batch"] if act == "signal" else []), job)
    finish(study, 900)
    study.check_done_once()
    assert not study.jobs()


@pytest.mark.timeout(1500)
def test_daemons_that_die_and_come_back(study: Any) -> None:
    folder = daemons()
    variables = read_json(study.folder / "cluster.yaml")["environment"]
    study.profile(environment=variables | {"LIGHT_WORK_SECONDS": "2"})
    assert study.submit().returncode == 0
    time.sleep(3)
    restart(folder / "slurmd-n1.pid", "slurmd", "-N", "n1")
    time.sleep(2)
    restart(folder / "slurmctld.pid", "slurmctld")
    finish(study, 900)
    study.check_done_once()


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("moment", [2, 5])
def test_the_submitting_process_is_killed_between_two_calls(study: Any, moment: int) -> None:
    place = study.folder / "bin"
    place.mkdir()
    (place / "sbatch").write_text(
        f'#!/bin/bash\necho >> {study.folder}/calls\n{shutil.which("sbatch")} "$@"\ncode=$?\n'
        f'[ "$(wc -l < {study.folder}/calls)" = {moment} ] && kill -KILL $PPID\nexit $code\n'
    )
    (place / "sbatch").chmod(0o755)
    assert study.submit(PATH=f"{place}:{os.environ['PATH']}").returncode == -signal.SIGKILL
    finish(study, 900)
    study.check_done_once()


@pytest.mark.timeout(1500)
def test_an_accounting_that_fails_fails_no_stage(study: Any) -> None:
    place = study.folder / "bin"
    place.mkdir()
    (place / "sacct").write_text("#!/bin/bash\necho 'sacct: error: Slurm accounting storage is disabled' >&2\nexit 1\n")
    (place / "sacct").chmod(0o755)
    path = f"{place}:{os.environ['PATH']}"
    assert study.submit(PATH=path).returncode == 0
    while study.jobs():
        answer = study.ablate("status", "small", PATH=path)
        assert answer.returncode == 0 and "failed" not in answer.stdout
        time.sleep(2)
    finish(study, 900)
    study.check_done_once()


@pytest.mark.tmpfs
@pytest.mark.timeout(1500)
def test_a_scratch_that_is_full_for_a_while(study: Any) -> None:
    disk = study.folder / "store"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        (study.folder / "hold").touch()
        assert study.submit().returncode == 0
        deadline = time.monotonic() + 300
        while not list(study.folder.glob("running-dataset-*")):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        with (disk / "filling").open("wb", buffering=0) as handle, pytest.raises(OSError, match="No space left"):
            while True:
                handle.write(b"x" * 4096)
        assert study.ablate("status", "small").returncode == 0, "to look needs no room"
        refused = study.submit()
        assert refused.returncode == 2 and "takes no more: No space left on device; nothing is queued" in refused.stderr
        (study.folder / "hold").unlink()
        study.wait(600)
        assert not all(stage.is_done() for stage in study.stages())
        (disk / "filling").unlink()
        finish(study, 900)
        study.check_done_once()
        assert not study.jobs()
    finally:
        if left := study.jobs():
            study.slurm("scancel", *left)
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def noted(study: Any) -> list[str]:
    """What happened to all elements."""
    files = (study.store.slurm).glob("*/*/*.jsonl")
    return [json.loads(line).get("what", "") for path in files for line in path.read_text().splitlines()]


def wait_for_note(study: Any, what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while what not in noted(study):
        assert time.monotonic() < deadline, (what, noted(study), study.slurm("squeue"))
        time.sleep(1)


@pytest.mark.timeout(1500)
def test_a_time_limit_requeues_what_it_stops_with_a_longer_one(study: Any) -> None:
    (study.folder / "hold").touch()
    needs = {"default": {"cpus": 1, "memory": "200M", "time": 10}, "dataset": {"time": 2}}
    study.profile(needs=needs, signal=60, retries={"time_factor": 2})
    assert study.submit().returncode == 0
    wait_for_note(study, "timeout", 600)
    deadline = time.monotonic() + 60
    while "dataset 4:00" not in study.slurm("squeue", "-h", "-r", "-o", "%.7j %l"):
        assert time.monotonic() < deadline, study.slurm("squeue")
        time.sleep(1)
    (study.folder / "hold").unlink()
    study.wait(900)
    study.check_done_once()


@pytest.mark.timeout(1500)
def test_a_preemption_requeues_what_it_stops(study: Any) -> None:
    daemons()
    if {"low", "main"} - set(study.slurm("sinfo", "-h", "-o", "%R").split()):
        pytest.skip("needs a partition low that main preempts")
    (study.folder / "hold").touch()
    study.profile(partitions=["low"], exclude=["n1", "n3", "n4"])
    assert study.submit().returncode == 0
    deadline = time.monotonic() + 300
    while not list(study.folder.glob("running-dataset-*")):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    whole = ["--partition=main", "--nodelist=n2", "--exclusive", "--time=2", "--output=/dev/null", "--wrap=sleep 5"]
    job = study.slurm("sbatch", "--parsable", *whole).strip()
    try:
        wait_for_note(study, "preemption", 300)
    finally:
        study.slurm("scancel", job)
    (study.folder / "hold").unlink()
    study.wait(900)
    study.check_done_once()
