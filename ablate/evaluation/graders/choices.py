"""The grader of multiple choice by log-likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ablate.evaluation.grading import (
    Evidence,
    Example,
    Grades,
    mean_metrics,
)
from ablate.evaluation.items import Likelihoods


def choices(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Accuracy of the most likely choice; of equal ones the first. A prompt that does not fit is wrong."""
    examples = []
    picks: list[int | None] = []
    for name, item in evidence.items.items():
        pick = most_likely(evidence.likelihoods[name])
        picks.append(pick)
        said = None if pick is None else item.choices[pick]
        value = float(pick is not None and pick == item.data["answer"])
        examples.append(Example(name, 0, item.task, "accuracy", value, item.cluster, said))
    health = {"too_long": sum(pick is None for pick in picks)}
    return Grades(examples, mean_metrics(examples), health | _choice_shares(picks))


def most_likely(row: Likelihoods) -> int | None:
    """Index of the largest log-probability, the first of equal ones."""
    return None if row.logprobs is None else max(range(len(row.logprobs)), key=row.logprobs.__getitem__)


def _choice_shares(picks: Sequence[int | None]) -> dict[str, float | None]:
    """How often the most frequent choice was made: 1.0 for a model that always says the same letter."""
    made = [pick for pick in picks if pick is not None]
    return {"largest_choice_share": max(made.count(pick) for pick in set(made)) / len(made) if made else None}
