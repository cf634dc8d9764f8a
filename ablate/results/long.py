"""The long table: every number of an experiment with what it was measured on, and what is missing and why."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from ablate.context import read_json
from ablate.liveness import stage_state
from ablate.results.cost import Cost
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
    axes of the model under a policy, where a chain makes them others than its own. ``tuned`` says of a cell that is
    tuned its group's number, the values found (``values``), and why there are none yet (``waits``).
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
    tuned: Mapping[str, Any] = field(default_factory=dict)

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
    cost: Cost = field(default_factory=Cost)

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
    """An experiment's results as read from its store at one moment; ``made``: what subjects that are done took."""

    store: Store
    experiment: str
    plan: Mapping[str, Any]
    subjects: tuple[Subject, ...]
    evaluations: Mapping[str, Evaluation]
    missing: tuple[Missing, ...]
    made: Mapping[str, Cost] = field(default_factory=dict)

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
            gap = self.suites.get(suite, {}).get("gap")
            return str(gap or subject.tuned.get("waits") or "not evaluated")
        evaluation = self.evaluation(subject, suite)
        if evaluation is not None:
            return evaluation.reason
        stage = subject.evaluations[suite]
        return next((item.reason for item in self.missing if item.stage == stage), "not run")

    def table(self) -> pd.DataFrame:
        """Return the long table as a data frame, see :meth:`arrow`; integers are nullable (``Int64``)."""
        return data_frame(self.arrow())

    def arrow(self) -> pa.Table:
        """Return the long table: one row for each suite score and each (suite, task, metric) of each subject.

        Columns: experiment, subject, role, label, ``axis.<key>`` for every axis and every key that is tuned, suite,
        category, task, metric, value, n, stderr, unit, protocol (fingerprint of the resolved one), stage (which
        measured), subject_stage (which made the model), seconds and gpu_hours of the first, subject_seconds and
        subject_gpu_hours of the second, ``health.<field>``. The suite's score has an empty task and the metric
        ``score``. Missing cells have no row: see ``missing``. A column has one type; one whose values have several is
        text.
        """
        return _long_table(self)


def collect(store: Store, experiment: str) -> Results:
    """Read the plan of ``experiment`` and the stages it names; nothing else of the store is read.

    Raises :class:`ablate.errors.UnknownNameError` when the experiment was never planned in this store, and
    :class:`ablate.errors.StoreError` when the store has a newer layout.
    """
    store.check()
    return collect_plan(store, experiment, store.experiment(experiment).read_plan())


def collect_plan(store: Store, experiment: str, plan: Mapping[str, Any]) -> Results:
    """Read the stages that a plan of ``experiment`` names, which need not be the plan in the store."""
    subjects = tuple(_subject(entry) for entry in plan["subjects"])
    ids = dict.fromkeys(stage for subject in subjects for stage in subject.evaluations.values())
    evaluations = {stage: found for stage in ids if (found := _read_evaluation(store.stage(stage))) is not None}
    made = {stage: Cost.of(store.stage(stage).read_done()) for stage in {subject.stage for subject in subjects}}
    missing = tuple(_missing(store, subjects, evaluations))
    return Results(store, experiment, plan, subjects, evaluations, missing, made)


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
        tuned=dict(entry.get("tuned") or {}),
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
        cost=Cost.of(done),
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


_MEASURED = (
    ("suite", pa.string()), ("category", pa.string()), ("task", pa.string()), ("metric", pa.string()),
    ("value", pa.float64()), ("n", pa.int64()), ("stderr", pa.float64()), ("unit", pa.string()),
)  # fmt: skip


def _long_table(results: Results) -> pa.Table:
    """Columns of subjects and of evaluations are made once for each of these, and repeated by index."""
    subject_R: list[int] = []
    evaluation_R: list[int] = []
    measured_R: list[tuple[Any, ...]] = []
    numbers = {stage: index for index, stage in enumerate(results.evaluations)}
    rows: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for index, subject in enumerate(results.subjects):
        for suite, stage in subject.evaluations.items():
            found = results.evaluations.get(stage)
            if found is None:
                continue
            if (stage, suite) not in rows:
                rows[stage, suite] = _measured_rows(found, suite, results.suites.get(suite, {}))
            measured = rows[stage, suite]
            measured_R += measured
            subject_R += [index] * len(measured)
            evaluation_R += [numbers[stage]] * len(measured)
    columns = _repeated(_subject_columns(results), subject_R)
    values = zip(*measured_R, strict=True) if measured_R else [()] * len(_MEASURED)
    columns |= {name: _typed(column, kind) for (name, kind), column in zip(_MEASURED, values, strict=True)}
    columns |= _repeated(_evaluation_columns(results), evaluation_R)
    columns |= _repeated(_made_columns(results), subject_R)
    columns |= _repeated(_health_columns(results), evaluation_R)
    return pa.table(columns)


def _subject_columns(results: Results) -> dict[str, pa.Array]:
    subjects = results.subjects
    values = [{**subject.axes, **subject.tuned.get("values", {})} for subject in subjects]
    axes = dict.fromkeys(key for own in values for key in own)
    return {
        "experiment": pa.array([results.experiment] * len(subjects), pa.string()),
        "subject": pa.array([subject.subject for subject in subjects], pa.string()),
        "role": pa.array([subject.role for subject in subjects], pa.string()),
        "label": pa.array([subject.label for subject in subjects], pa.string()),
        **{f"axis.{key}": _typed([own.get(key) for own in values]) for key in axes},
    }


def _evaluation_columns(results: Results) -> dict[str, pa.Array]:
    found = results.evaluations.values()
    return {
        "protocol": pa.array([item.protocol_digest for item in found], pa.string()),
        "stage": pa.array([item.stage for item in found], pa.string()),
        "seconds": pa.array([item.cost.seconds for item in found], pa.float64()),
        "gpu_hours": pa.array([item.cost.gpu_hours for item in found], pa.float64()),
    }


def _made_columns(results: Results) -> dict[str, pa.Array]:
    costs = [results.made.get(subject.stage, Cost()) for subject in results.subjects]
    return {
        "subject_stage": pa.array([subject.stage for subject in results.subjects], pa.string()),
        "subject_seconds": pa.array([cost.seconds for cost in costs], pa.float64()),
        "subject_gpu_hours": pa.array([cost.gpu_hours for cost in costs], pa.float64()),
    }


def _health_columns(results: Results) -> dict[str, pa.Array]:
    found = results.evaluations.values()
    names = dict.fromkeys(key for item in found for key in item.health)
    return {f"health.{key}": _typed([item.health.get(key) for item in found]) for key in names}


def _repeated(columns: Mapping[str, pa.Array], index_R: list[int]) -> dict[str, pa.Array]:
    index = pa.array(index_R, pa.int64())
    return {name: column.take(index) for name, column in columns.items()}


def _typed(values: Iterable[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Return a column of this type, or of the one that its values share; text where they share none."""
    items = list(values)
    with suppress(pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        column = pa.array(items, kind)
        if column.type in _TYPES:
            return column
    return pa.array([None if item is None else _text(item) for item in items], pa.string())


_TYPES = (pa.string(), pa.int64(), pa.float64(), pa.bool_())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def data_frame(table: pa.Table) -> pd.DataFrame:
    """Return a long table as a data frame whose types do not depend on where it has gaps."""
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get)
    return frame


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
