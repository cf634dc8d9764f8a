"""``run_stage``: the only way a stage runs. A light supervisor holds lease, log and signals; its child computes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ablate.context import EventLog, Resources, read_json, sync_tree, write_json
from ablate.errors import LeaseLost
from ablate.execution import compute, lease
from ablate.execution.environment import code_digest, describe_environment
from ablate.store import AttemptFolder, StageFolder, Store, bytes_below

Status = Literal["done", "failed", "busy", "blocked", "interrupted", "lost"]
EXIT_CODES: dict[Status, int] = {"done": 0, "failed": 1, "blocked": 3, "busy": 4, "interrupted": 130, "lost": 5}
"""What a process of its own that runs a stage ends with."""

GRACE_SECONDS = 10.0
"""Between asking the computing process to end and killing it."""
CHECKPOINT_SECONDS = 60.0
"""Between asking it for a last checkpoint (SIGUSR1) and asking it to end."""


@dataclass(frozen=True)
class Outcome:
    """How one call of run_stage ended."""

    stage: str
    status: Status
    message: str = ""
    seconds: float = 0.0


def run_stage(folder: Path, resources: Resources) -> Outcome:
    """Run the stage whose folder this is, unless it is done, runs elsewhere, or waits for its inputs."""
    folder = Path(folder).absolute()
    stage, store = StageFolder(folder), Store(folder.parents[1])
    if stage.is_done():
        return Outcome(stage.id, "done")
    missing = [ref["stage"] for ref in stage.read_stage()["inputs"].values() if not store.stage(ref["stage"]).is_done()]
    if missing:
        return Outcome(stage.id, "blocked", f"waits for {', '.join(sorted(set(missing)))}")
    attempt = lease.claim(stage)
    if attempt is None:
        return Outcome(stage.id, "done" if stage.is_done() else "busy")
    outcome = _Supervisor(store, stage, attempt, resources).run()
    if outcome.status == "failed" and stage.is_done():
        return Outcome(stage.id, "done", "published by another attempt", outcome.seconds)
    return outcome


class _Supervisor:
    """Holds the lease of one attempt while a child computes, then publishes what it made."""

    def __init__(self, store: Store, stage: StageFolder, attempt: AttemptFolder, resources: Resources) -> None:
        self.store, self.stage, self.attempt, self.resources = store, stage, attempt, resources
        self.stop_requested = self.checkpoint_requested = self.made_room = False

    def run(self) -> Outcome:
        started = time.time()
        try:
            if self._recover():
                return self._ended("done", "finished an interrupted publication", started)
            self.attempt.output.mkdir()
            self.attempt.work.mkdir()
            write_json(self.attempt.environment_json, describe_environment(self.resources.threads, self.resources.gpus))
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            code = self._supervise()
            while code and not self._is_stopping and self._make_room(code):
                code = self._supervise()
            if self.stop_requested or (self._is_stopping and code):
                return self._ended("interrupted", "stopped on request", started)
            if code != 0:
                return self._failed(code, started)
            self._publish(started, usage)
            return self._ended("done", "", started)
        except LeaseLost as error:
            return Outcome(self.stage.id, "lost", str(error), time.time() - started)
        except OSError as error:
            return self._broken(error, started)

    @property
    def _is_stopping(self) -> bool:
        return self.stop_requested or self.checkpoint_requested

    def _supervise(self) -> int:
        """Wait for the computing process; returns its exit code, negative for a signal."""
        child = compute.start(self.store, self.stage, self.attempt, self.resources)
        checkpoint: float | None = None
        deadline: float | None = None
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        previous = {number: signal.signal(number, self._request_stop) for number in numbers}
        try:
            next_beat, pause = time.monotonic() + lease.HEARTBEAT_SECONDS, 0.002
            while True:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
                now = time.monotonic()
                if self.checkpoint_requested and checkpoint is None:
                    checkpoint = now + CHECKPOINT_SECONDS
                    os.kill(child, signal.SIGUSR1)
                elif checkpoint is not None and now > checkpoint:
                    self.stop_requested = True
                if self.stop_requested and deadline is None:
                    deadline = now + GRACE_SECONDS
                    os.kill(child, signal.SIGTERM)
                elif deadline is not None and now > deadline:
                    os.kill(child, signal.SIGKILL)
                if now > next_beat:
                    lease.beat(self.attempt)
                    next_beat = now + lease.HEARTBEAT_SECONDS
                time.sleep(pause)
                pause = min(pause * 1.2, 0.05)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _make_room(self, code: int) -> bool:
        """Halve the examples of a pass where the last had no room in memory; the stage goes on from its checkpoint.

        A batch stays what it is, also for losses that couple its examples: it is cut into more passes. A process that
        the kernel killed, which may have been for memory, is tried again once.
        """
        failure = self.attempt.read_failure() or {}
        size = failure.get("micro_batch", 1)
        if code == -signal.SIGKILL and not self.made_room:
            size = _last_micro_batch(self.attempt.events)
            self.made_room = True
        if size < 2:
            return False
        self.resources = replace(self.resources, micro_batch=size // 2)
        EventLog(self.attempt.events).log(message=f"out of memory with {size} examples in a pass; now {size // 2}")
        self.attempt.failure_json.unlink(missing_ok=True)
        self.attempt.output.mkdir(exist_ok=True)
        return True

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.checkpoint_requested = True
        else:
            self.stop_requested = True

    def _publish(self, started: float, before: resource.struct_rusage) -> None:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = {
            "stage": self.stage.id,
            "attempt": self.attempt.number,
            "started": started,
            "ended": time.time(),
            "seconds": round(time.time() - started, 3),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime, 3),
            "host": os.uname().nodename,
            "threads": self.resources.threads,
            "gpus": list(self.resources.gpus),
            "nodes": self.resources.nodes,
            "processes": self.resources.processes,
            "code": code_digest(),
            "summary": read_json(self.attempt.folder / "summary.json"),
        }
        publish(self.stage, self.attempt, done)

    def _recover(self) -> bool:
        """Write the marker an earlier attempt could not; an output is complete because it is renamed as a whole."""
        if not self.stage.output.is_dir():
            return False
        _mark(self.stage, self.attempt, read_json(self.stage.output / "record.json"))
        return True

    def _failed(self, code: int, started: float) -> Outcome:
        failure = self.attempt.read_failure()
        if failure is None:
            cause = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            hint = " (out of memory?)" if code == -signal.SIGKILL else ""
            failure = {"type": "Killed", "message": f"the computing process was {cause}{hint}"}
            write_json(self.attempt.failure_json, failure)
        return self._ended("failed", failure["message"], started)

    def _broken(self, error: OSError, started: float) -> Outcome:
        """The file system refused a write: say so, leave no half-made output behind."""
        message = f"{error.strerror or error}: {error.filename or self.stage.folder}"
        shutil.rmtree(self.attempt.output, ignore_errors=True)  # makes room for the reason
        try:
            write_json(self.attempt.failure_json, {"type": "OSError", "message": message})
            return self._ended("failed", message, started)
        except OSError:
            return Outcome(self.stage.id, "failed", message, time.time() - started)

    def _ended(self, status: Status, message: str, started: float) -> Outcome:
        shutil.rmtree(self.attempt.output, ignore_errors=True)  # nothing is left of it once published
        lease.end(self.attempt, status)
        return Outcome(self.stage.id, status, message, time.time() - started)


def publish(stage: StageFolder, attempt: AttemptFolder, done: dict[str, Any]) -> None:
    """Make an attempt's output the stage's own, and mark the stage as done; raises LeaseLost where it is another's."""
    done = {**done, "bytes": bytes_below(attempt.output)}
    # The record travels inside the output, so that whoever finds an output without a marker can write the marker.
    write_json(attempt.output / "record.json", done)
    sync_tree(attempt.output)
    lease.require_lease(stage, attempt)
    os.rename(attempt.output, stage.output)
    _mark(stage, attempt, done)


def _mark(stage: StageFolder, attempt: AttemptFolder, done: dict[str, Any]) -> None:
    write_json(stage.done_json, done)
    # a newer attempt, taken over while this one stalled, still uses its own
    for earlier in (item for item in stage.attempts() if item.number <= attempt.number):
        shutil.rmtree(earlier.work, ignore_errors=True)
        shutil.rmtree(earlier.output, ignore_errors=True)


def _last_micro_batch(events: Path) -> int:
    """Return the examples of a pass that the work last said it uses; 1 where it never did."""
    size = 1
    for line in events.read_text(encoding="utf-8").splitlines() if events.exists() else ():
        with suppress(ValueError):
            size = json.loads(line).get("micro_batch") or size
    return size
