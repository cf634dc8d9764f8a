"""The process that holds tests and reference: it makes the calls, compares, and says what passed.

One server in a box of its own checks many programs in turn. It forks for every problem, whose reference it runs once,
and again for every program, so that nothing is left of one check in the next. No generated code runs here.
"""

from __future__ import annotations

import builtins
import copy
import functools
import os
import resource
import signal
import socket
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ablate.sandbox.wire import Broken, Frames, attempt, decode, encode

PATIENCE = 20.0
"""How many times its limit a program may take on a machine that has no time for it."""
CASE_SECONDS, CASE_FACTOR, MOST_SECONDS = 1.0, 4.0, 60.0
"""EvalPlus' limits: a case takes at most a second or four times the reference, a group a minute (config.py)."""
_UNRAISABLE = {"StopIteration", "StopAsyncIteration", "GeneratorExit"}
"""Exceptions that would end a loop of the tests in silence."""


class Raised(Exception):
    """What the program raised, where no exception of that name is Python's own."""


class Clock:
    """How much processor time a program has had, and whether it wants more: its ``/proc/<id>/stat``."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ticks = os.sysconf("SC_CLK_TCK")

    def used(self) -> float:
        """Seconds of processor time of the process."""
        fields = self._fields()
        return (int(fields[11]) + int(fields[12])) / self._ticks if fields else 0.0

    def wants(self) -> bool:
        """Whether it runs, waits for a processor or for a disk; not so when it sleeps or is gone."""
        fields = self._fields()
        return bool(fields) and fields[0] in (b"R", b"D")

    def _fields(self) -> list[bytes]:
        try:
            return os.pread(self._descriptor, 4096, 0).rpartition(b")")[2].split()
        except OSError:  # the process is gone
            return []


class Limit:
    """Seconds for a program's answers, all together: over when an answer takes what is left of them, unless the machine
    withheld its processor meanwhile.

    A program that then still wants to run may go on until it has had that much processor time (or ``PATIENCE`` times
    the limit has passed), so that what passes does not depend on what else the machine does. Between answers only
    processor time counts: the rest is the checker's.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._enough = clock.used() + seconds
        self._last = time.monotonic() + PATIENCE * seconds
        self._end = time.monotonic() + seconds

    def begin(self) -> None:
        """An answer is asked for."""
        self._end = time.monotonic() + self._enough - self._clock.used()

    def left(self) -> float:
        """Seconds to wait before asking again; at most 0 when it is over."""
        now = time.monotonic()
        if now >= self._end and now < self._last and self._clock.wants():
            missing = self._enough - self._clock.used()
            self._end = now + max(0.02, missing) if missing > 0 else now
        return min(self._end, self._last) - now


class Session:
    """One program's answers; after the first one that is late or missing there is no other."""

    def __init__(self, descriptor: int, clock: Clock, seconds: float) -> None:
        os.set_blocking(descriptor, False)
        self._frames = Frames(descriptor)
        self.clock = clock
        self.whole = Limit(seconds, clock)
        self.case: Limit | None = None
        self.broken: str | None = None

    def left(self) -> float:
        """Seconds that are left for the current answer: of the case's limit and of the whole program's."""
        whole = self.whole.left()
        return whole if self.case is None else min(whole, self.case.left())

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request; raises what the program raised, or Broken."""
        if self.broken:
            raise Broken(self.broken)
        self.whole.begin()
        try:
            self._frames.send(request, self)
            answer = self._frames.receive(self)
        except Broken as error:
            self.broken = str(error)
            raise
        if "raised" in answer:
            raise _exception(answer["raised"])
        return answer

    def do(self, what: str, *arguments: Any, named: Mapping[str, Any] | None = None, back: bool = False) -> Any:
        """The value of an operation on the program's side; ``back``: what it did to its arguments is done here, too."""
        forms = [encode(argument, _reference) for argument in arguments]
        request: dict[str, Any] = {"do": what, "args": forms, "back": back}
        if named:
            request["named"] = {name: encode(value, _reference) for name, value in named.items()}
        answer = self.ask(request)
        if back:
            for argument, form in zip(arguments, answer.get("args", ()), strict=False):
                _become(argument, self._value(form))
        return self._value(answer.get("value"))

    def _value(self, form: Any) -> Any:
        return decode(form, lambda reference: Remote(self, int(reference[0]), bool(reference[1])))


