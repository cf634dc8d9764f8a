"""Scores of k responses to a prompt from a judge that compares two at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ablate.models.chat import Messages
from ablate.rewards.interface import PairJudge


def round_robin(
    judge: PairJudge, prompts: Sequence[Messages], responses: Sequence[Sequence[str]]
) -> list[list[float | None]]:
    """Return for every response of every prompt the mean probability that it beats another one of the prompt.

    Each pair of a prompt's responses is compared once. A response that could be compared with none is null.
    """
    games = [
        (row, one, other)
        for row, texts in enumerate(responses)
        for one, other in itertools.combinations(range(len(texts)), 2)
    ]
    odds = judge.compare(
        [prompts[row] for row, _, _ in games],
        [responses[row][one] for row, one, _ in games],
        [responses[row][other] for row, _, other in games],
    )
    won: list[list[list[float]]] = [[[] for _ in texts] for texts in responses]
    for (row, one, other), value in zip(games, odds, strict=True):
        if value is not None:
            won[row][one].append(_sigma(value))
            won[row][other].append(_sigma(-value))
    return [[sum(games) / len(games) if games else None for games in row] for row in won]


def _sigma(value: float) -> float:
    """Return the logistic function, without overflow where the odds are far apart."""
    return 1 / (1 + math.exp(-value)) if value > 0 else 1 - 1 / (1 + math.exp(value))
