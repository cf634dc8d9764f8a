"""The examples that a page shows: a few of each suite, the same for every model, so that two can be compared."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute
import pyarrow.parquet as parquet

from ablate.results.long import Results, Subject

MOST, FEWEST = 24, 2
"""Bounds of the number of examples of a suite."""

LETTERS = 3_000_000
"""About how many letters of responses a page keeps: with more models there are fewer examples of each suite."""

LONGEST_RESPONSE, LONGEST_PROMPT = 500, 1500
"""Letters; what is longer is cut and says so."""

Answer = tuple[float | None, str | None]
"""A grade (null where undefined) and the response that it is of (null where the file has none)."""


@dataclass(frozen=True)
class Graded:
    """The first sample of every example of one evaluation, by example."""

    metric: str
    answers: Mapping[str, Answer]


def sample_examples(results: Results, runs: Sequence[Subject]) -> dict[str, Any]:
    """Return for each suite ``metric``, ``total``, ``ids``, ``prompts`` and, by run, ``grades`` and ``responses``.

    Half of a suite's examples are those that the models differ on most, half are drawn by the hash of their id: the
    same store gives the same page.
    """
    pairs = sum(run.evaluations.get(suite, "") in results.evaluations for suite in results.suites for run in runs)
    most = max(FEWEST, min(MOST, LETTERS // (max(1, pairs) * LONGEST_RESPONSE)))
    found = {}
    for suite in results.suites:
        graded = {
            run.stage: read
            for run in runs
            if run.evaluations.get(suite, "") in results.evaluations
            and (read := _read(results, suite, run.evaluations[suite])) is not None
        }
        if graded:
            found[suite] = _suite(results, runs, suite, graded, most)
    return found


def _suite(
    results: Results, runs: Sequence[Subject], suite: str, graded: Mapping[str, Graded], most: int
) -> dict[str, Any]:
    ids = choose(list(graded.values()), most)
    prompts: dict[str, str] = {}
    for run in runs:  # a run may lack some: a model that reads less than others
        if run.stage in graded and prompts.keys() < set(ids):
            prompts = _prompts(results, run.evaluations[suite], set(ids)) | prompts
    return {
        "metric": next(iter(graded.values())).metric,
        "total": max(len(item.answers) for item in graded.values()),
        "ids": ids,
        "prompts": [prompts.get(name) for name in ids],
        "grades": {stage: [item.answers.get(name, (None, None))[0] for name in ids] for stage, item in graded.items()},
        "responses": {
            stage: [item.answers.get(name, (None, None))[1] for name in ids] for stage, item in graded.items()
        },
    }


def choose(graded: Sequence[Graded], most: int) -> list[str]:
    """Return at most so many examples: half by how much the grades differ, the rest by hash; ties by hash."""
    grades: dict[str, list[float]] = {}
    for item in graded:
        for name, (grade, _) in item.answers.items():
            grades.setdefault(name, []).append(math.nan if grade is None else grade)
    by_hash = sorted(grades, key=lambda name: hashlib.sha256(name.encode()).digest())
    defined = {name: [grade for grade in grades[name] if not math.isnan(grade)] for name in by_hash}
    spread = {name: float(np.std(own)) if own else 0.0 for name, own in defined.items()}
    telling = sorted(by_hash, key=lambda name: -round(spread[name], 6))[: (most + 1) // 2]
    drawn = [name for name in by_hash if name not in set(telling)][: most - len(telling)]
    return [*telling, *drawn]


def _read(results: Results, suite: str, stage: str) -> Graded | None:
    """Return the grades of the primary metric (else of the file's first), or None where no responses are kept."""
    path = results.store.stage(stage).artifact("examples.parquet")
    if not path.is_file() or "response" not in parquet.read_schema(path).names:
        return None
    table = parquet.read_table(path, columns=["example", "metric", "value", "response"])
    metrics = table.column("metric").unique().to_pylist()
    if not metrics:
        return None
    primary = str(results.suites[suite].get("primary", "")).rpartition("/")[2]
    metric = primary if primary in metrics else metrics[0]
    table = table.filter(pyarrow.compute.equal(table.column("metric"), metric))
    answers: dict[str, Answer] = {}
    columns = (table.column(name).to_pylist() for name in ("example", "value", "response"))
    for example, value, response in zip(*columns, strict=True):
        grade = None if value is None or math.isnan(value) else round(value, 4)
        answers.setdefault(example, (grade, None if response is None else _cut(response, LONGEST_RESPONSE)))
    return Graded(metric, answers)


def _prompts(results: Results, evaluation: str, wanted: set[str]) -> dict[str, str]:
    """Return the prompts of these examples from the items that were asked; those that no file has are left out."""
    found = {}
    for file in _items(results, evaluation):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                item = json.loads(line)
                if item.get("id") in wanted and "prompt" in item:
                    found[item["id"]] = _cut(_conversation(item["prompt"]), LONGEST_PROMPT)
    return found


def _items(results: Results, evaluation: str) -> list[Path]:
    inputs = results.store.stage(evaluation).read_stage().get("inputs", {})
    files = [results.store.stage(entry["stage"]).artifact("items.jsonl") for entry in inputs.values()]
    return [file for file in files if file.is_file()]


def _conversation(prompt: Any) -> str:
    """Return a prompt as text: as it is, or its turns, named where there are several."""
    if not isinstance(prompt, list):
        return str(prompt)
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def _cut(text: str, most: int) -> str:
    # half of a surrogate pair, which JSON can hold, is no character of a file
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} letters)"
