"""Leases on stages: who runs an attempt, and who may publish. Whether they are alive: :mod:`ablate.liveness`.

An attempt is claimed by renaming a prepared folder to ``attempts/<n>``: a rename onto a folder that has contents
fails on every POSIX file system, so that one claimant wins. The number fences: whoever holds a lower one has lost.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from typing import Any

from ablate.context import write_json
from ablate.errors import LeaseLost
from ablate.liveness import Owner, is_beating, is_running
from ablate.store import AttemptFolder, StageFolder

HEARTBEAT_SECONDS = 5.0


def claim(stage: StageFolder) -> AttemptFolder | None:
    """Start a new attempt and own it; None when another process is at work on this stage, or has just done it."""
    attempts = stage.attempts()
    if attempts and (is_running(attempts[-1]) or is_beating(attempts[-1])):
        return None
    if stage.is_done():  # looked at after the owner: it publishes before it ends
        return None
    attempt = stage.attempt(attempts[-1].number + 1 if attempts else 1)
    stage.attempts_folder.mkdir(parents=True, exist_ok=True)
    prepared = stage.attempts_folder / f".claim-{uuid.uuid4().hex}"
    try:
        prepared.mkdir()
        write_json(prepared / attempt.owner_json.name, Owner.current().__dict__)
        (prepared / attempt.heartbeat.name).touch()
        os.rename(prepared, attempt.folder)
    except OSError as error:
        shutil.rmtree(prepared, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return None
        raise
    return attempt


def beat(attempt: AttemptFolder) -> None:
    """Say that the owner is alive."""
    attempt.heartbeat.touch()


def require_lease(stage: StageFolder, attempt: AttemptFolder) -> None:
    """Raise LeaseLost when a newer attempt exists: this one must not publish."""
    newest = stage.attempts()[-1].number
    if newest != attempt.number:
        raise LeaseLost(f"attempt {attempt.number} of {stage.id} was taken over by attempt {newest}")


def end(attempt: AttemptFolder, status: str, **facts: Any) -> None:
    """Record how an attempt ended."""
    write_json(attempt.ended_json, {"status": status, "time": time.time(), **facts})
