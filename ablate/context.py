"""What the work of a stage sees: its config, its inputs, and the folders it may write to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Resources:
    """How a stage runs, never what it makes.

    ``threads`` of each process, indices of the ``gpus``, the most rows in one forward pass (``micro_batch``; null:
    chosen by memory), and the seconds between two checkpoints.
    """

    threads: int = 1
    gpus: tuple[int, ...] = ()
    micro_batch: int | None = None
    checkpoint_seconds: float = 30.0


class EventLog:
    """Append-only JSON lines with what happens while a stage runs (losses, rewards, progress).

    One line an event: ``{"time": unix seconds, "step": int | null, …}``. A torn last line (the process
    was killed while writing) is ignored by readers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, *, step: int | None = None, **values: float | int | str | None) -> None:
        """Append one event; ``values`` are scalars."""
        line = json.dumps({"time": round(time.time(), 3), "step": step, **values}) + "\n"
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(line)

    def progress(self, done: int, total: int, unit: str = "steps") -> None:
        """Report progress for the live display: ``done`` of ``total`` ``unit``."""
        self.log(step=None, progress=done, total=total, unit=unit)


@dataclass(frozen=True)
class StageContext:
    """All that the work of one stage is given.

    ``config`` is the identity of the stage; ``inputs`` maps a role to the path of an input artifact (a file
    or a folder); ``locations`` maps names to paths outside the store (never part of the identity). The work
    writes its artifacts into ``output`` (exists, empty: published in one rename when the work returns) and
    checkpoints into ``work`` (this attempt's own); ``previous_work`` are the work folders of earlier attempts,
    newest first, for resuming: read only.
    """

    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Path]
    output: Path
    work: Path
    events: EventLog
    locations: Mapping[str, str] = field(default_factory=dict)
    previous_work: tuple[Path, ...] = ()
    resources: Resources = field(default_factory=Resources)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON so that the file is either absent, old or complete: temporary file, fsync, replace."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=1, sort_keys=True, allow_nan=False)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
