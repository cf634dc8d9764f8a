"""Graders of short answers: extraction and exact match."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any

from ablate.evaluation.grading import (
    Evidence,
    Example,
    Grades,
    mean_metrics,
    response_health,
    shortened,
)

_DIGIT_COMMA = re.compile(r"(\d),(\d)")
_NUMBER = re.compile(r"[-+]?\d*\.\d+|\d+")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def gsm8k_answer(text: str) -> tuple[str, bool]:
    """The last number of a response and whether there was one; else the response itself (open-instruct).

    A sign is captured with decimals only: that is the study's expression.
    """
    text = _DIGIT_COMMA.sub(r"\1\2", text)
    found = _NUMBER.findall(text)
    return (found[-1], True) if found else (text, False)


def gsm8k_gold(answer: str) -> str:
    """What stands after ``####``, commas between digits removed."""
    return _DIGIT_COMMA.sub(r"\1\2", answer.split("####")[-1].strip())


def exact_match(prediction: str, gold: str) -> bool:
    """HF evaluate's ``exact_match`` with ``ignore_case`` and ``ignore_punctuation``: so "3.5" equals "35"."""
    return _normalised(prediction) == _normalised(gold)


def _normalised(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION)


def gsm8k(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Exact match of the last number (metric ``exact_match``)."""
    examples, failed = [], 0
    for row in evidence.responses:
        prediction, found = gsm8k_answer(row.response)
        failed += not found
        value = float(exact_match(prediction, gsm8k_gold(evidence.items[row.id].data["answer"])))
        examples.append(Example(row.id, row.sample, row.task, "exact_match", value, response=shortened(row.response)))
    health = {**response_health(evidence.responses), "extraction_failed": failed}
    return Grades(examples, mean_metrics(examples), health)
