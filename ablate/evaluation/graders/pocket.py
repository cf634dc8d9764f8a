"""Graders of the pocket world: its checks, and rewards in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.errors import StageError
from ablate.evaluation.grading import (
    Evidence,
    Example,
    Grades,
    mean_metrics,
    response_health,
    shortened,
)
from ablate.evaluation.items import Item
from ablate.pocket.draws import Draw
from ablate.pocket.grading import grade as grade_pocket
from ablate.pocket.grading import item_of
from ablate.pocket.language import perfect_answer
from ablate.rewards.closed_form import closed_form as find_formula


def pocket(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Checks of the pocket world: ``accuracy`` (correct) and ``gold``, and each check under its own name.

    ``options.skills`` keeps these skills only; an unknown one is an error, for it would silently grade nothing.
    """
    skills = options["skills"] and set(options["skills"])
    known = {item.task for item in evidence.items.values()}
    if skills and (absent := skills - known):
        raise StageError(f"no items of skill {sorted(absent)[0]!r} in this suite", hint=f"it has: {sorted(known)}")
    examples: list[Example] = []
    checks: list[Example] = []
    graded = [row for row in evidence.responses if not skills or row.task in skills]
    for row in graded:
        item = evidence.items[row.id]
        named = grade_pocket(item.data, row.response)
        for metric, value in {"accuracy": named["correct"], **named}.items():
            example = Example(row.id, row.sample, row.task, metric, value, item.cluster, shortened(row.response))
            (examples if metric in ("accuracy", "gold") else checks).append(example)
    unanswered = sum(example.value == 0.0 for example in checks if example.metric == "answered")
    metrics = mean_metrics([*examples, *checks], {"gold": "reward"})
    if options["measure"] == "correct":
        examples = [example for example in examples if example.metric == "accuracy"]
    return Grades(examples, metrics, {**response_health(graded), "extraction_failed": unanswered})


def pocket_gold_response(item: Item) -> str:
    """A response that passes every check."""
    return perfect_answer(item_of(item.data), Draw("gold", item.id))


def closed_form(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """A formula of each response (metric: its name), in its own unit; nothing is asked of the item."""
    name = options["reward"]
    formula = find_formula(name)
    examples = [
        Example(row.id, row.sample, row.task, name, formula(row.response), response=shortened(row.response))
        for row in evidence.responses
    ]
    return Grades(examples, mean_metrics(examples, {name: "count"}), response_health(evidence.responses))
