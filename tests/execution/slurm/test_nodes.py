"""A stage on several nodes: who meets where, and the same training as in one process."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.context import Resources
from ablate.errors import StageError
from ablate.execution.nodes import command, this_node
from ablate.execution.ranks import Node, Rank
from ablate.store import AttemptFolder, Store

SPEC = """\
name: tiny
policy: pocket-small
pretrain: {steps: 10}
data: {max_examples: 80}
sft: {dataset: pocket-instructions, max_examples: 64, learning_rate: 1e-3, epochs: 1, batch_size: 16, max_length: 128}
dpo: {learning_rate: 1.0e-3, epochs: 1, batch_size: 16, max_length: 128}
grid: [{dataset: pocket-hh, algorithm: dpo}]
evaluate: {policy: [pocket-gold]}
"""
PATIENCE = 900
TASK = {"SLURM_NODEID": "1", "SLURM_NNODES": "2", "SLURM_JOB_ID": "321", "SLURM_STEP_ID": "4"}
TASK |= {"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}


def test_slurm_says_who_a_node_is_and_where_all_meet(tmp_path: Path) -> None:
    node = this_node(TASK)
    assert node == Node(number=1, count=2, address="10.0.0.7", port=15325)
    rank = Rank(local=2, here=4, node=node, rendezvous="tcp://10.0.0.7:15325", scratch=tmp_path)
    assert (rank.number, rank.world) == (6, 8)
    told = rank.variables()
    assert (told["RANK"], told["LOCAL_RANK"], told["WORLD_SIZE"], told["LOCAL_WORLD_SIZE"]) == ("6", "2", "8", "4")
    assert (told["MASTER_ADDR"], told["MASTER_PORT"]) == ("10.0.0.7", "15325")
    assert "GLOO_SOCKET_IFNAME" not in told, "a network between nodes is not the loopback"
    with pytest.raises(StageError, match="SLURM_LAUNCH_NODE_IPADDR is not set\n  a stage on several nodes is started"):
        this_node({name: value for name, value in TASK.items() if "IPADDR" not in name})


def test_srun_starts_a_task_on_each_node_of_a_job_that_has_them(tmp_path: Path) -> None:
    attempt, resources = AttemptFolder(tmp_path / "attempts" / "3"), Resources(2, (0, 1), nodes=2, processes=2)
    words = command(tmp_path, attempt, resources, {"SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "4"})
    assert words[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"] and "--cpus-per-task=4" in words
    assert words[-3:-1] == [str(tmp_path), "3"] and Resources.from_json(json.loads(words[-1])) == resources
    with pytest.raises(StageError, match="trains on 2 nodes, and the job has 0\n  hand it to SLURM"):
        command(tmp_path, attempt, resources, {})


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("sharding", ["ddp", pytest.param("zero2", marks=pytest.mark.deepspeed)])
def test_two_nodes_of_two_processes_train_as_one_process_does(
    tmp_path: Path, really: Callable[..., str], sharding: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    needs = {"default": {"cpus": 1, "memory": "800M", "time": 60}}
    needs["train"] = {"nodes": 2, "processes": 2, "cpus": 2, "memory": "2000M", "sharding": sharding}
    (tmp_path / "cluster.yaml").write_text(
        json.dumps({"limits": {"time": 60}, "environment": {"GLOO_SOCKET_IFNAME": "lo"}, "needs": needs})
    )
    really("run", "tiny.yaml", "--store", "here", "--jobs", "1", "--threads", "1")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    [trained] = [stage for stage in Store(tmp_path / "here").stages.iterdir() if stage.name.startswith("train-")]
    there = tmp_path / "there" / "stages" / trained.name
    for part in ("output", "attempts"):
        shutil.rmtree(there / part)
    (there / "done.json").unlink()
    really("run", "tiny.yaml", "--on", "cluster.yaml", "--store", "there")
    deadline = time.monotonic() + 900
    while not (there / "done.json").exists():
        lines = json.loads(really("status", "tiny", "--json", "--store", "there"))["tiny"]
        own = next(line for line in lines if line["id"] == trained.name)
        logs = "".join(path.read_text()[-3000:] for path in there.glob("attempts/*/log"))
        assert own["status"] not in ("failed", "blocked", "interrupted"), f"{own}\n{logs}"
        assert time.monotonic() < deadline, f"{own}\n{logs}"
        time.sleep(2)
    done = json.loads((there / "done.json").read_text())
    assert (done["nodes"], done["processes"]) == (2, 2)
    here, found = (
        [json.loads(line) for line in (folder / "output" / "history.jsonl").read_text().splitlines()]
        for folder in (trained, there)
    )
    assert len(here) == len(found) > 1
    for expected, record in zip(here, found, strict=True):
        assert record["loss"] == pytest.approx(expected["loss"], abs=1e-4)
        assert record["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    assert not list(there.glob("attempts/*/ranks"))
