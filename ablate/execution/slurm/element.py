"""``python -m ablate.execution.slurm.element FOLDER INDEX``: what one element of a job array does.

It runs the stages of its element, each in a process of its own, hands signals on to them, and ends with a code the
batch script understands: 0 done, 1 failed, 3 inputs missing, 4 runs elsewhere, 75 begin again, 130 stopped.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from ablate.context import Resources, import_function, read_json, write_json, write_text
from ablate.errors import AblateError, StopRequested
from ablate.execution.children import forked
from ablate.execution.runner import EXIT_CODES, Outcome, run_stage
from ablate.execution.slurm import jobs
from ablate.execution.slurm.ledger import ArrayRecord
from ablate.execution.slurm.services import ServiceError, running
from ablate.store import StageFolder

AGAIN = 75
BUSY_SECONDS, BUSY_PAUSE = 900.0, 5.0
"""How long an element waits for another process at its stage: longer than a dead one on another host seems alive."""
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
"""Those that it hands on: begin again later, and stop."""
EARLY_SECONDS = 60.0
"""SLURM may send the signal that much too early."""


WORKER = "worker"
"""What an element is called in its events and its output that has no stages but looks for work itself."""


class Element:
    """One element of a job array: its stages, or a worker, and what happened to it so far."""

    def __init__(self, record: ArrayRecord, index: int) -> None:
        self.record, self.index = record, index
        self.stages = record.elements[index]
        self.tasks = self.stages or (WORKER,)
        self.store = record.folder.parents[2]
        self.begun, self.minutes = time.monotonic(), float(record.facts["minutes"])
        self.children: dict[int, str] = {}
        self.served: dict[str | None, str] = {}
        self.asked = self.stopped = False

    def run(self) -> int:
        """Run the stages; returns the exit code."""
        if self.record.is_void:
            print("this job was withdrawn: its stages were handed to SLURM again", flush=True)
            return 0
        past = self._past()
        if past and past[-1]["what"] == "started":
            self._note("lost", node=past[-1]["node"])
            if self._is_spent("node"):
                return self._give_up("node")
        if reason := self._common_failure():
            print(f"not begun: the last {self.record.facts['alike']} elements failed alike: {reason}", flush=True)
            return EXIT_CODES["blocked"]
        self._note("started", node=os.environ.get("SLURMD_NODENAME", platform.node()))
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        if self.record.minutes(self.index).exists():  # whether it was granted, SLURM alone knows
            self.minutes = jobs.time_limit(f"{os.environ['SLURM_ARRAY_JOB_ID']}_{self.index}") or self.minutes
        reason = None
        try:
            with ExitStack() as servers:
                self.served = self._serve(servers)
                outcomes = self._run_all()
        except (ServiceError, StopRequested) as error:
            print(f"not begun: {error}", flush=True)
            is_stop = isinstance(error, StopRequested)
            outcomes = dict.fromkeys(self.tasks, "interrupted" if is_stop else "failed")
            reason = None if is_stop else error.message
        code = self._judge(outcomes)
        self._tell(outcomes, reason)
        ends = {stage: status for stage, status in outcomes.items() if status != "done"}
        self._note("ended", code=code, **({"reason": reason} if reason else {}), **ends)
        return code

    def _serve(self, servers: ExitStack) -> dict[str | None, str]:
        """Start what the stages ask, unless all are done; returns addresses by judge's model, null: for rollouts."""
        if self.stages and all(StageFolder(self.store / "stages" / stage).is_done() for stage in self.stages):
            return {}
        positions = range(len(self.stages) or self.record.pack)
        next_gpu = sum(len(self.record.resources(position).gpus) for position in positions)
        addresses: dict[str | None, str] = {}
        for name, service in self.record.services.items():
            gpus = range(next_gpu, next_gpu + service.gpus)
            next_gpu += service.gpus
            log = self.record.folder / f"{self.index}.{name}.log"
            model = service.model or self._policy()
            server = running(name, service, model, gpus, log, lambda: self.asked or self.stopped)
            addresses[service.model] = servers.enter_context(server)
            print(f"service {name}: {addresses[service.model]}", flush=True)
        return addresses

    def _policy(self) -> str:
        """Return the folder of the policy that the element's one stage trains."""
        policy = StageFolder(self.store / "stages" / self.stages[0]).read_stage()["inputs"]["policy"]
        return str(StageFolder(self.store / "stages" / policy["stage"]).artifact(policy["artifact"]))

    def _resources(self, position: int) -> Resources:
        judges = {model: address for model, address in self.served.items() if model is not None}
        own = self.record.resources(position)
        return replace(own, judges=judges, rollout_server=self.served.get(None))

    def _run_all(self) -> dict[str, str]:
        """Run the stages at the same time; returns how each ended, ``killed`` for one whose process was."""
        with _signals_later():
            if self.asked or self.stopped:
                raise StopRequested("it was to stop before its stages had begun")
            for position, task in enumerate(self.tasks):
                self.children[self._fork(position)] = task
        self._hand_on()  # what another thread of this process took while this one held signals back
        codes = {code: status for status, code in EXIT_CODES.items()}
        outcomes: dict[str, str] = {}
        while self.children:
            pid, status = os.waitpid(-1, 0)
            code = os.waitstatus_to_exitcode(status)
            if pid not in self.children:
                print("a service has ended before the stages that ask it", flush=True)
                continue
            ended = self.children.pop(pid)
            outcomes[ended] = codes.get(code, "killed")
            print(f"{ended}: {outcomes[ended]}", flush=True)
        return outcomes

    def _fork(self, position: int) -> int:
        def work() -> int:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            try:
                return self._run_one(position) if self.stages else self._run_worker()
            except BaseException:
                traceback.print_exc()
                raise

        return forked(work)

    def _run_one(self, position: int) -> int:
        stage = self.stages[position]
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            outcome: Outcome = run_stage(self.store / "stages" / stage, self._resources(position))
            if outcome.status != "busy" or time.monotonic() > deadline:
                break
            time.sleep(BUSY_PAUSE)
        if outcome.message:
            print(f"{stage}: {outcome.message}", flush=True)
        return EXIT_CODES[outcome.status]

    def _run_worker(self) -> int:
        """Call what the array says; returns one of the exit codes of a stage."""
        work = self.record.work
        assert work is not None
        function = import_function(work.entry, "what this worker does")
        resources = [self._resources(position) for position in range(self.record.pack)]
        try:
            code: int = function(self.record.folder, work.arguments, resources)
        except AblateError as error:
            print(f"error: {error}", flush=True)
            self._note("error", reason=error.message)
            return EXIT_CODES["failed"]
        return code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.asked = True
        else:
            self.stopped = True
        self._hand_on()

    def _hand_on(self) -> None:
        """Send the stages' processes what came; once more changes nothing."""
        for number, came in zip(SIGNALS, (self.asked, self.stopped), strict=True):
            for pid in tuple(self.children) if came else ():
                with suppress(ProcessLookupError):  # it has ended, and was not yet taken out
                    os.kill(pid, number)

    def _judge(self, outcomes: dict[str, str]) -> int:
        """Return the exit code; where an element is begun again, count it against what stopped it."""
        found = set(outcomes.values())
        if found == {"done"}:
            return 0
        if self.stopped and found & {"interrupted", "killed"}:  # killed: it had no time to say so
            return EXIT_CODES["interrupted"]
        cause = self._cause(found)
        if cause is not None:
            self._note(cause, **({"minutes": self.minutes} if cause == "timeout" else {}))
            if not self._is_spent(cause):
                if cause == "timeout":
                    self._ask_for_more_time()
                return AGAIN
            if cause != "failure":
                return self._give_up(cause)
        if "done" in found:  # packed: whoever needs one that is not done looks at its inputs
            return 0
        return next(
            EXIT_CODES[status] for status in ("failed", "lost", "blocked", "busy", "interrupted") if status in found
        )

    def _cause(self, found: set[str]) -> str | None:
        if self.asked and found & {"interrupted", "killed"}:
            limit, elapsed = 60.0 * self.minutes, time.monotonic() - self.begun
            # of a short limit the signal may come at any time, but hardly in its first quarter
            late = elapsed >= max(limit - self.record.facts["signal"] - EARLY_SECONDS, limit / 4)
            return "timeout" if late else "preemption"
        if found & {"killed", "lost", "interrupted"}:
            return "node"
        return "failure" if "failed" in found else None

    def _ask_for_more_time(self) -> None:
        """Leave a longer time limit for the batch script to set, where the profile has one."""
        minutes = more_time(self.minutes, self.record.facts["retries"]["time_factor"], self.record.facts["longest"])
        if minutes > self.minutes:
            write_text(self.record.minutes(self.index), f"{minutes}\n")

    def _is_spent(self, cause: str) -> bool:
        """Tell whether a cause has stopped this element more often than the profile lets it begin again."""
        budget = self.record.facts["retries"][cause] if self.record.facts["requeue"] else 0
        return self._count(cause) > budget

    def _give_up(self, cause: str) -> int:
        what = "gone without a word" if cause == "node" else f"stopped by {cause}"
        what, key = f"{what} {self._count(cause)} times", f"retries.{cause}"
        print(f"given up: {what} ({key} of the profile)", flush=True)
        for stage in self.stages:
            attempts = sorted((self.store / "stages" / stage / "attempts").glob("[0-9]*"), key=lambda p: int(p.name))
            if attempts and not (attempts[-1] / "failure.json").exists():
                write_json(attempts[-1] / "failure.json", {"type": "GivenUp", "message": f"{what} ({key})"})
        return 1

    def _tell(self, outcomes: dict[str, str], reason: str | None) -> None:
        """Add to the array's list how this element ended, for those after it; ``reason``: why it was not begun."""
        for stage in self.stages:
            if (status := outcomes[stage]) in ("done", "failed"):
                failure = StageFolder(self.store / "stages" / stage).last_failure() or {}
                why = reason or failure.get("message")
                append_line(self.record.ends, {"stage": stage, "reason": why if status == "failed" else None})

    def _common_failure(self) -> str | None:
        """Return the reason for which as many elements in a row failed as the profile allows, or None."""
        alike = self.record.facts["alike"]
        reasons = [line["reason"] for line in read_lines(self.record.ends)[-alike:]]
        if len(reasons) < alike or None in reasons:
            return None
        # numbers and digests apart
        return reasons[-1] if len({re.sub(r"[0-9a-f]{8,}|\d+", "#", reason) for reason in reasons}) == 1 else None

    def _note(self, what: str, **facts: Any) -> None:
        line = {"time": round(time.time(), 3), "what": what, "job": os.environ.get("SLURM_JOB_ID"), **facts}
        append_line(self.record.events(self.index), line)

    def _past(self) -> list[dict[str, Any]]:
        return element_events(self.record, self.index)

    def _count(self, cause: str) -> int:
        """Return how often a cause stopped this element; a node is one where process or script were lost, too."""
        found = {"node", "lost"} if cause == "node" else {cause}
        return sum(event["what"] in found for event in self._past())


def more_time(minutes: float, factor: float, longest: int) -> int:
    """Return the time limit, in minutes, of what ran out of one: multiplied, up to the longest that the site has."""
    return min(math.ceil(minutes * factor), longest)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Hold signals back until the block has ended: all processes that they are for are then known."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def element_events(record: ArrayRecord, index: int) -> list[dict[str, Any]]:
    """Return what happened to an element, oldest first."""
    return read_lines(record.events(index))


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append a JSON line to a file."""
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(value) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a file, none where it is not there; torn ones are left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    values = []
    for line in lines:
        with suppress(ValueError):
            values.append(json.loads(line))
    return values


def main() -> None:
    """Run the element that the command line names."""
    record, index = ArrayRecord(Path(sys.argv[1])), int(sys.argv[2])
    try:
        read_json(record.array_json)
        code = Element(record, index).run()
    except AblateError as error:
        print(f"error: {error}", flush=True)
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
