"""The long table: every number of an experiment with what it was measured on, and what is missing and why."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ablate.context import read_json
from ablate.liveness import stage_state
from ablate.results.layout import baseline_name
from ablate.store import StageFolder, Store

SCORE = "score"
"""Metric name of the rows that hold a suite's score; their task is the empty string."""

OVERALL = "overall"
"""Task name of the metrics that are taken over all tasks of a suite."""


@dataclass(frozen=True)
class Subject:
    """One model of the experiment: a grid cell, a baseline, or a reward model. ``axes`` are flat; unread ones null.

    ``baseline`` is a baseline's name (``base``, ``sft``), which those of several policies or seeds share; ``start`` are
    axes of the model under a policy, where a chain makes them others than its own.
    """

    subject: str
    role: str
    label: str
    axes: Mapping[str, Any]
    stage: str
    evaluations: Mapping[str, str]
    inputs: Mapping[str, str | None] = field(default_factory=dict)
    baseline: str = ""
    start: Mapping[str, Any] = field(default_factory=dict)

    @property
    def start_axes(self) -> Mapping[str, Any]:
        """The axes, with those of the model under a policy that was made here in their place."""
        return {**self.axes, **self.start}


@dataclass(frozen=True)
class Evaluation:
    """What one evaluate stage published; ``score`` is null where it is undefined (``reason`` says why)."""

    stage: str
    score: float | None
    metrics: tuple[Mapping[str, Any], ...]
    health: Mapping[str, Any]
    protocol: Mapping[str, Any]
    seconds: float | None

    @property
    def reason(self) -> str:
        """Why the score is null."""
        return str(self.health.get("reason") or "undefined for these responses")

    @property
    def protocol_digest(self) -> str:
        """Twelve hex digits, equal for equal resolved protocols."""
        text = json.dumps(self.protocol, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Missing:
    """A number that is not there: of which subject and suite, and why (``failed: …``, ``running``, ``not run``)."""

    subject: str
    label: str
    suite: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Results:
    """An experiment's results as read from its store at one moment."""

    store: Store
    experiment: str
    plan: Mapping[str, Any]
    subjects: tuple[Subject, ...]
    evaluations: Mapping[str, Evaluation]
    missing: tuple[Missing, ...]

    @property
    def suites(self) -> Mapping[str, Mapping[str, Any]]:
        """Title, category, subject, primary metric and unit of every suite, by name."""
        suites: Mapping[str, Mapping[str, Any]] = self.plan.get("suites", {})
        return suites

    def evaluation(self, subject: Subject, suite: str) -> Evaluation | None:
        """Return what ``suite`` measured on ``subject``, or None while there is nothing."""
        return self.evaluations.get(subject.evaluations.get(suite, ""))

    def reason(self, subject: Subject, suite: str) -> str:
        """Why there is no score of ``suite`` for ``subject``."""
        if suite not in subject.evaluations:
            return "not evaluated"
        evaluation = self.evaluation(subject, suite)
        if evaluation is not None:
            return evaluation.reason
        stage = subject.evaluations[suite]
        return next((item.reason for item in self.missing if item.stage == stage), "not run")

    def table(self) -> pd.DataFrame:
        """Return the long table: one row for each suite score and each (suite, task, metric) of each subject.

        Columns: experiment, subject, role, label, ``axis.<key>`` for every axis, suite, category, task, metric,
        value, n, stderr, unit, protocol, stage, subject_stage, seconds, ``health.<field>``. The suite's score has
        an empty task and the metric ``score``. Missing cells have no row: see ``missing``.
        """
        return _long_table(self)


def collect(store: Store, experiment: str) -> Results:
    """Read the plan of ``experiment`` and the stages it names; nothing else of the store is read.

    Raises :class:`ablate.errors.UnknownNameError` when the experiment was never planned in this store, and
    :class:`ablate.errors.StoreError` when the store has a newer layout.
    """
    store.check()
    plan = store.experiment(experiment).read_plan()
    subjects = tuple(_subject(entry) for entry in plan["subjects"])
    ids = dict.fromkeys(stage for subject in subjects for stage in subject.evaluations.values())
    evaluations = {stage: found for stage in ids if (found := _read_evaluation(store.stage(stage))) is not None}
    return Results(store, experiment, plan, subjects, evaluations, tuple(_missing(store, subjects, evaluations)))


def _subject(entry: Mapping[str, Any]) -> Subject:
    return Subject(
        subject=entry["subject"],
        role=entry["role"],
        label=entry["label"],
        axes=dict(entry.get("axes") or {}),
        stage=entry["stage"],
        evaluations=dict(entry.get("evaluations") or {}),
        inputs=dict(entry.get("inputs") or {}),
        baseline=baseline_name(entry),
        start=dict(entry.get("start") or {}),
    )


def _read_evaluation(folder: StageFolder) -> Evaluation | None:
    done = folder.read_done()
    if done is None:
        return None
    metrics = read_json(folder.artifact("metrics.json"))
    score = metrics.get("score")
    return Evaluation(
        stage=folder.id,
        score=None if score is None or not math.isfinite(score) else float(score),
        metrics=tuple(metrics.get("metrics") or ()),
        health=metrics.get("health") or {},
        protocol=metrics.get("protocol") or {},
        seconds=done.get("seconds"),
    )


def _missing(store: Store, subjects: Iterable[Subject], evaluations: Mapping[str, Evaluation]) -> Iterable[Missing]:
    causes: dict[str, str] = {}
    for subject in subjects:
        for suite, stage in subject.evaluations.items():
            if stage in evaluations:
                continue
            roots = (stage, subject.stage, *(value for value in subject.inputs.values() if value))
            reason = _first_cause(store, roots, causes)
            yield Missing(subject.subject, subject.label, suite, stage, reason)


def reason_not_done(store: Store, stage: str) -> str:
    """Return why a stage has no result yet: ``failed: …``, ``running``, ``interrupted`` or ``not run``."""
    return _first_cause(store, (stage,), {})


def _first_cause(store: Store, roots: Iterable[str], causes: dict[str, str]) -> str:
    """Why the first of ``roots`` has no result: a failure anywhere upstream outranks ``running``, then ``not run``."""
    found = [_cause(store, stage, causes) for stage in roots]
    for prefix in ("failed", "interrupted", "running"):
        for reason in found:
            if reason.startswith(prefix):
                return reason
    return "not run"


def _cause(store: Store, stage: str, causes: dict[str, str]) -> str:
    if stage not in causes:
        causes[stage] = "not run"  # stops a walk around a (wrong) cycle
        folder = store.stage(stage)
        own = _own_state(folder)
        if own == "not run" and folder.stage_json.exists():
            inputs = [entry["stage"] for entry in folder.read_stage().get("inputs", {}).values()]
            own = _first_cause(store, inputs, causes)
        causes[stage] = own
    return causes[stage]


def _own_state(folder: StageFolder) -> str:
    state = stage_state(folder)
    if state.status == "failed":
        first_line = state.reason.strip().partition("\n")[0]
        return f"failed: {folder.kind}: {first_line}"
    return "not run" if state.status == "waiting" else state.status


_FIXED = ("experiment", "subject", "role", "label")
_MEASURED = ("suite", "category", "task", "metric", "value", "n", "stderr", "unit")
_ORIGIN = ("protocol", "stage", "subject_stage", "seconds")


def _long_table(results: Results) -> pd.DataFrame:
    axes = list(dict.fromkeys(key for subject in results.subjects for key in subject.axes))
    health = list(dict.fromkeys(key for found in results.evaluations.values() for key in found.health))
    names = [*_FIXED, *(f"axis.{key}" for key in axes), *_MEASURED, *_ORIGIN, *(f"health.{key}" for key in health)]
    rows: list[tuple[Any, ...]] = []
    measured: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for subject in results.subjects:
        head = (
            results.experiment, subject.subject, subject.role, subject.label,
            *(subject.axes.get(key) for key in axes),
        )  # fmt: skip
        for suite, stage in subject.evaluations.items():
            found = results.evaluations.get(stage)
            if found is None:
                continue
            if (stage, suite) not in measured:
                measured[stage, suite] = _measured_rows(found, suite, results.suites.get(suite, {}))
            tail = (
                found.protocol_digest, stage, subject.stage, found.seconds,
                *(found.health.get(key) for key in health),
            )  # fmt: skip
            rows.extend((*head, *values, *tail) for values in measured[stage, suite])
    return pd.DataFrame.from_records(rows, columns=names)


def _measured_rows(found: Evaluation, suite: str, about: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    category, unit = about.get("category"), about.get("unit")
    primary = primary_metric(found, str(about.get("primary", "")))
    rows: list[tuple[Any, ...]] = []
    if found.score is not None:
        n = primary.get("n") if primary else found.health.get("n")
        rows.append((suite, category, "", SCORE, found.score, n, primary.get("stderr") if primary else None, unit))
    for metric in found.metrics:
        if metric.get("value") is not None:
            rows.append((
                suite, category, metric.get("task"), metric["metric"], metric["value"],
                metric.get("n"), metric.get("stderr"), metric.get("unit"),
            ))  # fmt: skip
    return rows


def primary_metric(found: Evaluation, primary: str) -> Mapping[str, Any] | None:
    """Return the metric entry that is the suite's score (``metric`` or ``task/metric``), or None without one."""
    task, _, name = primary.rpartition("/")
    return find_metric(found, name, task or None)


def find_metric(found: Evaluation, metric: str, task: str | None) -> Mapping[str, Any] | None:
    """Return the entry of a metric of one task; without a task that over all tasks, or the only one there is."""
    entries = [entry for entry in found.metrics if entry["metric"] == metric]
    wanted = [entry for entry in entries if entry.get("task") == (task or OVERALL)]
    if not wanted and task is None and len(entries) == 1:
        return entries[0]
    return wanted[0] if wanted else None
