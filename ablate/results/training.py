"""What stages logged as they trained."""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any, TypeAlias

from ablate.errors import suggestion
from ablate.results.long import Results

HISTORY = "history.jsonl"
LAST = 0.1
"""Share of a training's steps, the last ones, that what it logged in the end is the mean over."""

Records: TypeAlias = list[dict[str, Any]]


def read_history(results: Results, stage: str) -> Records:
    """Return what a stage logged as it trained; nothing while it isn't done, or where it logs nothing."""
    folder = results.store.stage(stage)
    path = folder.artifact(HISTORY)
    if not folder.is_done() or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def logged_last(results: Results, stage: str, name: str) -> tuple[float | None, list[str]]:
    """Return the mean of a field over the last tenth of a stage's steps, or None and why there is none."""
    records = read_history(results, stage)
    found = [(int(record["step"]), float(record[name])) for record in records if record.get(name) is not None]
    if not found:
        known = {key for record in records for key, value in record.items() if isinstance(value, int | float)}
        return None, [f"training logged no {name!r} ({suggestion(name, known - {'step'})})"]
    begin = (1 - LAST) * found[-1][0]
    return fmean(value for step, value in found if step > begin), []
