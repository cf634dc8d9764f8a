"""The one error root. A message says what is wrong, where, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Location:
    """Where in a user's file something is wrong: path, 1-based line, dotted key."""

    file: str | None = None
    line: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        place = self.file or ""
        if self.file and self.line is not None:
            place = f"{self.file}:{self.line}"
        if self.key:
            place = f"{place}: {self.key}" if place else self.key
        return place


class AblateError(Exception):
    """Root of every error a user is meant to read; the command line prints it without a traceback."""

    exit_code = 1

    def __init__(self, message: str, *, location: Location | None = None, hint: str | None = None) -> None:
        self.message = message
        self.location = location
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location and str(self.location) else ""
        hint = f"\n  {self.hint}" if self.hint else ""
        return f"{where}{self.message}{hint}"


class UsageError(AblateError):
    """The user's input (a spec, a name, a file, an option) is wrong; nothing was run or written."""

    exit_code = 2


class SpecError(UsageError):
    """A specification file is wrong: the location names file, line and key."""


class UnknownNameError(UsageError):
    """A name is in no catalog; the message offers the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, location: Location | None = None) -> None:
        self.name = name
        super().__init__(f"unknown {kind} {name!r}", location=location, hint=suggestion(name, known))


class DataError(UsageError):
    """A data file is missing, corrupt or of another shape than declared."""


class FetchError(AblateError):
    """A download failed; no file is under its name but whole ones, and the same command goes on."""


class StoreError(AblateError):
    """The store is in a state that must not be written to (newer version, foreign file)."""


class TrackingError(AblateError):
    """An experiment tracker does not answer; the store has all that it should show."""


class StageError(AblateError):
    """A stage's work can't go on; the stage is recorded as failed with this message."""


class OutOfMemory(StageError):
    """A pass of ``micro_batch`` examples found no room; with fewer in a pass the stage may go on."""

    def __init__(self, message: str, micro_batch: int) -> None:
        self.micro_batch = micro_batch
        hint = "a pass had one example: shorten max_length, train an adapter (lora_rank), or use a larger device"
        super().__init__(message, hint=hint if micro_batch == 1 else None)


class StopRequested(AblateError):
    """A stage was asked to stop and has written a checkpoint; a later attempt goes on from it."""


class LeaseLost(StageError):
    """Another worker took this stage over; this attempt must publish nothing."""


def suggestion(name: str, known: Iterable[str], *, limit: int = 12) -> str:
    """Return ``did you mean …?`` when a known name is near, and the allowed names; of many the ``limit`` nearest."""
    names = sorted(str(item) for item in known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    listed = names if len(names) <= limit else difflib.get_close_matches(str(name), names, n=limit, cutoff=0.0)
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    allowed = f"allowed: {', '.join(listed)}{more}" if names else "there is none"
    return f"did you mean {near[0]!r}? {allowed}" if near else allowed
