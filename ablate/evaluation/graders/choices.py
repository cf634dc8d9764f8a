"""The grader of multiple choice: by log-likelihood, or by the letter that a response names."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.evaluation.grading import (
    Evidence,
    Example,
    Grades,
    mean_metrics,
    response_health,
    shortened,
)
from ablate.evaluation.items import Item, Likelihoods

_SAYS = re.compile(
    r"(?i:answer(?:\s+is|:)\s*:?\s*(?:option\s+)?)[*_`\"'$]*(?:\\boxed\{)?(?:\(?([A-Z])(?![A-Za-z])|\(([a-z])\))"
)
_BEGINS = re.compile(r"[*_`\"'(\[]*(?:([A-Z])(?:[)\].:,*_`\"']|\s*$|\s*\n)|([a-z])[)\]]|([a-z])$)")
_MARKED = re.compile(r"\(([A-Z])\)|\\boxed\{\(?([A-Z])\)?\}|\*\*([A-Z])[.)]?\*\*")


def choices(evidence: Evidence, options: Mapping[str, Any]) -> Grades:
    """Accuracy of the most likely choice (of equal ones the first; a prompt that does not fit is wrong), or, where
    there are responses and no likelihoods, of the letter that a response names (none: wrong, and counted)."""
    if evidence.has_responses and not evidence.has_likelihoods:
        return _from_text(evidence)
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


def _from_text(evidence: Evidence) -> Grades:
    examples, picks = [], []
    for row in evidence.responses:
        item = evidence.items[row.id]
        pick = named_choice(row.response, len(item.choices))
        picks.append(pick)
        value = float(pick == item.data["answer"])
        examples.append(
            Example(row.id, row.sample, item.task, "accuracy", value, item.cluster, shortened(row.response))
        )
    failed = {"extraction_failed": sum(pick is None for pick in picks)}
    health = response_health(evidence.responses) | failed | _choice_shares(picks)
    return Grades(examples, mean_metrics(examples), health, {"from": "letters in responses"})


def named_choice(response: str, count: int) -> int | None:
    """Index of the choice whose letter a response names, of ``count``; null where it names none that is there.

    In this order: the last "(the) answer is X" (also "Answer: X"), a response that begins with the letter ("B", "B.",
    "(B) Paris"), and a letter in parentheses, a box or bold print where only one is.
    """
    text = response.strip()
    if said := _SAYS.findall(text):
        return _index(_first(said[-1]), count)
    if begun := _BEGINS.match(text):
        return _index(_first(begun.groups()), count)
    marked = {_first(parts) for parts in _MARKED.findall(text)}
    return _index(marked.pop(), count) if len(marked) == 1 else None


def _first(parts: Sequence[str | None]) -> str:
    """The group of a pattern's alternatives that matched."""
    return next(part for part in parts if part)


def _index(letter: str, count: int) -> int | None:
    place = string.ascii_uppercase.index(letter.upper())
    return place if place < count else None


def gold_letter(item: Item) -> str:
    """A response that is right."""
    return string.ascii_uppercase[item.data["answer"]]


def most_likely(row: Likelihoods) -> int | None:
    """Index of the largest log-probability, the first of equal ones."""
    return None if row.logprobs is None else max(range(len(row.logprobs)), key=row.logprobs.__getitem__)


def _choice_shares(picks: Sequence[int | None]) -> dict[str, float | None]:
    """How often the most frequent choice was made: 1.0 for a model that always says the same letter."""
    made = [pick for pick in picks if pick is not None]
    return {"largest_choice_share": max(made.count(pick) for pick in set(made)) / len(made) if made else None}
