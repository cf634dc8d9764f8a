"""From a grader's grades to the report that stages and commands give: score, metrics, health, protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.errors import StageError
from ablate.evaluation.grading import OVERALL, Grades, Metric


def report(
    grades: Grades, config: Mapping[str, Any], protocol: Mapping[str, Any], beside: Sequence[Metric] = ()
) -> dict[str, Any]:
    """``score`` (the primary metric), ``metrics``, ``health`` and ``protocol`` of a graded suite.

    ``config`` is the suite's grading config, ``protocol`` what is known of how the evidence came about and ``beside``
    are metrics that the grader does not give itself. Raises ``StageError`` for a NaN and an unknown primary metric.
    """
    primary = primary_metric(grades.metrics, config["primary"])
    health = {**grades.health, "n": primary.n, "examples": len({row.example for row in grades.examples})}
    if primary.value is None:
        health.setdefault("reason", f"{config['primary']} is undefined over {primary.n} examples")
    metrics = [metric.as_json() for metric in (*grades.metrics, *beside)]
    _refuse_nan(metrics)
    return {
        "score": primary.value,
        "metrics": metrics,
        "health": health,
        "protocol": {
            **protocol,
            "grader": config["grader"],
            "options": dict(config["options"]),
            **grades.protocol,
            "primary": config["primary"],
        },
    }


def primary_metric(metrics: Sequence[Metric], primary: str) -> Metric:
    """The metric called ``metric`` (over all tasks) or ``task/metric``; raises ``StageError`` for another name."""
    task, _, name = primary.rpartition("/")
    found = _found(metrics, primary)
    if not found:
        known = sorted({name if task == OVERALL else f"{task}/{name}" for task, name in _names(metrics)})
        if not metrics:
            return Metric(task or OVERALL, name, None, 0)
        raise StageError(f"the grader gives no metric {primary!r}", hint=f"it gives: {', '.join(known)}")
    return found[0]


def has_metric(metrics: Sequence[Metric], name: str) -> bool:
    """Whether a metric is called so: ``metric`` (over all tasks) or ``task/metric``."""
    return bool(_found(metrics, name))


def _found(metrics: Sequence[Metric], name: str) -> list[Metric]:
    task, _, metric = name.rpartition("/")
    return [found for found in metrics if (found.task, found.metric) == (task or OVERALL, metric)]


def _names(metrics: Sequence[Metric]) -> list[tuple[str, str]]:
    return [(metric.task, metric.metric) for metric in metrics]


def _refuse_nan(metrics: list[dict[str, Any]]) -> None:
    for metric in metrics:
        for name in ("value", "stderr"):
            if metric[name] is not None and not math.isfinite(metric[name]):
                raise StageError(f"{metric['task']} {metric['metric']}: {name} is {metric[name]}")