class Remote:
    """A value that stays with the program: its operations are asked for there, and it equals no plain value."""

    __hash__ = object.__hash__

    def __init__(self, session: Session, number: int, callable_: bool) -> None:
        self.__dict__.update(_session=session, _number=number, _callable=callable_)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it there; lists, dicts and sets among the arguments are changed as it changes its copies."""
        back = any(isinstance(argument, list | dict | set) for argument in arguments)
        return self._session.do("call", self, *arguments, named=named, back=back)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._session.do("getattr", self, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self._session.do("eq", self, other) is True

    def __getitem__(self, key: Any) -> Any:
        return self._session.do("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._session.do("setitem", self, key, value)

    def __contains__(self, item: Any) -> bool:
        return bool(self._session.do("contains", self, item))

    def __len__(self) -> int:
        return int(self._session.do("len", self))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._session.do("iter", self))

    def __str__(self) -> str:
        return str(self._session.do("str", self))

    def __repr__(self) -> str:
        return str(self._session.do("repr", self))


def _reference(value: Any) -> Any:
    if not isinstance(value, Remote):
        raise TypeError(f"tests can pass plain values to a program, not {type(value).__name__}")
    return {"reference": [value._number, value._callable]}


def _become(argument: Any, value: Any) -> None:
    """Give a list, dict or set the content that the program left in its copy."""
    if type(argument) is not type(value) or not isinstance(argument, list | dict | set):
        return
    argument.clear()
    argument.extend(value) if isinstance(argument, list) else argument.update(value)


def _exception(raised: Any) -> Exception:
    """An exception of Python's own where the program raised one, so that tests may expect it."""
    name, text = (str(part) for part in raised)
    kind = getattr(builtins, name, None)
    odd = (UnicodeError, BaseExceptionGroup)  # more arguments than a text
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, odd) and name not in _UNRAISABLE:
        made: Exception = kind(text)
        return made
    return Raised(f"{name}: {text}")


