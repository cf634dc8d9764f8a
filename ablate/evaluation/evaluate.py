"""The evaluate stage: a grader over stored responses, likelihoods or scores. No model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas  # noqa: F401 - pyarrow would import it for its first column: in every forked stage, not once before
import pyarrow as pa
import pyarrow.parquet as pq

from ablate.catalogs.suite_code import resolve_entry
from ablate.context import StageContext, import_function, read_json, write_json
from ablate.errors import StageError
from ablate.evaluation.grading import Evidence, Example, Grader, Metric, pick_references
from ablate.evaluation.items import PROTOCOL, artifact_folder
from ablate.evaluation.report import primary_metric, report

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
    beside = _pick_references(context, grade, primary)
    made = report(grades, config, evidence.protocol, beside)
    write_json(context.output / "metrics.json", {**made, "health": {**made["health"], **evidence.server_health}})
    write_examples(context.output / "examples.parquet", grades.examples)
    return {"score": primary.value, "n": primary.n}


def _pick_references(context: StageContext, grade: Grader, primary: Metric) -> list[Metric]:
    """What picks are to be read against where the stage has all ``candidates`` they were made from, else nothing."""
    if "candidates" not in context.inputs:
        return []
    folder = artifact_folder(context.inputs["candidates"])
    evidence = Evidence(folder, context.work, read_json(folder / PROTOCOL), resources=context.resources)
    candidates = grade(evidence, context.config["options"])
    return pick_references(candidates.examples, primary)


def open_evidence(context: StageContext) -> Evidence:
    """What the stage's inputs hold: ``responses`` (a generate or select stage), ``likelihoods`` or ``scores``."""
    if "responses" in context.inputs:
        folder, judging = artifact_folder(context.inputs["responses"]), context.inputs.get("verdicts")
        protocol = read_json((judging or folder) / PROTOCOL)
        scored = context.inputs.get("response_scores")
        return Evidence(
            folder, context.work, protocol, resources=context.resources, judging=judging, response_scores=scored
        )
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


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Write per-example values as parquet; the columns are those of :class:`Example`."""
    columns = {name: [getattr(row, name) for row in examples] for name in _SCHEMA.names}
    pq.write_table(pa.table(columns, schema=_SCHEMA), path, compression="zstd")
