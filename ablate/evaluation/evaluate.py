"""The evaluate stage: a grader over stored responses, likelihoods or scores. No model is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ablate.catalogs.suite_code import resolve_entry
from ablate.context import StageContext, import_function, read_json, write_json
from ablate.errors import StageError
from ablate.evaluation.grading import OVERALL, Evidence, Example, Grades, Metric, pick_references
from ablate.evaluation.items import PROTOCOL, artifact_folder

Grader = Callable[[Evidence, Mapping[str, Any]], Grades]

_SCHEMA = pa.schema(
    [
        ("example", pa.string()),
        ("sample", pa.int32()),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("cluster", pa.string()),
        ("response", pa.string()),
    ]
)


def run(context: StageContext) -> dict[str, Any]:
    """Write ``metrics.json`` and ``examples.parquet``."""
    config = context.config
    evidence = open_evidence(context)
    grade: Grader = import_function(resolve_entry("grader", config["grader"]), "the grader of this suite")
    grades = grade(evidence, config["options"])
    primary = primary_metric(grades.metrics, config["primary"])
    health = {**grades.health, "n": primary.n, "examples": len({row.example for row in grades.examples})}
    if primary.value is None:
        health.setdefault("reason", f"{config['primary']} is undefined over {primary.n} examples")
    protocol = {**evidence.protocol, "grader": config["grader"], "options": dict(config["options"]), **grades.protocol}
    metrics = [metric.as_json() for metric in (*grades.metrics, *_pick_references(context, grade, primary))]
    _refuse_nan(metrics)
    report = {
        "score": primary.value,
        "metrics": metrics,
        "health": health,
        "protocol": {**protocol, "primary": config["primary"]},
    }
    write_json(context.output / "metrics.json", report)
    write_examples(context.output / "examples.parquet", grades.examples)
    return {"score": primary.value, "n": primary.n}


def _pick_references(context: StageContext, grade: Grader, primary: Metric) -> list[Metric]:
    """What picks are to be read against where the stage has all ``candidates`` they were made from, else nothing."""
    if "candidates" not in context.inputs:
        return []
    folder = artifact_folder(context.inputs["candidates"])
    candidates = grade(Evidence(folder, context.work, read_json(folder / PROTOCOL)), context.config["options"])
    return pick_references(candidates.examples, primary)


def open_evidence(context: StageContext) -> Evidence:
    """What the stage's inputs hold: ``responses`` (a generate or select stage), ``likelihoods`` or ``scores``."""
    if "responses" in context.inputs:
        folder = artifact_folder(context.inputs["responses"])
        return Evidence(folder, context.work, read_json(folder / PROTOCOL))
    if "likelihoods" in context.inputs:
        folder = artifact_folder(context.inputs["likelihoods"])
        return Evidence(
            folder, context.work, read_json(folder / PROTOCOL), reference=context.inputs.get("reference_likelihoods")
        )
    if "scores" not in context.inputs:
        raise StageError("an evaluate stage needs an input responses, likelihoods or scores")
    scores = context.inputs["scores"]
    path = scores / "scores.jsonl" if scores.is_dir() else scores
    protocol = path.parent / PROTOCOL
    return Evidence(path.parent, context.work, read_json(protocol) if protocol.is_file() else {}, path)


def primary_metric(metrics: Sequence[Metric], primary: str) -> Metric:
    """The metric called ``metric`` (over all tasks) or ``task/metric``; raises ``StageError`` for another name."""
    task, _, name = primary.rpartition("/")
    found = [metric for metric in metrics if (metric.task, metric.metric) == (task or OVERALL, name)]
    if not found:
        known = sorted({name if task == OVERALL else f"{task}/{name}" for task, name in _names(metrics)})
        if not metrics:
            return Metric(task or OVERALL, name, None, 0)
        raise StageError(f"the grader gives no metric {primary!r}", hint=f"it gives: {', '.join(known)}")
    return found[0]


def _names(metrics: Sequence[Metric]) -> list[tuple[str, str]]:
    return [(metric.task, metric.metric) for metric in metrics]


def _refuse_nan(metrics: list[dict[str, Any]]) -> None:
    for metric in metrics:
        for name in ("value", "stderr"):
            if metric[name] is not None and not math.isfinite(metric[name]):
                raise StageError(f"{metric['task']} {metric['metric']}: {name} is {metric[name]}")


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Write per-example values as parquet; the columns are those of :class:`Example`."""
    columns = {name: [getattr(row, name) for row in examples] for name in _SCHEMA.names}
    pq.write_table(pa.table(columns, schema=_SCHEMA), path, compression="zstd")
