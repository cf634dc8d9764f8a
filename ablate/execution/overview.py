"""How an experiment stands at a glance: its stages by kind, what runs, and when it may end."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ablate.execution.study import StageStatus

STYLES = {"done": "green", "running": "cyan", "failed": "red", "blocked": "red", "interrupted": "yellow"}
RUNNING_SHOWN = 12
GOES_ON = frozenset({"running", "queued", "unknown"})
"""States of a stage that goes on, or will, without anybody's doing."""
TO_GO = GOES_ON | {"waiting"}
"""States of a stage that a run at work has before it; on this machine what is not begun waits."""


def overview(name: str, lines: Sequence[StageStatus]) -> RenderableType:
    """Return a table of kinds with their counts, what runs now, and the expected end."""
    table = Table(box=None, pad_edge=False, show_header=False)
    kinds: dict[str, list[StageStatus]] = {}
    for line in lines:
        kinds.setdefault(line.kind, []).append(line)
    for kind, own in kinds.items():
        counts = Counter(line.status for line in own)
        rest = [f"{count} {word}" for word, count in counts.items() if word != "done"]
        style = "green" if counts["done"] == len(own) else ""
        table.add_row(kind, Text(f"{counts['done']}/{len(own)}", style=style), ", ".join(rest))
    running = [line for line in lines if line.status == "running"]
    for line in running[:RUNNING_SHOWN]:
        table.add_row(Text(f"  └ {line.label}"), "", Text(line.note))
    if len(running) > RUNNING_SHOWN:
        table.add_row(f"  └ and {len(running) - RUNNING_SHOWN} more", "", "")
    done = sum(line.status == "done" for line in lines)
    left = seconds_left(lines)
    end = f"about {in_words(left)} left" if left else ""
    return Group(Text(name, style="bold"), table, Text(f"{done}/{len(lines)} stages  {end}", style="bold"))


def seconds_left(lines: Sequence[StageStatus]) -> float | None:
    """Return the seconds to go if as many stages as now run at a time, each as long as its kind's median.

    None where nothing runs, or a kind that is to run was never done here.
    """
    seconds: dict[str, list[float]] = {}
    for line in lines:
        if line.seconds is not None:
            seconds.setdefault(line.kind, []).append(line.seconds)
    waiting = [line.kind for line in lines if line.status in TO_GO]
    workers = sum(line.status == "running" for line in lines)
    if not workers or any(kind not in seconds for kind in waiting):
        return None
    return sum(statistics.median(seconds[kind]) for kind in waiting) / workers


def in_words(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def standing_code(lines: Sequence[StageStatus]) -> int:
    """Return an exit code for scripts: 0 all done, 3 something still goes on, 1 nothing does and not all is done."""
    if all(line.status == "done" for line in lines):
        return 0
    return 3 if any(line.status in GOES_ON for line in lines) else 1
