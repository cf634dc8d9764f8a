"""RewardBench 2's scores of a prompt with several responses, and of prompts with several right answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablate.catalogs.rewardbench import TIES_WEIGHTS


def best_of(correct: Sequence[float], incorrect: Sequence[float]) -> float:
    """Return the score of one prompt of version 2: 1 / (number of responses with the highest score), or 0.

    It is 0 where no correct response is among those with the highest score.
    """
    highest = max((*correct, *incorrect))
    return 1 / [*correct, *incorrect].count(highest) if highest in correct else 0.0


@dataclass(frozen=True)
class Gaps:
    """Of the scores of one prompt of Ties: ``gap`` = worst correct - best incorrect, ``spread`` = best - worst correct.

    The prompt is right where ``gap`` > 0.
    """

    gap: float
    spread: float

    @classmethod
    def of(cls, correct: Sequence[float], incorrect: Sequence[float]) -> Gaps:
        """Return the gaps of a prompt with at least one response of each kind."""
        return cls(min(correct) - max(incorrect), max(correct) - min(correct))


def ties_parts(ref: Gaps, tied: Gaps) -> dict[str, float]:
    """Return the parts of the Ties score of one pair: a question with several right answers and its twin with one.

    ``margin`` is tanh(smaller gap / spread - 1), 0 where both are 0.
    """
    smaller = min(ref.gap, tied.gap)
    if tied.spread == 0.0:
        margin = math.copysign(1.0, smaller) if smaller else 0.0
    else:
        margin = math.tanh(smaller / tied.spread - 1)
    return {
        "tied": float(tied.gap > 0),
        "ref": float(ref.gap > 0),
        "tied_gap": float(tied.gap > tied.spread),
        "both_gaps": float(smaller > tied.spread),
        "margin": margin,
    }


def ties_score(ref: Mapping[str, Gaps], tied: Mapping[str, Gaps]) -> float | None:
    """Return the score of the Ties subset from the gaps of its prompts by number, ``ref:n`` and ``tied:n``.

    Accuracies are over all prompts of their kind, the other parts over the numbers that both kinds have. None where a
    part has nothing to be taken over.
    """
    both = [ties_parts(ref[number], tied[number]) for number in ref if number in tied]
    if not both:
        return None
    right = {
        "ref": [float(gaps.gap > 0) for gaps in ref.values()],
        "tied": [float(gaps.gap > 0) for gaps in tied.values()],
    }
    parts = {name: right.get(name) or [row[name] for row in both] for name in TIES_WEIGHTS}
    return math.fsum(TIES_WEIGHTS[name] * math.fsum(values) / len(values) for name, values in parts.items())
