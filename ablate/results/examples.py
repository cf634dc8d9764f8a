"""Per-example values of an evaluation, and how those of two models are paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as parquet

from ablate.results.long import OVERALL, Evaluation, Results, Subject, find_metric
from ablate.results.statistics.paired import PairedSuite
from ablate.results.statistics.permutation import Floats

Columns: TypeAlias = dict[str, npt.NDArray[Any]]
"""Columns of ``examples.parquet``, by name."""


_COLUMNS = ["example", "task", "metric", "value", "cluster"]


@dataclass(frozen=True)
class Measure:
    """What a number measures: a suite's score, or one metric of a suite (over all its tasks, or of one)."""

    suite: str
    metric: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class Examples:
    """Values of one measure of one stage: an entry for each example, samples averaged, in the order of ``key_E``.

    ``value_E`` is NaN where undefined; ``weight_E`` is what makes the measure's number their weighted mean.
    ``protocol`` is the digest of the protocol they were measured under.
    """

    key_E: npt.NDArray[np.object_]
    value_E: Floats
    weight_E: Floats
    cluster_E: npt.NDArray[np.object_]
    protocol: str


class ExampleReader:
    """Reads ``examples.parquet`` of one experiment's evaluate stages, each once."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._tables: dict[str, Columns | None] = {}
        self._examples: dict[tuple[str, str, str | None], Examples | str] = {}

    def read(self, subjects: Sequence[Subject], measure: Measure) -> list[Examples] | str:
        """Return every subject's examples of a measure, or in words why they can't be compared.

        All subjects have a value of it, which is the weighted mean of their examples.
        """
        task, metric = self._metric(measure)
        read: list[Examples] = []
        for subject in subjects:
            evaluation = self._results.evaluation(subject, measure.suite)
            value = measure_value(self._results, subject, measure)
            assert evaluation is not None and value is not None  # complete runs only
            key = (evaluation.stage, metric, task)
            if key not in self._examples:
                self._examples[key] = self._read(evaluation, value, metric, task)
            examples = self._examples[key]
            if isinstance(examples, str):
                return examples
            read.append(examples)
        return unlike(read) or read

    def _metric(self, measure: Measure) -> tuple[str | None, str]:
        """The task (None: all) and the metric that a measure reads; without a metric those of the suite's score."""
        task, metric = measure.task or "", measure.metric
        if metric is None:
            task, _, metric = str(self._results.suites[measure.suite]["primary"]).rpartition("/")
        return (None if task in ("", OVERALL) else task), metric

    def _read(self, evaluation: Evaluation, value: float, metric: str, task: str | None) -> Examples | str:
        weights = (find_metric(evaluation, metric, task) or {}).get("weights")
        columns = self._columns(evaluation.stage)
        if columns is None:
            return "no per-example values"
        rows = _refusal_f1_rows(columns) if metric == "refusal_f1" else _rows(columns, metric)
        tasks = list(weights) if weights else [task] if task is not None else None
        if tasks is not None:
            rows = {name: column[np.isin(rows["task"].astype(str), tasks)] for name, column in rows.items()}
        task_R, example_R = rows["task"], rows["example"]
        if not task_R.size:
            return "no per-example values of this metric"
        keys = [f"{name}\x1f{example}" for name, example in zip(task_R, example_R, strict=True)]
        key_R = np.array(keys, dtype=object)
        key_E, first_E, index_R = np.unique(key_R, return_index=True, return_inverse=True)
        value_E = _mean_of_defined(rows["value"], index_R, key_E.size)
        cluster_R = rows["cluster"]
        cluster_E = np.array(
            [key if name is None else name for key, name in zip(key_E, cluster_R[first_E], strict=True)], dtype=object
        )
        weight_E = _weights(value_E, task_R[first_E], value, weights)
        if weight_E is None:
            return "the score is no mean over examples"
        return Examples(key_E, value_E, weight_E, cluster_E, evaluation.protocol_digest)

    def _columns(self, stage: str) -> Columns | None:
        if stage not in self._tables:
            path = self._results.store.stage(stage).artifact("examples.parquet")
            table = parquet.read_table(path, columns=_COLUMNS) if path.exists() else None
            self._tables[stage] = None if table is None else {
                name: table.column(name).to_numpy(zero_copy_only=False) for name in _COLUMNS
            }  # fmt: skip
        return self._tables[stage]


