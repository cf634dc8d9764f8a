"""What a run shows: a live tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.execution.runner import Outcome
from ablate.plan.stage import Stage
from ablate.store import Store


class PlainDisplay:
    """One line a stage that ends: for logs and pipes."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.ended_count = console, total, 0

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def started(self, stage: Stage) -> None:
        """Nothing is printed: the end says it all."""

    def waiting(self, stage: Stage) -> None:
        """Nothing is printed: the result will come."""

    def tick(self) -> None:
        """Nothing moves."""

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        """Print what ended and how."""
        if outcome.status == "blocked":
            self.total -= 1  # the failure that blocks it has a line of its own
            return
        self.ended_count += 1
        line = f"[{self.ended_count}/{self.total}] {outcome.status:<7} {stage.kind:<18} {stage.execution.label}"
        note = f": {outcome.message}" if outcome.message else ""
        self.console.print(f"{line} ({outcome.seconds:.1f} s){note}", markup=False, highlight=False, soft_wrap=True)


class LiveDisplay:
    """A table of kinds with their counts, and what runs now with its progress; failures stay above it."""

    def __init__(self, console: Console, store: Store, stages: Mapping[str, Stage]) -> None:
        self.console, self.store = console, store
        self.total = Counter(stage.kind for stage in stages.values())
        self.done: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self.running: dict[str, tuple[Stage, float]] = {}
        self.begun = time.monotonic()
        self.refreshed = 0.0
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveDisplay:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def started(self, stage: Stage) -> None:
        """Show the stage as running."""
        self.running[stage.id] = (stage, time.monotonic())

    def waiting(self, stage: Stage) -> None:
        """Show that another process runs it."""
        self.running.pop(stage.id, None)

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        """Count it; a failure is printed for good."""
        self.running.pop(stage.id, None)
        (self.done if outcome.status == "done" else self.bad)[stage.kind] += 1
        if outcome.status == "failed":
            self.console.print(Text.assemble(("failed ", "red"), f"{stage.execution.label}: {outcome.message}"))

    def tick(self) -> None:
        """Redraw, four times a second."""
        now = time.monotonic()
        if now - self.refreshed > 0.25:
            self.refreshed = now
            self.live.update(self._table(now), refresh=True)

    def _table(self, now: float) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for kind, total in self.total.items():
            count = Text(f"{self.done[kind]}/{total}", style="green" if self.done[kind] == total else "")
            if self.bad[kind]:
                count.append(f"  {self.bad[kind]} not made", style="red")
            table.add_row(kind, count, "")
            for stage, since in list(self.running.values()):
                if stage.kind == kind:
                    table.add_row(Text(f"  └ {stage.execution.label}"), self._progress(stage), f"{now - since:.0f} s")
        table.add_row(
            Text(f"{sum(self.done.values())}/{sum(self.total.values())} stages", style="bold"),
            "",
            f"{now - self.begun:.0f} s",
        )
        return table

    def _progress(self, stage: Stage) -> str:
        attempts = self.store.stage(stage.id).attempts()
        event = last_event(attempts[-1].events) if attempts else None
        return describe_event(event) if event else ""


def describe_event(event: Mapping[str, Any]) -> str:
    """Return an event in words: its progress, or its step with loss, score and KL."""
    if "progress" in event:
        return f"{event['progress']}/{event['total']} {event['unit']}"
    if "micro_batch" in event:
        return f"{event['micro_batch']} examples in a pass"
    names = [name for name in ("loss", "score", "kl") if isinstance(event.get(name), int | float)]
    return "  ".join([f"step {event.get('step')}", *(f"{name} {event[name]:.3g}" for name in names)])


def last_event(path: Path) -> dict[str, object] | None:
    """Return the last whole line of an events file; None when there is none."""
    try:
        with path.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - 4096))
            lines = handle.read().split(b"\n")
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            return event
    return None
