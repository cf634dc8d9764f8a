"""Several processes that train one model: forked on each node, told who they are, ended together.

Rank 0 has the stage's own folders. The others share its checkpoints, and what they log and put out is thrown away, so
that the work of a stage needs to know of ranks only where they exchange something.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from ablate.context import EventLog, StageContext, import_function, write_json
from ablate.execution.children import forked
from ablate.store import AttemptFolder

JOIN = "ablate.training.distributed:join"
LEAVE = "ablate.training.distributed:leave"


@dataclass(frozen=True)
class Node:
    """One of ``count`` machines whose processes train together; on several they meet at the first one's ``address``."""

    number: int = 0
    count: int = 1
    address: str | None = None
    port: int = 29500  # alone it is read and never opened


@dataclass(frozen=True)
class Rank:
    """Process ``local`` of the ``here`` on a node; all meet through ``rendezvous``; ``scratch`` is of the attempt."""

    local: int
    here: int
    node: Node
    rendezvous: str
    scratch: Path

    @property
    def number(self) -> int:
        """Its number among all processes; 0 writes for all."""
        return self.node.number * self.here + self.local

    @property
    def world(self) -> int:
        """The number of processes."""
        return self.node.count * self.here

    def run(self, work: Callable[[StageContext], Any], context: StageContext) -> Any:
        """Do this rank's part of a stage's work."""
        os.environ |= self.variables()
        import_function(JOIN, "the meeting of ranks")(self.rendezvous, self.number, self.world, self.local)
        summary = work(context if self.number == 0 else self._aside(context))
        import_function(LEAVE, "the meeting of ranks")()
        return summary

    def variables(self) -> dict[str, str]:
        """Return what accelerate and DeepSpeed read of the environment, as a launcher of theirs would set it."""
        numbers = {"RANK": self.number, "LOCAL_RANK": self.local, "WORLD_SIZE": self.world}
        numbers |= {"LOCAL_WORLD_SIZE": self.here, "MASTER_PORT": self.node.port}
        address = {"MASTER_ADDR": self.node.address or "127.0.0.1"}
        if self.node.address is None:
            address["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
        return {**{name: str(value) for name, value in numbers.items()}, **address}

    @property
    def folder(self) -> Path:
        """A folder of its own."""
        return self.scratch / f"rank-{self.number}"

    def _aside(self, context: StageContext) -> StageContext:
        self.folder.mkdir(parents=True)
        return replace(context, output=self.folder, events=EventLog(Path(os.devnull)))


ALONE = Node()


def launch(attempt: AttemptFolder, processes: int, run: Callable[[Rank], int], node: Node = ALONE) -> int:
    """Fork the processes of this node, call ``run`` in each and wait; the first that fails ends the others.

    Returns 0, or the exit code of the first that failed.
    """
    meeting = Path(tempfile.mkdtemp(prefix="ablate-ranks-"))
    rendezvous = f"tcp://{node.address}:{node.port}" if node.address else f"file://{meeting / 'rendezvous'}"
    ranks = [Rank(local, processes, node, rendezvous, attempt.folder / "ranks") for local in range(processes)]
    children = {forked(functools.partial(run, rank)): rank.number for rank in ranks}
    first = [pid for pid, number in children.items() if number == 0]

    def ask(number: int, frame: FrameType | None) -> None:
        for pid in first:  # it decides on checkpoints for all
            os.kill(pid, number)

    signal.signal(signal.SIGUSR1, ask)
    code = 0
    try:
        while children and not code:
            pid, status = os.waitpid(-1, 0)
            number = children.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if code < 0 and code != -signal.SIGUSR1:  # with that it was asked to stop
                cause = f"rank {number} of {ranks[0].world} was killed by signal {-code}"
                hint = " (out of memory?)" if code == -signal.SIGKILL else ""
                write_json(attempt.failure_json, {"type": "Killed", "message": cause + hint})
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for rank in ranks:
            shutil.rmtree(rank.folder, ignore_errors=True)
        with suppress(OSError):  # other nodes are still there
            ranks[0].scratch.rmdir()
        shutil.rmtree(meeting, ignore_errors=True)
    return abs(code)
