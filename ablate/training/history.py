"""The training curve: complete also when a run was interrupted, because it travels in the checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ablate.context import EventLog, read_json, write_json
from ablate.training.distributed import gathered, is_main

FILE = "history.json"


class History:
    """Logged values by optimiser step, forwarded to the stage's events as they come.

    ``add`` collects weighted values between two logged steps; ``means`` gives their means and starts anew. Both the
    records and what is still collected are in ``state``, so that a resumed run logs what an unbroken one would.
    """

    def __init__(self, events: EventLog | None = None, *, total_steps: int | None = None) -> None:
        self.events = events
        self.total_steps = total_steps
        self.records: list[dict[str, Any]] = []
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._marked: tuple[dict[str, float], dict[str, float]] = {}, {}

    def mark(self) -> None:
        """Remember what is collected now, at the start of a step that may have to be given up."""
        self._marked = dict(self._sums), dict(self._weights)

    def go_back(self) -> None:
        """Forget what was collected since the mark."""
        self._sums, self._weights = map(dict, self._marked)

    def log(self, step: int, **values: float | int | str | None) -> None:
        """Append one record; a value that is not finite is recorded as null."""
        finite = {name: _finite(value) for name, value in values.items()}
        self.records.append({"step": step, **finite})
        if self.events is not None:
            self.events.log(step=step, **finite)
            if self.total_steps is not None:
                self.events.progress(step, self.total_steps)

    def add(self, weight: float, **values: float) -> None:
        """Collect ``values`` with ``weight`` (the number of examples they are means over)."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + weight * value
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def means(self) -> dict[str, float]:
        """Return the weighted means of what was collected since the last call."""
        means = {name: total / self._weights[name] for name, total in self._sums.items() if self._weights[name]}
        self._sums, self._weights = {}, {}
        return means

    def bring_together(self) -> None:
        """Give what all processes have collected to the main one; the others start anew."""
        parts = gathered((self._sums, self._weights))
        if len(parts) > 1:
            own = parts if is_main() else []
            self._sums = _added([sums for sums, _ in own])
            self._weights = _added([weights for _, weights in own])

    @property
    def empty(self) -> bool:
        """Whether nothing was logged or collected yet."""
        return not self.records and not self._sums

    @property
    def last(self) -> dict[str, Any]:
        """The newest record, or an empty one."""
        return self.records[-1] if self.records else {}

    def state(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {"records": self.records, "sums": self._sums, "weights": self._weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what ``state()`` returned; nothing is forwarded to the events a second time."""
        self.records = [dict(record) for record in state["records"]]
        self._sums = dict(state["sums"])
        self._weights = dict(state["weights"])

    def save(self, checkpoint: Path) -> None:
        """Write the state into a checkpoint folder."""
        write_json(checkpoint / FILE, self.state())

    def load(self, checkpoint: Path) -> None:
        """Restore the state from a checkpoint folder."""
        self.restore(read_json(checkpoint / FILE))
        if not is_main():  # what was collected counts once
            self._sums, self._weights = {}, {}

    def write(self, path: Path) -> None:
        """Write the records as JSON lines (``history.jsonl``), step first, then by name."""
        ordered = [{"step": record["step"], **dict(sorted(record.items()))} for record in self.records]
        lines = [json.dumps(record, allow_nan=False) + "\n" for record in ordered]
        path.write_text("".join(lines), encoding="utf-8")


def _added(parts: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}


def _finite(value: float | int | str | None) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
