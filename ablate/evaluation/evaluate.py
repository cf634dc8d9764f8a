"""The evaluate stage: a grader over stored responses, likelihoods or scores. No model is loaded."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas  # noqa: F401 - pyarrow would import it for its first column: in every forked stage, not once before
import pyarrow as pa
import pyarrow.parquet as pq

from ablate.catalogs.suite_code import resolve_entry
from ablate.context import StageContext, import_function, read_json, write_json
from ablate.errors import StageError
from ablate.evaluation.grading import Evidence, Example, Grader, HeldEvidence, Metric, pick_references
from ablate.evaluation.items import PROTOCOL, Response, artifact_folder
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
    beside = _pick_references(context, grade)
    made = report(grades, config, evidence.protocol, beside)
    how = {**evidence.server_health, **_repeat_health(evidence, grade, config)}
    write_json(context.output / "metrics.json", {**made, "health": {**made["health"], **how}})
    write_examples(context.output / "examples.parquet", grades.examples)
    return {"score": primary.value, "n": primary.n}


def _repeat_health(evidence: Evidence, grade: Grader, config: Mapping[str, Any]) -> dict[str, Any]:
    """How much a score varies by itself, where responses were given several times.

    ``repeat_sd`` is the standard deviation of the score of one pass (null where judges or models score responses, whose
    own variation would be in it), ``repeats_differ`` how many examples were not responded to alike.
    """
    repeats = evidence.protocol.get("made", {}).get("decoding", {}).get("repeats", 1)
    if repeats == 1:
        return {}
    said: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    scores = []
    for repeat in range(repeats):
        own = [row for row in evidence.responses if row.sample == repeat]
        turns: dict[str, list[str]] = defaultdict(list)
        for row in own:
            turns[row.id].append(row.response)
        for name, texts in turns.items():
            said[name].add(tuple(texts))
        scores.append(_score_of_pass(evidence, own, grade, config))
    known = [score for score in scores if score is not None]
    return {
        "repeats": repeats,
        "repeat_sd": statistics.stdev(known) if len(known) == repeats else None,
        "repeats_differ": sum(len(texts) > 1 for texts in said.values()),
    }


def _score_of_pass(
    evidence: Evidence, responses: Sequence[Response], grade: Grader, config: Mapping[str, Any]
) -> float | None:
    if evidence.judging is not None or evidence.response_scores is not None:
        return None
    alone = HeldEvidence(
        evidence.folder,
        evidence.scratch,
        evidence.protocol,
        resources=evidence.resources,
        held_items=evidence.items,
        held_responses=[replace(row, sample=0) for row in responses],
    )
    return primary_metric(grade(alone, config["options"]).metrics, config["primary"]).value


def _pick_references(context: StageContext, grade: Grader) -> list[Metric]:
    """What picks are to be read against where the stage has all ``candidates`` they were made from, else nothing."""
    if "candidates" not in context.inputs:
        return []
    folder = artifact_folder(context.inputs["candidates"])
    evidence = Evidence(folder, context.work, read_json(folder / PROTOCOL), resources=context.resources)
    candidates = grade(evidence, context.config["options"])
    return pick_references(candidates.examples, primary_metric(candidates.metrics, context.config["primary"]))


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
