"""Run a plan on this machine: ready stages to free slots, the longest way first, a failure stops only what needs it."""

from __future__ import annotations

import contextlib
import heapq
import selectors
import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from ablate.execution.runner import Outcome
from ablate.execution.servers import PRELOADED, Server
from ablate.execution.slots import Machine
from ablate.plan.graph import children_of
from ablate.plan.stage import Stage
from ablate.store import Store

BUSY_PAUSE = 1.0
"""Seconds before looking again at a stage that another process is running."""


class Observer(Protocol):
    """Who is told what happens; the display is one."""

    def started(self, stage: Stage) -> None:
        """A worker was asked to run the stage."""

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        """The stage ended: done, failed, blocked by a failure, interrupted."""

    def waiting(self, stage: Stage) -> None:
        """Another process is running the stage; this one waits for its result."""

    def tick(self) -> None:
        """Called several times a second."""


@dataclass
class LocalRun:
    """What one run did: stage id to how it ended, for every stage it was given."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    interrupted: bool = False

    def count(self, status: str) -> int:
        """Return how many stages ended so."""
        return sum(outcome.status == status for outcome in self.outcomes.values())


@dataclass(frozen=True)
class Change:
    """What a source wants of a run that goes on: stages to run as well, and stages to stop, at a checkpoint."""

    add: Mapping[str, Stage] = field(default_factory=dict)
    stop: Collection[str] = ()


class Source(Protocol):
    """Where further stages come from while a run goes on."""

    def change(self, run: LocalRun) -> Change | None:
        """Return what is to change, None once nothing more will come; called several times a second.

        Stages to add have their parents before them, or in the run already; none of them is done.
        """


def run_local(
    store: Store,
    stages: Mapping[str, Stage],
    wanted: Sequence[str],
    machine: Machine,
    observer: Observer,
    source: Source | None = None,
) -> LocalRun:
    """Run the stages ``wanted`` (ids, parents before children; stages already done are left out by the caller).

    Returns when all have ended, and those that ``source`` adds. On KeyboardInterrupt the running stages are stopped
    and the run says so; on SIGUSR1, too, once those that write checkpoints have written one.
    """
    scheduler = _Scheduler(store, machine, observer)
    with _interrupting_signals():
        try:
            scheduler.add({stage_id: stages[stage_id] for stage_id in wanted})
            scheduler.loop(source)
        except _StopAtCheckpoints:
            try:
                scheduler.interrupt(at_checkpoints=True)
            except KeyboardInterrupt:  # there is no time for that any more
                scheduler.interrupt()
        except KeyboardInterrupt:
            scheduler.interrupt()
        finally:
            scheduler.close()
    return scheduler.run


class _StopAtCheckpoints(KeyboardInterrupt):
    """SIGUSR1: a batch system is about to end this process, and there is time for a last checkpoint."""


@contextlib.contextmanager
def _interrupting_signals() -> Iterator[None]:
    """Let SIGTERM (a closing terminal, a batch system) stop a run as Ctrl-C does, and SIGUSR1 at checkpoints.

    Only the main thread gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        for answered in (number, signal.SIGUSR1):  # a batch system may send it several times, to several processes
            signal.signal(answered, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGTERM else _StopAtCheckpoints

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Scheduler:
    def __init__(self, store: Store, machine: Machine, observer: Observer) -> None:
        self.store, self.machine, self.observer = store, machine, observer
        self.stages: dict[str, Stage] = {}
        self.children: dict[str, list[str]] = {}
        self.unmet: dict[str, set[str]] = {}
        self.rank: dict[str, tuple[int, int, int]] = {}
        self.ready: list[tuple[tuple[int, int, int], str]] = []
        self.later: list[tuple[float, str]] = []
        self.running: dict[str, tuple[Server, tuple[int, ...]]] = {}
        self.free_gpus = list(machine.gpus)
        self.selector = selectors.DefaultSelector()
        self.servers: dict[bool, Server] = {}
        self.run = LocalRun()
        self.additions = 0

    def add(self, stages: Mapping[str, Stage]) -> None:
        """Take in stages; one that ended without a result is tried again. What came earlier goes first."""
        ended = self.run.outcomes
        new = {i: stage for i, stage in stages.items() if i not in self.stages or (i in ended and not self._is_done(i))}
        for stage_id in new:
            ended.pop(stage_id, None)
        self.stages |= new
        heights = _heights(new, children_of(new.values()))
        for position, stage in enumerate(new.values()):
            self.rank[stage.id] = (self.additions, -heights[stage.id], position)
            parents = {parent for parent in stage.parents if parent in self.stages}
            for parent in parents:
                if stage.id not in (known := self.children.setdefault(parent, [])):
                    known.append(stage.id)
            self.unmet[stage.id] = {parent for parent in parents if not self._is_done(parent)}
            failed = next((parent for parent in self.unmet[stage.id] if parent in ended), None)
            if failed is not None:
                self._record(stage, self._blocked(stage, self.stages[failed]))
            elif not self.unmet[stage.id]:
                self._push(stage.id)
        self.additions += 1
        if any(stage.execution.heavy for stage in new.values()):
            self._server(heavy=True)  # imports while the light stages run

    def loop(self, source: Source | None) -> None:
        while True:
            change = source.change(self.run) if source else None
            if change is not None:
                self.add(change.add)
                self._stop(change.stop)
            elif len(self.run.outcomes) == len(self.stages):
                return
            self._wake()
            self._dispatch()
            self._receive(0.1)
            self.observer.tick()

    def interrupt(self, *, at_checkpoints: bool = False) -> None:
        """Stop what runs, and wait for it to say so."""
        self.run.interrupted = True
        for stage_id, (server, _) in self.running.items():
            server.stop(stage_id, at_checkpoint=at_checkpoints)
        while self.running:
            self._receive(0.5)

    def close(self) -> None:
        for server in self.servers.values():
            server.close()
        self.selector.close()

    def _is_done(self, stage_id: str) -> bool:
        outcome = self.run.outcomes.get(stage_id)
        return outcome is not None and outcome.status == "done"

    def _stop(self, stages: Collection[str]) -> None:
        for stage_id in stages:
            if stage_id in self.running:
                self.running[stage_id][0].stop(stage_id, at_checkpoint=True)
            elif stage_id not in self.run.outcomes:
                self._record(self.stages[stage_id], Outcome(stage_id, "interrupted", "is not wanted any more"))

    def _push(self, stage_id: str) -> None:
        heapq.heappush(self.ready, (self.rank[stage_id], stage_id))

    def _wake(self) -> None:
        now = time.monotonic()
        while self.later and self.later[0][0] <= now:
            self._push(heapq.heappop(self.later)[1])

    def _dispatch(self) -> None:
        kept = []
        while self.ready and len(self.running) < self.machine.jobs:
            item = heapq.heappop(self.ready)
            stage = self.stages[item[1]]
            if stage.id in self.run.outcomes or stage.id in self.running:
                continue  # stopped while it waited, or wanted again since
            needed = self.machine.gpus_of(stage.execution)
            if needed > len(self.free_gpus):
                kept.append(item)
                continue
            gpus = tuple(self.free_gpus.pop(0) for _ in range(needed))
            server = self._server(stage.execution.heavy)
            self.running[stage.id] = (server, gpus)
            server.run(self.store.stage(stage.id).folder, self.machine.resources(gpus, stage.execution))
            self.observer.started(stage)
        for item in kept:
            heapq.heappush(self.ready, item)

    def _server(self, heavy: bool) -> Server:
        if heavy not in self.servers:
            ours = [stage.execution.entry for stage in self.stages.values() if stage.execution.heavy is heavy]
            entries = dict.fromkeys(entry.partition(":")[0] for entry in ours)
            modules = (*(PRELOADED if heavy else ()), *entries)
            log = self.store.cache / "logs" / ("workers-preloaded.log" if heavy else "workers-light.log")
            self.servers[heavy] = Server(modules, log)
            self.selector.register(self.servers[heavy].descriptor, selectors.EVENT_READ, self.servers[heavy])
        return self.servers[heavy]

    def _receive(self, timeout: float) -> None:
        if not self.servers:
            time.sleep(timeout)
            return
        for key, _ in self.selector.select(timeout):
            server: Server = key.data
            for reply in server.replies():
                if "ready" not in reply:
                    self._ended(Outcome(**reply))

    def _ended(self, outcome: Outcome) -> None:
        _, gpus = self.running.pop(outcome.stage)
        self.free_gpus.extend(gpus)
        stage = self.stages[outcome.stage]
        if outcome.status in ("busy", "lost"):
            heapq.heappush(self.later, (time.monotonic() + BUSY_PAUSE, stage.id))
            self.observer.waiting(stage)
            return
        self._record(stage, outcome)
        if outcome.status == "done":
            for child in self.children.get(stage.id, ()):
                self.unmet[child].discard(stage.id)
                if not self.unmet[child] and child not in self.run.outcomes:
                    self._push(child)
        else:
            self._block(stage)

    def _block(self, failed: Stage) -> None:
        stack = list(self.children.get(failed.id, ()))
        while stack:
            stage = self.stages[stack.pop()]
            if stage.id not in self.run.outcomes:
                self._record(stage, self._blocked(stage, failed))
                stack.extend(self.children.get(stage.id, ()))

    @staticmethod
    def _blocked(stage: Stage, failed: Stage) -> Outcome:
        return Outcome(stage.id, "blocked", f"needs {failed.id}, which {failed.execution.label!r} did not make")

    def _record(self, stage: Stage, outcome: Outcome) -> None:
        self.run.outcomes[stage.id] = outcome
        self.observer.ended(stage, outcome)


def _heights(stages: Mapping[str, Stage], children: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the number of stages on the longest way from each stage to an end: those first keep the machine full."""
    heights: dict[str, int] = {}
    for stage_id in reversed(list(stages)):
        heights[stage_id] = 1 + max((heights[child] for child in children.get(stage_id, ())), default=0)
    return heights
