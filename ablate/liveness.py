"""How a stage stands, and whether the owner of an attempt is still at work: one answer for all who ask."""

from __future__ import annotations

import errno
import os
import platform
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ablate.context import read_json
from ablate.store import AttemptFolder, StageFolder

STALE_SECONDS = 120.0
"""An owner on another host whose heartbeat is further from now than this counts as dead, unless it moves."""
WATCHED_SECONDS = 12.0
"""How long a heartbeat is watched before its attempt is taken over: more than two beats."""


UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Why a store may be read and not written to: another user's, a read-only or a full disk."""


@dataclass(frozen=True)
class Owner:
    """A process, told apart from later ones with the same number by its start time and the machine's boot."""

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Owner:
        """Return this process."""
        return cls(platform.node(), _boot_id(), os.getpid(), _process_start(os.getpid()))

    def is_alive(self, heartbeat: Path) -> bool:
        """Tell whether the process still runs: exactly on its own machine, by its heartbeat elsewhere."""
        if self.is_here:
            return _process_start(self.pid) == self.started
        return abs(_age(heartbeat)) < STALE_SECONDS

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine, of this boot."""
        return (self.host, self.boot) == (platform.node(), _boot_id())


def is_running(attempt: AttemptFolder) -> bool:
    """Tell whether the owner of an attempt is alive and has not ended it."""
    if attempt.ended_json.exists():
        return False
    try:
        owner = Owner(**read_json(attempt.owner_json))
    except FileNotFoundError:
        return False
    return owner.is_alive(attempt.heartbeat)


def is_beating(attempt: AttemptFolder) -> bool:
    """Tell whether a heartbeat of another machine moves while one watches: then its owner lives, whatever its clock.

    Takes :data:`WATCHED_SECONDS` where it does not.
    """
    if attempt.ended_json.exists() or not attempt.owner_json.exists():
        return False
    first = _modified(attempt.heartbeat)
    if first is None or Owner(**read_json(attempt.owner_json)).is_here:
        return False
    deadline = time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.25)
        if _modified(attempt.heartbeat) != first:
            return True
    return False


Status = Literal["done", "running", "failed", "interrupted", "waiting"]


@dataclass(frozen=True)
class StageState:
    """How a stage stands; ``attempt`` is the number of the newest one that is not done, ``reason`` why it failed."""

    status: Status
    attempt: int = 0
    reason: str = ""


def stage_state(stage: StageFolder) -> StageState:
    """Tell how a stage stands: waiting until it is tried, interrupted when an attempt ended without a reason."""
    if stage.is_done():
        return StageState("done")
    attempts = stage.attempts()
    if not attempts:
        return StageState("waiting")
    newest = attempts[-1]
    if is_running(newest):
        return StageState("running", newest.number)
    failure = newest.read_failure()
    if stage.is_done():  # published between the first look and this one
        return StageState("done")
    if failure is None:
        return StageState("interrupted", newest.number)
    return StageState("failed", newest.number, str(failure.get("message") or failure.get("type") or "no message"))


def _age(path: Path) -> float:
    modified = _modified(path)
    return STALE_SECONDS if modified is None else _file_system_time(path.parent) - modified


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _file_system_time(folder: Path) -> float:
    """Return the time of a file written now, so that two machines' clocks need not agree."""
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        probe.touch()
    except OSError as error:
        if error.errno in UNWRITABLE:  # then this machine's clock has to do
            return time.time()
        raise
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    """Return a process's start time in clock ticks since boot; empty when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return _start_without_proc(pid)
    return "" if fields[0] == "Z" else fields[19]


def _start_without_proc(pid: int) -> str:
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"