def measure_value(results: Results, subject: Subject, measure: Measure) -> float | None:
    """Return the value of ``measure`` for one subject, or None while it is missing or undefined."""
    found = results.evaluation(subject, measure.suite)
    if found is None or measure.metric is None:
        return found.score if found else None
    entry = find_metric(found, measure.metric, measure.task)
    return None if entry is None or entry.get("value") is None else float(entry["value"])


def unlike(examples: Sequence[Examples]) -> str:
    """Say why examples of a measure can't be compared with one another; empty where they can."""
    if len({one.protocol for one in examples}) > 1:
        return "measured under different protocols"
    if any(not np.array_equal(one.key_E, examples[0].key_E) for one in examples):
        return "not the same examples"
    return ""


def _rows(columns: Columns, metric: str) -> Columns:
    chosen = columns["metric"] == metric
    return {name: column[chosen] for name, column in columns.items()}


def _refusal_f1_rows(columns: Columns) -> Columns:
    """Return rows whose mean is the F1 of refusing, linearised: ``f + (2 hit - f (refused + unsafe)) / mean(...)``.

    F1 is a ratio of two means over examples: a row is what it adds to f to first order (delta method). Whether a prompt
    is unsafe is read off the two stored metrics: a refusal is right exactly there. No rows where f is undefined.
    """
    refusal, accuracy = _rows(columns, "refusal"), _rows(columns, "accuracy")
    if not np.array_equal(refusal["example"], accuracy["example"]):
        return _rows(columns, "refusal_f1")
    refused_R = refusal["value"].astype(np.float64)
    unsafe_R = np.where(accuracy["value"] == 1.0, refused_R, 1.0 - refused_R)
    hits_R, total_R = 2.0 * refused_R * unsafe_R, refused_R + unsafe_R
    if total_R.sum() == 0:
        return _rows(columns, "refusal_f1")
    score = hits_R.sum() / total_R.sum()
    return {**refusal, "value": score + (hits_R - score * total_R) / total_R.mean()}


def _mean_of_defined(value_R: npt.NDArray[Any], index_R: npt.NDArray[np.int64], count: int) -> Floats:
    """Mean over the samples of each example; undefined samples are left out, an example without any is NaN."""
    numbers = value_R.astype(np.float64)
    defined = ~np.isnan(numbers)
    totals = np.bincount(index_R[defined], weights=numbers[defined], minlength=count)
    counts = np.bincount(index_R[defined], minlength=count)
    means: Floats = np.divide(totals, counts, out=np.full(count, np.nan), where=counts > 0)
    return means


def _weights(
    value_E: Floats, task_E: npt.NDArray[Any], value: float, of_tasks: Mapping[str, float] | None
) -> Floats | None:
    """Weights under which the mean is ``value``, None where there are none.

    Those ``of_tasks`` where the metric names them; else all examples alike, or all tasks alike.
    """
    defined = ~np.isnan(value_E)
    names, task_index = np.unique(task_E.astype(str), return_inverse=True)
    sizes = np.bincount(task_index[defined], minlength=int(task_index.max()) + 1)
    of_task_E = np.where(defined, 1.0 / np.maximum(sizes, 1)[task_index], 0.0)
    if of_tasks:
        candidates = [of_task_E * np.array([of_tasks[name] for name in names])[task_index]]
    else:
        candidates = [defined.astype(np.float64), of_task_E]
    for weight_E in candidates:
        total = float(weight_E.sum())
        if total > 0 and abs(float(np.nansum(weight_E * value_E)) / total - value) <= 1e-6 * max(1.0, abs(value)):
            scaled: Floats = weight_E / total
            return scaled
    return None


def pair(first: Sequence[Examples], second: Sequence[Examples]) -> PairedSuite | str:
    """Return the differences first - second, seed by seed (a side with one entry is paired with every seed).

    Both sides hold the same examples; one that is undefined in any of them is left out. Returns in words why they
    cannot be paired.
    """
    reference = first[0]
    first_SE = np.stack([examples.value_E for examples in first])
    second_SE = np.stack([examples.value_E for examples in second])
    difference_SE = first_SE - second_SE
    defined = ~np.isnan(difference_SE).any(axis=0)
    if not defined.any():
        return "no example is defined for both"
    weight_E = np.where(reference.weight_E > 0, reference.weight_E, 0.0)[defined]
    _, cluster_E = np.unique(reference.cluster_E[defined].astype(str), return_inverse=True)
    return PairedSuite(difference_SE[:, defined], weight_E / weight_E.sum(), cluster_E.astype(np.int64))
