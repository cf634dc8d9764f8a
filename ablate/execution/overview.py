"""How an experiment stands at a glance: its stages by kind, what runs, and when it may end."""

from __future__ import annotations

import statistics
import time
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


def overview(name: str, lines: Sequence[StageStatus], since: float) -> RenderableType:
    """Return a table of kinds with their counts, what runs now, the time since it was handed over and the expected end.

    ``since`` is when its last run began, in seconds since the epoch.
    """
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
    end = _end(lines, time.time() - since)
    return Group(Text(name, style="bold"), table, Text(f"{done}/{len(lines)} stages  {end}", style="bold"))


def _end(lines: Sequence[StageStatus], elapsed: float) -> str:
    if standing_code(lines) != 3:
        return ""
    left = seconds_left(lines)
    until = "" if left is None else f", about {in_words(left)} left (until {_clock(time.time() + left)})"
    return f"begun {in_words(elapsed)} ago{until}"


def _clock(when: float) -> str:
    """Return the time of day, with the day where it is another one."""
    day = "" if time.strftime("%x", time.localtime(when)) == time.strftime("%x") else "%a "
    return time.strftime(f"{day}%H:%M", time.localtime(when))


def counted(lines: Sequence[StageStatus]) -> str:
    """Return how many stages stand how: ``3 done, 2 running``."""
    return ", ".join(f"{count} {word}" for word, count in Counter(line.status for line in lines).items())


def listed(lines: Sequence[StageStatus], *, everything: bool) -> list[str]:
    """Return a line for each stage; unless ``everything`` is wanted, none for what is done or waits for its turn.

    What is queued on a cluster is then one line for each reason, however many stages have it.
    """
    shown = [line for line in lines if everything or line.status not in ("done", "waiting", "queued")]
    told = [f"  {line.status:<12}{line.id}  {line.label}  {line.note}" for line in shown]
    if not everything:
        reasons = Counter(line.note.partition(" (job ")[0] for line in lines if line.status == "queued")
        told += [
            f"  {'queued':<12}{count} stage{'s' * (count > 1)}: {reason}" for reason, count in reasons.most_common()
        ]
    return told


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
