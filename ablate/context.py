"""What the work of a stage sees (config, inputs, the folders it may write to), and files that appear whole."""

from __future__ import annotations

import importlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablate.errors import StageError

Frozen = Literal["device", "host", "other-gpu"]
Sharding = Literal["ddp", "zero2", "zero3"]


@dataclass(frozen=True)
class Resources:
    """How a stage runs, never what it makes.

    ``threads`` of each process, indices of the ``gpus``, the most rows in one forward pass (``micro_batch``; null:
    chosen by memory), the seconds between two checkpoints, the ``processes`` on each of the ``nodes`` that train one
    model together, and where on-policy methods keep reference and reward model (``frozen``): on the device of the
    policy, in host memory between uses, or on the last of the stage's GPUs. ``rollout_server`` is the address of a vLLM
    server, for those who use one. ``unsafe_code``: generated programs may be run without a sandbox. ``sharding`` is how
    those processes share weights, gradients and moments (null: chosen by the model's size and memory). ``judges`` are
    the addresses of judges that this job serves itself, by their models.
    """

    threads: int = 1
    gpus: tuple[int, ...] = ()
    micro_batch: int | None = None
    checkpoint_seconds: float = 30.0
    processes: int = 1
    frozen: Frozen = "device"
    rollout_server: str | None = None
    unsafe_code: bool = False
    sharding: Sharding | None = None
    nodes: int = 1
    judges: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Resources:
        """Return what ``dataclasses.asdict`` made of resources, read back from JSON."""
        return cls(**{**written, "gpus": tuple(written["gpus"])})


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


STOP_ASKED = threading.Event()
"""Set in a computing process that writes checkpoints when its supervisor asks for a last one."""


def stop_at_checkpoints() -> None:
    """Let SIGUSR1 ask for a last checkpoint, from now on; until then, and in other stages, it ends the process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, lambda number, frame: STOP_ASKED.set())


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


def import_function(entry: str, what: str) -> Callable[..., Any]:
    """Return the function named ``module:function``; raises StageError, which says ``what`` it should have been."""
    module, _, name = entry.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise StageError(f"can't import {what}, {entry}: {error}") from error
    if not callable(function):
        raise StageError(f"{what}, {entry}, is not a function")
    return function  # type: ignore[no-any-return]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; the file written there replaces ``path`` when the block ends, and is gone when it fails.

    ``path`` is either absent, old or complete: its new bytes reach the disk before it is renamed into place.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a full disk names no file, a refusal names the temporary one
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> Path:
    """Write a text file as a whole, see :func:`replacing`; returns its path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON as a whole, see :func:`replacing`; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and all below it are on the disk, so that a marker never outlives what it vouches for."""
    for path in folder.rglob("*"):
        if path.is_file() or path.is_dir():
            sync(path)
    sync(folder)
