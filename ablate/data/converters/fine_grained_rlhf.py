"""allenai/FineGrainedRLHF, QA feedback: a question on passages and four predictions, compared pair by pair."""

from __future__ import annotations

import itertools
from typing import Any

from ablate.catalogs.converters import FineGrainedOptions
from ablate.data.converters.columns import columns
from ablate.data.converters.sides import user_prompt
from ablate.data.records import Converted, Dropped, PreferenceRecord, Response, Row, digest, message

PREDICTIONS = tuple(f"prediction {index}" for index in range(1, 5))
COMPARED = tuple(itertools.combinations(range(4), 2))
"""Which two predictions each of the six entries of ``preference`` compares; 0 is a tie, 1 the first, 2 the second."""

GAIN = {"0": 0, "1": 1, "2": -1}


def convert(row: Row, options: FineGrainedOptions) -> Converted:
    """Score every prediction by its wins minus its losses, which orders them as the comparisons do.

    It can't where they contradict each other (A equals B and B equals C, yet A beats C): see ``intransitive``.
    """
    question, passages, preference, *predictions = columns(
        row, "fine_grained_rlhf", "question", "passages", "preference", *PREDICTIONS
    )
    if not all(isinstance(text, str) for text in (question, *predictions)):
        return Dropped("not-text")
    if not question.strip() or not all(text.strip() for text in predictions):
        return Dropped("empty-message")
    if not isinstance(preference, list) or len(preference) != len(COMPARED):
        return Dropped("no-preference")
    if not all(verdict in GAIN for verdict in map(str, preference)):
        return Dropped("no-preference")
    scores = [0, 0, 0, 0]
    for (one, other), verdict in zip(COMPARED, preference, strict=True):
        gain = GAIN[str(verdict)]
        scores[one] += gain
        scores[other] -= gain
    if options.intransitive == "drop" and not _agree(scores, preference):
        return Dropped("comparisons-contradict")
    context = _context(passages) if options.passages == "include" else ""
    if context is None:
        return Dropped("not-text")
    prompt = user_prompt(f"{context}\n\n{question}" if context else question)
    responses = tuple(
        Response((message("assistant", text),), score=float(score))
        for text, score in zip(predictions, scores, strict=True)
    )
    return PreferenceRecord(prompt, responses, source="fine_grained_rlhf", row_id=digest(row))


def _agree(scores: list[int], preference: list[int]) -> bool:
    """Whether the order of the scores is what every one of the six comparisons says."""
    differences = (scores[one] - scores[other] for one, other in COMPARED)
    return all(
        (gap > 0) - (gap < 0) == GAIN[str(verdict)] for gap, verdict in zip(differences, preference, strict=True)
    )


def _context(passages: Any) -> str | None:
    """Return the passages, each its title and its sentences, with a blank line between them."""
    if not isinstance(passages, list):
        return None
    blocks = []
    for passage in passages:
        if not isinstance(passage, list) or not all(isinstance(text, str) for text in passage):
            return None
        title, *sentences = passage or [""]
        blocks.append(f"{title.strip()}\n{' '.join(text.strip() for text in sentences)}".strip())
    return "\n\n".join(block for block in blocks if block)
