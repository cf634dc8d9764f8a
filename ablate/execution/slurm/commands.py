"""Calls of SLURM's own commands: each with a time-out, again after a pause where the controller is busy."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ablate.errors import AblateError, UsageError

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before a call is repeated; a site's limit lets a call through every second or so."""
PATIENCE = 120.0
"""Seconds a call may take: commands themselves wait for a controller that restarts."""

BUSY = (
    "unable to contact slurm controller",
    "socket timed out",
    "temporarily unable to accept job",
    "temporarily unavailable",
    "connection refused",
    "connection reset",
    "zero bytes were transmitted",
    "rate limit",
    "too many requests",
    "slurm backup controller in standby mode",
)
"""What SLURM says where the same call may work later, in small letters."""


class SlurmError(AblateError):
    """A SLURM command failed; the message has its own words."""


class SlurmBusy(SlurmError):
    """The controller did not answer; whether it heard is not known."""


class Refused(UsageError):
    """SLURM refuses a job; nothing of it is queued."""


def call(command: Sequence[str], *, retry: bool = True) -> str:
    """Run a SLURM command and return what it prints.

    Raises SlurmError with its own words, SlurmBusy where the controller did not answer; that is tried again, unless
    ``retry`` is false.
    """
    for pause in (*PAUSES, None) if retry else (None,):
        try:
            return _once(command)
        except SlurmBusy:
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


def submit(command: Sequence[str]) -> str:
    """Run ``sbatch --parsable`` once and return the job id; raises Refused, or SlurmBusy where it may be queued."""
    try:
        printed = _once(command)
    except SlurmBusy:
        raise
    except SlurmError as error:
        raise Refused(error.message, hint=error.hint) from error
    return printed.strip().splitlines()[-1].partition(";")[0]


def require_slurm() -> None:
    """Raise UsageError where this machine has no SLURM commands."""
    if shutil.which("sbatch") is None:
        raise UsageError(
            "there is no sbatch on this machine", hint="run this on a login node of the cluster, or leave --on out"
        )


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block has ended: a job is queued and written down, or neither."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if caught:
        raise KeyboardInterrupt


def _once(command: Sequence[str]) -> str:
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches us alone, and we wait for the answer
        )
    except FileNotFoundError as error:
        raise SlurmError(f"there is no {command[0]} on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmBusy(f"{command[0]} did not answer within {PATIENCE:.0f} s") from error
    if answer.returncode == 0:
        return answer.stdout
    words = " ".join(_own_words(answer.stderr or answer.stdout)) or f"exit code {answer.returncode}"
    if any(known in words.lower() for known in BUSY):
        raise SlurmBusy(f"{command[0]}: {words}", hint="the controller is busy or restarts: the same command continues")
    raise SlurmError(f"{command[0]}: {words}")


def _environment() -> dict[str, str]:
    """Return our variables without a user's habits for squeue and sacct, which hide jobs (SQUEUE_PARTITION)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    # the indices of an array are else cut off after 64 letters, and times may be those of a clock on the wall
    return kept | {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"}


def _own_words(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line.split("error: ", 1)[-1] for line in lines if line]
