"""Light studies on a real cluster: to the end, in order, again, cancelled, refused."""

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.context import write_json
from ablate.execution.slurm.jobs import accounted
from ablate.execution.slurm.ledger import ArrayRecord

pytestmark = pytest.mark.slurm


def test_a_study_runs_to_the_end_in_order_and_a_second_call_has_nothing_to_do(study: Any) -> None:
    answer = study.submit()
    assert (answer.returncode, answer.stderr) == (0, "")
    assert study.ablate("status", "small", "--exit-code").returncode in (0, 3)
    study.wait(300)
    study.check_done_once()
    states = study.ablate("status", "small", "--json", "--exit-code")
    assert states.returncode == 0
    assert {line["status"] for line in json.loads(states.stdout)["small"]} == {"done"}
    assert "all stages are done" in study.submit().stdout


@pytest.mark.slow
def test_a_failed_stage_stops_what_needs_it_and_a_retry_finishes(study: Any) -> None:
    environment = json.loads((study.folder / "cluster.yaml").read_text())["environment"]
    study.profile(environment=environment | {"LIGHT_WORK_FAILS": "train"})
    assert study.submit().returncode == 0
    study.wait(300)
    answer = study.ablate("status", "small", "--json", "--exit-code")
    lines = {line["id"]: line for line in json.loads(answer.stdout)["small"]}
    assert answer.returncode == 1
    states = {kind: {line["status"] for line in lines.values() if line["kind"] == kind} for kind in ("train", "sft")}
    assert states == {"train": {"failed"}, "sft": {"done"}}
    failed = {stage for stage, line in lines.items() if line["kind"] == "train"}
    inputs = {stage.id: {ref["stage"] for ref in stage.read_stage()["inputs"].values()} for stage in study.stages()}
    hanging = {stage for stage, needed in inputs.items() if needed & failed}
    assert hanging and {lines[stage]["status"] for stage in hanging} == {"blocked"}
    told = study.ablate("why", min(failed)).stdout
    assert "failed: there are no rows" in told and "the last line of the log" in told
    study.profile(environment=environment)
    assert study.ablate("retry", "small", "--on", "cluster.yaml").returncode == 0
    study.wait(300)
    assert {line["status"] for line in json.loads(study.ablate("status", "small", "--json").stdout)["small"]} == {
        "done"
    }


@pytest.mark.slow
def test_stages_of_the_login_node_between_two_of_jobs(study: Any) -> None:
    needs = {"default": {"cpus": 1, "memory": "200M", "time": 10}, "generate": {"runs_on": "login"}}
    study.profile(needs=needs)
    answer = study.submit()
    assert answer.returncode == 0 and "are for this machine, and " in answer.stdout, answer.stderr
    study.wait(300)
    answer = study.submit()
    assert answer.returncode == 0 and "job arrays" in answer.stdout, answer.stderr
    study.wait(300)
    study.check_done_once()
    assert "all stages are done" in study.submit().stdout


@pytest.mark.slow
def test_hold_release_and_cancel(study: Any) -> None:
    (study.folder / "hold").touch()
    assert study.submit().returncode == 0
    held = study.ablate("hold", "small")
    assert held.returncode == 0 and "jobs held" in held.stdout, held.stderr
    assert "held: `ablate release`" in study.ablate("status", "small", "--state", "queued").stdout
    assert study.ablate("release", "small").returncode == 0
    assert "held" not in study.ablate("status", "small", "--state", "queued").stdout
    answer = study.ablate("cancel", "small", "--yes")
    assert answer.returncode == 0 and " cancelled" in answer.stdout
    study.wait(60)
    assert "nothing of it is queued" in study.ablate("cancel", "small", "--yes").stdout
    (study.folder / "hold").unlink()
    assert study.submit().returncode == 0
    study.wait(300)
    study.check_done_once()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partitions": ["nowhere"]}, "cluster.yaml:1: partitions: SLURM refuses"),
        ({"gpu": {"per_node": 64}, "needs": {"train": {"gpus": 64}}}, "SLURM refuses train"),
        ({"needs": {"default": {"memory": "9T"}}}, "needs.default: SLURM refuses"),
    ],
)
def test_what_slurm_refuses_leaves_nothing_queued(study: Any, changes: dict[str, object], words: str) -> None:
    study.profile(**changes)
    answer = study.submit()
    assert answer.returncode == 2 and words in answer.stderr and "nothing is queued" in answer.stderr
    study.wait(30)


