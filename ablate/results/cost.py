"""What a stage took of a machine, as its done.json says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds, and hours of GPUs and processor cores; null where the stage's record does not say."""

    seconds: float | None = None
    gpu_hours: float | None = None
    cpu_hours: float | None = None

    @classmethod
    def of(cls, done: Mapping[str, Any] | None) -> Cost:
        """Return the cost that a done.json records: its GPUs are taken to have been held all the time."""
        done = done or {}
        seconds, gpus, cpu_seconds = done.get("seconds"), done.get("gpus"), done.get("cpu_seconds")
        return cls(
            seconds=seconds,
            gpu_hours=None if seconds is None or gpus is None else len(gpus) * seconds / 3600,
            cpu_hours=None if cpu_seconds is None else cpu_seconds / 3600,
        )