class Problem:
    """Tests of one problem, made ready: the reference's globals, its outputs and how long it took."""

    def __init__(self, tests: Mapping[str, Any]) -> None:
        self._tests = tests
        self._setup: dict[str, Any] = {}
        exec(compile(tests["setup"], "<reference>", "exec"), self._setup)
        self._codes = {
            group["name"]: compile(group["code"], "<tests>", "exec") for group in tests["groups"] if "code" in group
        }
        self._cases = {group["name"]: self._expect(group["cases"]) for group in tests["groups"] if "cases" in group}

    @property
    def seconds(self) -> float:
        """How long a program may take for everything."""
        if self._tests["seconds"] is not None:
            return float(self._tests["seconds"])
        return sum(min(MOST_SECONDS, sum(limits)) + 1 for _, _, limits in self._cases.values())

    def check(self, descriptor: int, clock: Clock, text: str) -> dict[str, Any]:
        """Which groups of tests the program passes, in order, up to the first that it fails, and why."""
        session = Session(descriptor, clock, self.seconds)
        signal.setitimer(signal.ITIMER_REAL, (PATIENCE + 1) * self.seconds)
        passed = {group["name"]: False for group in self._tests["groups"]}
        why = "passed"
        _, error = attempt(lambda: session.ask({"load": text}))
        for name in passed if error is None else ():
            _, error = attempt(functools.partial(self._run, session, name))
            if error is not None or session.broken:
                break
            passed[name] = True
        if error is not None or session.broken:
            why = session.broken or ("wrong" if isinstance(error, AssertionError) else "raised")
        return {"passed": passed, "why": why, "error": f"{type(error).__name__}: {error}"[:200] if error else ""}

    def _run(self, session: Session, name: str) -> None:
        if name in self._codes:
            self._run_code(session, self._codes[name])
        else:
            self._run_cases(session, *self._cases[name])

    def _run_code(self, session: Session, code: types.CodeType) -> None:
        """Execute tests as they are written; names that neither they, the reference nor Python have are its own."""
        names = dict(self._setup)
        if self._tests["entry"]:
            names["candidate"] = session.do("name", self._tests["entry"])
        for name in sorted(_names(code)):
            if name not in names and not hasattr(builtins, name):
                value, missing = attempt(functools.partial(session.do, "name", name))
                if missing is None:
                    names[name] = value
        exec(code, names)

    def _run_cases(self, session: Session, inputs: list[Any], expected: list[Any], limits: list[float]) -> None:
        """Call the program with every input; raises AssertionError at the first output that is not the expected one."""
        from ablate.sandbox.oracles import agrees

        function = session.do("name", self._tests["entry"])
        entry, family, tolerance = self._tests["entry"], self._tests["family"], float(self._tests["tolerance"])
        limited = self._tests["seconds"] is None
        for arguments, wanted, limit in zip(inputs, expected, limits, strict=True):
            session.case = Limit(limit, session.clock) if limited else None
            output = session.do("call", function, *arguments)
            if not agrees(family, entry, arguments, output, wanted, tolerance):
                raise AssertionError(
                    f"{entry}{tuple(arguments)!r:.80} returned {output!r:.80}, expected {wanted!r:.80}"
                )
        session.case = None

    def _expect(self, cases: list[Any]) -> tuple[list[Any], list[Any], list[float]]:
        """The inputs, the reference's outputs, and the limit of each in seconds."""
        from ablate.sandbox.oracles import expected_of

        reference = self._setup[self._tests["entry"]]
        inputs = [decode(case, _no_reference) for case in cases]
        expected, limits = [], []
        for arguments in inputs:
            own = copy.deepcopy(arguments)
            began = time.process_time()
            output = reference(*own)
            limits.append(max(CASE_SECONDS, CASE_FACTOR * (time.process_time() - began)))
            expected.append(expected_of(self._tests["family"], self._tests["entry"], output))
        return inputs, expected, limits


def _no_reference(reference: Any) -> Any:
    raise ValueError("an input of a test is a plain value")


def _names(code: types.CodeType) -> set[str]:
    """Global names that code or the functions in it may read."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)


def main(descriptor: int, memory: int) -> None:
    """Serve the judge over ``descriptor`` until it hangs up."""
    frames = Frames(descriptor)
    frames.send({"ready": True})
    while True:
        message, error = attempt(frames.receive)
        if error is not None:
            return
        _forked(functools.partial(_serve_problem, frames, descriptor, message, memory))


def _serve_problem(frames: Frames, descriptor: int, tests: Mapping[str, Any], memory: int) -> None:
    """Answer for every program that follows, until the judge says that there is none."""
    problem, error = attempt(lambda: Problem(tests))
    if error is not None:
        frames.send({"unprepared": f"{type(error).__name__}: {error}"[:500]})
        return
    frames.send({"seconds": problem.seconds})
    while (message := frames.receive()).get("program") is not None:
        with socket.socket(fileno=os.dup(descriptor)) as channel:
            _, descriptors, _, _ = socket.recv_fds(channel, 1, 2)
        ended = _forked(functools.partial(_check, frames, problem, descriptors, message["program"], memory))
        if ended:
            why = "timed_out" if os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGALRM else "unreadable"
            frames.send({"passed": {}, "why": why, "error": ""})
        for received in descriptors:
            os.close(received)


def _check(frames: Frames, problem: Problem, descriptors: list[int], text: str, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    program, status = descriptors
    frames.send(problem.check(program, Clock(status), text))


def _forked(work: Callable[[], None]) -> int:
    """Do some work in a process of its own; its wait status, 0 when all went well."""
    child = os.fork()
    if child == 0:
        _, error = attempt(work)
        os._exit(0 if error is None else 1)
    return os.waitpid(child, 0)[1]
