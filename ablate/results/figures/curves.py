"""Learning curves of on-policy methods, read from their stages: means and spreads over runs, and offline levels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ablate.errors import UsageError, suggestion
from ablate.results.layout import CurveLayout, TableLayout
from ablate.results.layout.figures import FrontLayout, TrainingLayout
from ablate.results.long import Results, Subject, reason_not_done
from ablate.results.statistics.paired import mean_sd
from ablate.results.tables.rows import Group, baseline_groups, cell_groups, run_words
from ablate.results.training import Records, read_history


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
    """Everything in one figure of curves, in the table's order; ``remarks`` say what is not all there, and why."""

    curves: tuple[Curve, ...]
    levels: tuple[Level, ...]
    remarks: tuple[str, ...] = ()


def read_curves(results: Results, layout: CurveLayout, table: TableLayout) -> Curves:
    """Return the curves of a table's rows from the stages that are done.

    A run has a curve when its history counts the policy's samples and has a ``y``; a row without such a run is a level
    at the suite's score. Raises UsageError for a ``y`` that no history has.
    """
    curves, levels, remarks, known = [], [], [], dict[str, None]()
    for group in (*baseline_groups(results, table), *cell_groups(results, table)):
        histories = {key: _rollout_history(results, run) for key, run in group.members.items()}
        known |= dict.fromkeys(name for found in histories.values() for record in found or () for name in record)
        runs = {key: own for key, found in histories.items() if (own := _with_y(layout, found))}
        end = _score(results, layout, group)
        if runs:
            curves.append(_curve(results, layout, group, list(runs.values()), end))
            absent = _absent(results, layout, table, group, runs)
        else:
            levels += [Level(row_label(group), end, group.is_baseline)] if end is not None else []
            absent = _unscored(results, layout, table, group)
            if any(histories.values()):
                absent = [f"no {layout.y!r} in its training curves", *absent]
        remarks += [f"{row_label(group)}: {'; '.join(absent)}."] if absent else []
    if known and layout.y not in known:
        raise UsageError(
            f"figure {layout.name!r}: no training curve has {layout.y!r}", hint=suggestion(layout.y, known)
        )
    return Curves(tuple(curves), tuple(levels), tuple(remarks))


def _with_y(layout: CurveLayout, records: Records | None) -> Records:
    return [record for record in records or () if record.get(layout.y) is not None]


def _absent(
    results: Results, layout: CurveLayout, table: TableLayout, group: Group, runs: Collection[tuple[Any, ...]]
) -> list[str]:
    """Say over how many runs a curve is the mean, where that is not all of them, and what the others lack."""
    reasons = {}
    for key, subject in group.members.items():
        if key not in runs:
            is_done = results.store.stage(subject.stage).is_done()
            reasons[key] = f"no {layout.y!r} in its curve" if is_done else reason_not_done(results.store, subject.stage)
    return _mean_over(table, group, reasons)


def _unscored(results: Results, layout: CurveLayout, table: TableLayout, group: Group) -> list[str]:
    """Say over how many runs a level is the mean, where that is not all of them, and why the others have no score."""
    if layout.suite is None:
        return []
    found = {key: results.evaluation(subject, layout.suite) for key, subject in group.members.items()}
    absent = [key for key, own in found.items() if own is None or own.score is None]
    return _mean_over(table, group, {key: results.reason(group.members[key], layout.suite) for key in absent})


def _mean_over(table: TableLayout, group: Group, reasons: Mapping[tuple[Any, ...], str]) -> list[str]:
    words = [": ".join(filter(None, (run_words(table, key), reason))) for key, reason in reasons.items()]
    runs = len(group.members)
    return [f"mean over {runs - len(words)} of {runs} runs ({'; '.join(words)})"] if words else []


def _curve(results: Results, layout: CurveLayout, group: Group, runs: Sequence[Records], end: float | None) -> Curve:
    curve = mean_curve(row_label(group), runs, "step" if layout.x == "steps" else layout.x, layout.y, end)
    if layout.x != "labels":
        return curve
    before = float(np.mean([_labels_before(results, subject) for subject in group.members.values()]))
    return replace(curve, x=tuple(x + before for x in curve.x))


def mean_curve(label: str, runs: Sequence[Records], x: str, y: str, end: float | None = None) -> Curve:
    """Return the mean and spread of a row's runs at each record, as far as the shortest of them goes."""
    length = min(map(len, runs))
    x_SP = np.array([[record.get(x) or 0 for record in run[:length]] for run in runs], dtype=float)
    y_SP = np.array([[record[y] for record in run[:length]] for run in runs], dtype=float)
    sd = tuple(y_SP.std(axis=0, ddof=1).tolist()) if len(runs) > 1 else None
    return Curve(label, tuple(x_SP.mean(axis=0).tolist()), tuple(y_SP.mean(axis=0).tolist()), sd, end)


def _labels_before(results: Results, subject: Subject) -> int:
    """Return the labels that were spent before training: those its reward model learnt from."""
    stage = subject.inputs.get("reward_model")
    done = results.store.stage(stage).read_done() if stage else None
    summary: Mapping[str, Any] = (done or {}).get("summary") or {}
    return int(summary.get("labels", summary.get("pairs")) or 0)  # older stages count pairs alone


def _rollout_history(results: Results, subject: Subject) -> Records | None:
    """Return an on-policy run's records; None for other runs and for those that are not done."""
    records = read_history(results, subject.stage)
    return records if records and "samples" in records[0] else None


def read_training(results: Results, layout: TrainingLayout, table: TableLayout) -> dict[str, Curves]:
    """Return the curves of a table's cells for each ``y``, by step; raises UsageError for one that no history has."""
    groups = cell_groups(results, table)
    histories = [[read_history(results, run.stage) for run in group.members.values()] for group in groups]
    known = list(dict.fromkeys(key for runs in histories for run in runs for record in run for key in record))
    found = {}
    for y in layout.y:
        if known and y not in known:
            raise UsageError(f"figure {layout.name!r}: no training curve has {y!r}", hint=suggestion(y, known))
        curves = []
        for group, runs in zip(groups, histories, strict=True):
            with_y = [own for run in runs if (own := [record for record in run if record.get(y) is not None])]
            curves += [mean_curve(row_label(group), with_y, "step", y)] if with_y else []
        found[y] = Curves(tuple(curves), ())
    return found


def read_front(results: Results, layout: FrontLayout, table: TableLayout) -> Curves:
    """Return ``y`` over the KL from the reference for the rows that are trained on their own samples."""
    curves = []
    known: dict[str, None] = {}
    for group in cell_groups(results, table):
        runs = [found for run in group.members.values() if (found := _rollout_history(results, run))]
        known |= dict.fromkeys(key for run in runs for record in run for key in record)
        kept = [[item for item in run if item.get(layout.y) is not None and item.get("kl") is not None] for run in runs]
        kept = [run for run in kept if run]
        curves += [mean_curve(row_label(group), kept, "kl", layout.y)] if kept else []
    if known and layout.y not in known:
        raise UsageError(
            f"figure {layout.name!r}: no training curve has {layout.y!r}", hint=suggestion(layout.y, known)
        )
    return Curves(tuple(curves), ())


def _score(results: Results, layout: CurveLayout, group: Group) -> float | None:
    if layout.suite is None:
        return None
    found = [results.evaluation(subject, layout.suite) for subject in group.members.values()]
    scores = [item.score for item in found if item is not None and item.score is not None]
    return mean_sd(scores)[0] if scores else None


def row_label(group: Group) -> str:
    """Return a row's labels, as a legend has them."""
    return " ".join(filter(None, group.labels))
