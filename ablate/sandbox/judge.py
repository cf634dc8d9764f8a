"""Many programs against their tests, as many at a time as there are cores."""

from __future__ import annotations

import queue
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any

from ablate.errors import StageError
from ablate.sandbox.box import Box, refused
from ablate.sandbox.checker import PATIENCE
from ablate.sandbox.program import READY
from ablate.sandbox.wire import Broken, Frames, within

MEMORY = 4 << 30
"""Bytes of address space of a program, as EvalPlus allows."""
START_SECONDS = 120.0
"""Longest wait for an interpreter."""


@dataclass(frozen=True)
class Group:
    """Tests with a name of their own, that pass together: ``code`` to execute, or ``cases`` (arguments of the entry
    point, encoded) whose outputs are those of the reference."""

    name: str
    code: str | None = None
    cases: Sequence[Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The form that travels to the checker."""
        return {"name": self.name} | ({"code": self.code} if self.cases is None else {"cases": self.cases})


@dataclass(frozen=True)
class UnitTests:
    """What the programs of one problem are held against.

    ``setup`` is code of the data set that tests may use: the reference, helpers. ``entry`` names the function that is
    tested (``candidate`` in the code of tests); none where tests name functions themselves. ``seconds`` a program may
    take in all; null: EvalPlus' limit for each case. ``family`` (humaneval, mbpp) and ``tolerance`` decide which
    outputs agree.
    """

    groups: tuple[Group, ...]
    setup: str = ""
    entry: str | None = None
    seconds: float | None = None
    family: str = ""
    tolerance: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The form that travels to the checker."""
        own = {"setup": self.setup, "entry": self.entry, "seconds": self.seconds, "family": self.family}
        return own | {"tolerance": self.tolerance, "groups": [group.as_json() for group in self.groups]}


@dataclass(frozen=True)
class Verdict:
    """Which groups of tests a program passed, and ``why`` not all: ``wrong``, ``raised``, ``timed_out``, ``ended``
    (the process is gone) or ``unreadable`` (an answer that is none); else ``passed``. ``error`` is for people."""

    passed: Mapping[str, bool] = field(default_factory=dict)
    why: str = "passed"
    error: str = ""

    def all_passed(self) -> bool:
        """Whether every test was run and passed."""
        return self.why == "passed" and bool(self.passed) and all(self.passed.values())


@dataclass(frozen=True)
class Problem:
    """Programs and the tests they are held against; ``name`` is for errors."""

    name: str
    tests: UnitTests
    programs: Sequence[str]


def judge(
    problems: Sequence[Problem],
    box: Box,
    *,
    jobs: int = 1,
    memory: int = MEMORY,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Verdict]]:
    """The verdict on each program of each problem, in order; equal programs of a problem are run once.

    Raises StageError where the sandbox does not start, or a problem's own reference fails.
    """
    verdicts: list[list[Verdict]] = [[] for _ in problems]
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for place in range(len(problems)):
        waiting.put(place)
    stopped = Event()

    def work() -> None:
        with Checker(box, memory) as checker:
            while not stopped.is_set():
                try:
                    place = waiting.get_nowait()
                except queue.Empty:
                    return
                verdicts[place] = checker.check(problems[place])
                if progress:
                    progress(len(problems) - waiting.qsize(), len(problems))

    with ThreadPoolExecutor(max(1, min(jobs, len(problems)))) as pool:
        futures = [pool.submit(work) for _ in range(max(1, min(jobs, len(problems))))]
        try:
            for future in futures:
                future.result()
        finally:
            stopped.set()
    return verdicts


class Checker:
    """A checker's process and the programs that it is given, one after another."""

    def __init__(self, box: Box, memory: int = MEMORY) -> None:
        self._box = box
        self._memory = memory
        self._running = ExitStack()
        self._channel: socket.socket | None = None

    def __enter__(self) -> Checker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def check(self, problem: Problem) -> list[Verdict]:
        """The verdict on each program."""
        known: dict[str, Verdict] = {}
        seconds = self._open(problem)
        for text in problem.programs:
            if text in known:
                continue
            try:
                known[text] = self._run(text, seconds)
            except Broken:  # the checker itself hangs or is gone
                self._stop()
                known[text] = Verdict({}, "timed_out")
                seconds = self._open(problem)
        self._frames.send({"program": None})
        return [known[text] for text in problem.programs]

    def _open(self, problem: Problem) -> float:
        """Hand the tests over; how many seconds a program may take."""
        if self._channel is None:
            self._begin()
        self._frames.send(problem.tests.as_json())
        answer = self._frames.receive()
        if "unprepared" in answer:
            raise StageError(f"the tests of {problem.name} can't be used: {answer['unprepared']}")
        return float(answer["seconds"])

    def _run(self, text: str, seconds: float) -> Verdict:
        """Start a process for the program, and let the checker talk to it."""
        assert self._channel is not None
        limits = (int(seconds) + 2, self._memory, int(not self._box.bubblewrap))
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with ours, theirs, self._box.start("program", limits, theirs.fileno(), processes=False) as process:
            theirs.close()
            try:
                pid = _awaited(ours)
            except OSError as error:
                raise refused(self._box, process) from error
            with Path(f"/proc/{pid}/stat").open("rb") as status:
                self._frames.send({"program": text})
                socket.send_fds(self._channel, [b"f"], [ours.fileno(), status.fileno()])
            ours.close()
            answer = self._frames.receive(within((PATIENCE + 2) * seconds + START_SECONDS))
            return Verdict(answer["passed"], answer["why"], answer["error"])

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        self._channel = self._running.enter_context(ours)
        with theirs:
            process = self._running.enter_context(
                self._box.start("checker", (2 * self._memory,), theirs.fileno(), processes=True)
            )
        try:
            self._frames.receive(within(START_SECONDS))
        except Broken as broken:
            error = refused(self._box, process)
            self._stop()
            raise error from broken

    @property
    def _frames(self) -> Frames:
        assert self._channel is not None
        return Frames(self._channel.fileno())

    def _stop(self) -> None:
        self._channel = None
        self._running.close()


def _awaited(channel: socket.socket) -> int:
    """Wait for the program's interpreter; its process id, as the kernel vouches for it. Raises OSError."""
    channel.settimeout(START_SECONDS)
    said, ancillary, _, _ = channel.recvmsg(len(READY), socket.CMSG_SPACE(_CREDENTIALS.size))
    found = [data for level, kind, data in ancillary if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)]
    if said != READY or not found:
        raise ConnectionError("no interpreter")
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    return int(_CREDENTIALS.unpack(found[0])[0])


_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of a message's sender."""
