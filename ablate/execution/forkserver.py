"""A process that imports once and forks a worker per stage: a cold import of the training stack costs 10 s a stage.

It only imports: after a parallel torch operation in a parent, a forked child would hang in its first. Requests and
replies are JSON lines on its standard input and output:

    {"run": "<stage folder>", "resources": {…}}   ->   {"stage": …, "status": …, "message": …, "seconds": …}
    {"stop": "<stage id>", "at_checkpoint": …}    ->   the running stage answers "interrupted"

When its input closes (the scheduler is gone) it stops its workers and ends.
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import signal
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablate.context import Resources
from ablate.execution.runner import Outcome, run_stage

READY = {"ready": True}


@dataclass
class _Worker:
    stage: str
    pid: int
    pipe: int
    text: bytes = b""
    stopped: bool = False


class ForkServer:
    """Serves run and stop requests until its input closes."""

    def __init__(self, requests: int, replies: int) -> None:
        self.requests, self.replies = requests, replies
        self.selector = selectors.DefaultSelector()
        self.workers: dict[int, _Worker] = {}
        self.buffer = b""

    def serve(self) -> None:
        """Answer requests; returns when the input has closed and the last worker has ended."""
        self.selector.register(self.requests, selectors.EVENT_READ)
        self._reply(READY)
        listening = True
        while listening or self.workers:
            for key, _ in self.selector.select():
                if key.fd == self.requests:
                    listening = self._receive()
                else:
                    self._collect(self.workers[key.fd])

    def _receive(self) -> bool:
        chunk = os.read(self.requests, 65536)
        if not chunk:
            self.selector.unregister(self.requests)
            for worker in self.workers.values():
                self._stop(worker)
            return False
        *lines, self.buffer = (self.buffer + chunk).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))
        return True

    def _handle(self, request: dict[str, Any]) -> None:
        if "stop" in request:
            for worker in self.workers.values():
                if worker.stage == request["stop"]:
                    self._stop(worker, signal.SIGUSR1 if request["at_checkpoint"] else signal.SIGTERM)
            return
        folder = Path(request["run"])
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._work(folder, Resources.from_json(request["resources"]), writing)
        os.close(writing)
        self.workers[reading] = _Worker(folder.name, pid, reading)
        self.selector.register(reading, selectors.EVENT_READ)

    def _stop(self, worker: _Worker, number: int = signal.SIGTERM) -> None:
        worker.stopped = True
        os.kill(worker.pid, number)

    def _work(self, folder: Path, resources: Resources, pipe: int) -> None:
        """Run one stage in the forked process; never returns."""
        try:
            self.selector.close()
            for worker in self.workers.values():
                os.close(worker.pipe)
            os.close(self.requests)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            outcome = run_stage(folder, resources)
            os.write(pipe, json.dumps(asdict(outcome)).encode())
        except BaseException as error:
            text = f"the supervisor broke: {type(error).__name__}: {error}"
            os.write(pipe, json.dumps(asdict(Outcome(folder.name, "failed", text))).encode())
            raise
        finally:
            os._exit(0)

    def _collect(self, worker: _Worker) -> None:
        chunk = os.read(worker.pipe, 65536)
        if chunk:
            worker.text += chunk
            return
        self.selector.unregister(worker.pipe)
        os.close(worker.pipe)
        os.waitpid(worker.pid, 0)
        del self.workers[worker.pipe]
        if worker.text:
            self._reply(json.loads(worker.text))
        elif worker.stopped:  # before it could install its handler
            self._reply(asdict(Outcome(worker.stage, "interrupted", "stopped on request")))
        else:
            self._reply(asdict(Outcome(worker.stage, "failed", "the supervising process was killed")))

    def _reply(self, message: dict[str, Any]) -> None:
        os.write(self.replies, json.dumps(message).encode() + b"\n")


def main() -> None:
    """Import the modules named on the command line, then serve."""
    replies = os.dup(1)
    os.dup2(2, 1)  # what imports print must not be taken for replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A batch system that cancels a job signals all its processes: the scheduler decides, and closes this one's input.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for module in sys.argv[1:]:
        try:
            importlib.import_module(module)
        except (ImportError, SyntaxError):
            traceback.print_exc()  # the stages whose work it is will fail with this reason, no others
    ForkServer(0, replies).serve()


if __name__ == "__main__":
    main()