@pytest.mark.slow
def test_doctor_agrees_with_the_cluster_or_says_what_to_change(study: Any) -> None:
    answer = study.ablate("doctor", "--on", "cluster.yaml")
    assert answer.returncode == 0, answer.stdout
    assert "is seen from a node" in answer.stdout and "with ablate on" in answer.stdout
    study.profile(partitions=["mian"], limits={"array": 99999})
    answer = study.ablate("doctor", "--on", "cluster.yaml")
    assert answer.returncode == 1
    assert "the cluster has no 'mian'; it has" in answer.stdout and "limits.array: 99999 is too much" in answer.stdout


@pytest.mark.slow
def test_the_queue_is_asked_once(study: Any) -> None:
    """Status of a study whose jobs are held: one squeue call, and the words for the reasons."""
    (study.folder / "hold").touch()
    study.submit()
    text = study.ablate("status", "small", "--state", "queued").stdout
    assert "waits for other jobs (Dependency)" in text
    study.slurm("scancel", *study.jobs())


@pytest.mark.slow
def test_the_accounting_tells_many_elements_that_never_started_apart(study: Any) -> None:
    """SLURM writes steps (1-199:2), and cuts a long list of indices off unless it is asked not to."""
    for indices in (range(1, 200, 2), sorted(random.Random(1).sample(range(900), 120))):
        spelled = ",".join(map(str, indices))
        options = ["--hold", "--mem=10M", f"--array={spelled}", "--output=/dev/null", "--job-name=ablate-indices"]
        job = study.slurm("sbatch", "--parsable", *options, "--wrap=true").strip()
        study.slurm("scancel", job)
        record = ArrayRecord(study.folder / job)
        record.folder.mkdir()
        write_json(record.array_json, {"time": time.time()})
        record.write_job(job)
        deadline = time.monotonic() + 60
        while len(found := accounted([record])) < len(indices):
            assert time.monotonic() < deadline, found
            time.sleep(1)
        assert {index for _, index in found} == set(indices) and {job.state for job in found.values()} == {"CANCELLED"}


@pytest.mark.slow
@pytest.mark.tmpfs
def test_a_store_that_nodes_do_not_see_is_told(study: Any) -> None:
    """The store is mounted for the commands here alone, as a disk of the login node is."""
    (study.folder / "store").mkdir()
    with subprocess.Popen(["unshare", "--mount", "sleep", "300"]) as namespace:
        try:
            inside = ["nsenter", "--mount", f"--target={namespace.pid}"]
            study.before = [*inside, "sh", "-c", 'cd "$0" && exec "$@"', str(study.folder)]
            mount = ["mount", "-t", "tmpfs", "-o", "size=64M", "tmpfs", str(study.folder / "store")]
            until(lambda: Path(f"/proc/{namespace.pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink())
            subprocess.run([*inside, *mount], check=True)
            assert study.submit().returncode == 0
            until(lambda: study.ablate("status", "small", "--exit-code").returncode == 1)
            lines = json.loads(study.ablate("status", "small", "--json").stdout)["small"]
        finally:
            study.ablate("cancel", "small", "--yes")
            namespace.kill()
    first = [line["note"] for line in lines if line["kind"] == "pocket"]
    assert first and all(re.match(r"n\d could not write .*/\d+.out: does it see the store?", note) for note in first)
    assert {line["status"] for line in lines if line["kind"] != "pocket"} == {"blocked"}


@pytest.mark.slow
def test_a_python_that_nodes_do_not_have_ends_the_study_and_is_told(study: Any) -> None:
    study.profile(python="/nowhere/python")
    assert study.submit().returncode == 0
    until(lambda: study.ablate("status", "small", "--exit-code").returncode == 1)
    lines = json.loads(study.ablate("status", "small", "--json").stdout)["small"]
    first = [line["note"] for line in lines if line["kind"] == "pocket"]
    words = r"its script ended before the stage began: .*/nowhere/python: No such file or directory"
    assert first and all(re.match(words, note) for note in first)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.5)
