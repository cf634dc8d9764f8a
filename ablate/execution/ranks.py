"""Several processes that train one model: forked from the one that computes, told who they are, ended together.

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablate.context import EventLog, StageContext, import_function, write_json
from ablate.execution.children import forked
from ablate.store import AttemptFolder

JOIN = "ablate.training.distributed:join"
LEAVE = "ablate.training.distributed:leave"


@dataclass(frozen=True)
class Rank:
    """One of ``world`` processes, which meet through the file ``rendezvous``; ``scratch`` is a folder of its own."""

    number: int
    world: int
    rendezvous: Path
    scratch: Path

    def run(self, work: Callable[[StageContext], Any], context: StageContext) -> Any:
        """Do this rank's part of a stage's work."""
        os.environ |= self.variables()
        import_function(JOIN, "the meeting of ranks")(str(self.rendezvous), self.number, self.world)
        summary = work(context if self.number == 0 else self._aside(context))
        import_function(LEAVE, "the meeting of ranks")()
        return summary

    def variables(self) -> dict[str, str]:
        """Return what accelerate and DeepSpeed read of the environment, as a launcher of theirs would set it."""
        numbers = {"RANK": self.number, "LOCAL_RANK": self.number, "WORLD_SIZE": self.world}
        numbers |= {"LOCAL_WORLD_SIZE": self.world, "MASTER_PORT": 29500}  # the port is read and never opened
        address = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")}
        return {**{name: str(value) for name, value in numbers.items()}, **address}

    def _aside(self, context: StageContext) -> StageContext:
        output = self.scratch / f"rank-{self.number}"
        output.mkdir(parents=True)
        return replace(context, output=output, events=EventLog(Path(os.devnull)))


def launch(attempt: AttemptFolder, world: int, run: Callable[[Rank], int]) -> int:
    """Fork ``world`` processes, call ``run`` in each and wait; the first that fails ends the others.

    Returns 0, or the exit code of the first that failed.
    """
    scratch = attempt.folder / "ranks"
    meeting = Path(tempfile.mkdtemp(prefix="ablate-ranks-"))
    ranks = [Rank(number, world, meeting / "rendezvous", scratch) for number in range(world)]
    children = {forked(functools.partial(run, rank)): rank.number for rank in ranks}
    first = next(iter(children))
    signal.signal(signal.SIGUSR1, lambda number, frame: os.kill(first, number))  # it decides on checkpoints for all
    code = 0
    try:
        while children and not code:
            pid, status = os.waitpid(-1, 0)
            number = children.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if code < 0 and code != -signal.SIGUSR1:  # with that it was asked to stop
                cause = f"rank {number} of {world} was killed by signal {-code}"
                hint = " (out of memory?)" if code == -signal.SIGKILL else ""
                write_json(attempt.failure_json, {"type": "Killed", "message": cause + hint})
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(meeting, ignore_errors=True)
    return abs(code)
