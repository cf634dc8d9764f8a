"""A stage on several nodes of a cluster: one ``srun`` starts a task on each, which forks that node's processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ablate.context import Resources
from ablate.errors import StageError
from ablate.execution.ranks import Node
from ablate.store import AttemptFolder

FIRST_PORT, PORTS = 15_000, 16_000
"""Where processes meet: below the ports that a system gives away by itself."""
WAIT_SECONDS = 60
"""How long the other nodes may go on when one has ended; they are killed after that."""


def this_node(environment: Mapping[str, str]) -> Node:
    """Return who this node is from what ``srun`` tells its tasks; raises StageError where it tells nothing."""
    try:
        number, count = int(environment["SLURM_NODEID"]), int(environment["SLURM_NNODES"])
        job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
        address = environment["SLURM_LAUNCH_NODE_IPADDR"]  # srun is called on the first node of a job
    except KeyError as error:
        raise StageError(f"{error.args[0]} is not set", hint="a stage on several nodes is started by srun") from error
    return Node(number, count, address, FIRST_PORT + (job + step) % PORTS)


def command(stage: Path, attempt: AttemptFolder, resources: Resources, environment: Mapping[str, str]) -> list[str]:
    """Return the words that start a task on each node of this job; raises StageError outside of one that has them."""
    found = environment.get("SLURM_NNODES", "0")
    if int(found) != resources.nodes:
        raise StageError(
            f"this stage trains on {resources.nodes} nodes, and the job has {found}",
            hint="hand it to SLURM: ablate run SPEC --on slurm/PROFILE.yaml",
        )
    options = {
        "nodes": resources.nodes,
        "ntasks": resources.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": environment.get("SLURM_CPUS_PER_TASK", "1"),  # which srun does not take from sbatch
        "input": "none",
        "kill-on-bad-exit": 0,  # all are told by one another; SLURM's kill would hide their exit codes
        "wait": WAIT_SECONDS,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    work = [str(stage), str(attempt.number), json.dumps(asdict(resources))]
    return ["srun", *words, sys.executable, "-P", "-m", "ablate.execution.node", *work]


def launch(stage: Path, attempt: AttemptFolder, resources: Resources) -> int:
    """Start a task on each node and wait; returns 0, or the highest exit code of a task."""
    words = command(stage, attempt, resources, os.environ)
    try:
        tasks = subprocess.Popen(words, env=os.environ | {"SLURM_UNBUFFEREDIO": "1"})
    except FileNotFoundError as error:
        raise StageError("srun is not found on this node", hint="a container must hold SLURM's commands") from error

    def hand_on(number: int, frame: Any) -> None:
        tasks.send_signal(number)  # srun hands it on to its tasks

    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, hand_on)
    return abs(tasks.wait())
