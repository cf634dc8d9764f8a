"""Learning curves of on-policy methods, read from their stages: means and spreads over runs, and offline levels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.errors import UsageError, suggestion
from ablate.results.layout import CurveLayout, TableLayout
from ablate.results.long import Results, Subject
from ablate.results.rows import Group, baseline_groups, cell_groups
from ablate.results.statistics import mean_sd

HISTORY = "history.jsonl"
Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Curve:
    """One row's curve: x, mean and standard deviation over runs at each logged step (null with one run).

    ``end`` is the suite's score of the trained policies, in the middle of its runs.
    """

    label: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...] | None
    end: float | None


@dataclass(frozen=True)
class Level:
    """The suite's score of a row that has no curve: a method that learns from fixed data, or a baseline."""

    label: str
    value: float
    is_baseline: bool


@dataclass(frozen=True)
class Curves:
    """Everything in one figure of curves, in the table's order."""

    curves: tuple[Curve, ...]
    levels: tuple[Level, ...]


def read_curves(results: Results, layout: CurveLayout, table: TableLayout) -> Curves:
    """Return the curves of a table's rows from the stages that are done.

    A run has a curve when its history counts the policy's samples. Raises UsageError for a ``y`` that no history has.
    """
    curves, levels, known = [], [], dict[str, None]()
    for group in (*baseline_groups(results, table), *cell_groups(results, table)):
        histories = [found for run in group.members.values() if (found := _history(results, run)) is not None]
        known |= dict.fromkeys(name for records in histories for record in records for name in record)
        end = _score(results, layout, group)
        curve = _curve(results, layout, group, histories, end)
        if curve is not None:
            curves.append(curve)
        elif not histories and end is not None:
            levels.append(Level(_label(group), end, group.is_baseline))
    if known and layout.y not in known:
        raise UsageError(
            f"figure {layout.name!r}: no training curve has {layout.y!r}", hint=suggestion(layout.y, known)
        )
    return Curves(tuple(curves), tuple(levels))


def _curve(
    results: Results, layout: CurveLayout, group: Group, histories: Sequence[Records], end: float | None
) -> Curve | None:
    runs = [[record for record in records if record.get(layout.y) is not None] for records in histories]
    length = min((len(run) for run in runs), default=0)
    if not length:
        return None
    x_SP = np.array([_x(layout, run[:length]) for run in runs])
    if layout.x == "labels":
        x_SP = x_SP + float(np.mean([_labels_before(results, subject) for subject in group.members.values()]))
    y_SP = np.array([[record[layout.y] for record in run[:length]] for run in runs], dtype=float)
    sd = tuple(y_SP.std(axis=0, ddof=1).tolist()) if len(runs) > 1 else None
    return Curve(_label(group), tuple(x_SP.mean(axis=0).tolist()), tuple(y_SP.mean(axis=0).tolist()), sd, end)


def _x(layout: CurveLayout, run: Records) -> list[float]:
    key = "step" if layout.x == "steps" else layout.x
    return [float(record.get(key) or 0) for record in run]


def _labels_before(results: Results, subject: Subject) -> int:
    """Return the labels that were spent before training: those its reward model learnt from."""
    stage = subject.inputs.get("reward_model")
    done = results.store.stage(stage).read_done() if stage else None
    summary: Mapping[str, Any] = (done or {}).get("summary") or {}
    return int(summary.get("labels", summary.get("pairs")) or 0)  # older stages count pairs alone


def _history(results: Results, subject: Subject) -> Records | None:
    """Return an on-policy run's records; None for other runs and for those that are not done."""
    folder = results.store.stage(subject.stage)
    path = folder.artifact(HISTORY)
    if not folder.is_done() or not path.is_file():
        return None
    records: Records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return records if records and "samples" in records[0] else None


def _score(results: Results, layout: CurveLayout, group: Group) -> float | None:
    if layout.suite is None:
        return None
    found = [results.evaluation(subject, layout.suite) for subject in group.members.values()]
    scores = [item.score for item in found if item is not None and item.score is not None]
    return mean_sd(scores)[0] if scores else None


def _label(group: Group) -> str:
    return " ".join(filter(None, group.labels))
