"""A judge of a policy's own responses: scores by what a model says of them, some of which can't be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ablate.models.chat import Messages
from ablate.training.distributed import from_main, is_main
from ablate.training.experience import ScoreTexts
from ablate.training.rollouts import Episode


@dataclass
class JudgedEpisodes:
    """Scores a step's episodes, ``group`` to a prompt, one prompt after another; one process asks.

    A response of which the judge says nothing that can be read gets the mean of its prompt's others: it is then neither
    the best nor the worst of a prompt whose others differ, and a prompt whose others are equal, or that has none, ties.
    Those responses are counted.
    """

    score: ScoreTexts
    prompts: Mapping[str, Messages]
    decode: Callable[[list[int]], str]
    group: int
    counts: dict[str, int] = field(default_factory=lambda: {"judged": 0, "judge_unread": 0})
    """How many responses were judged, and of how many nothing could be read; they travel in the checkpoints."""

    def __call__(self, episodes: Sequence[Episode]) -> Tensor:
        """Return the scores, float32 [N]."""
        scores: list[float | None] = []
        if is_main():
            texts = [self.decode(episode.response_ids) for episode in episodes]
            scores = self.score([self.prompts[episode.prompt_id] for episode in episodes], texts)
        scores = from_main(scores)
        self.counts["judged"] += len(scores)
        self.counts["judge_unread"] += sum(value is None for value in scores)
        groups = (scores[start : start + self.group] for start in range(0, len(scores), self.group))
        return torch.tensor([value for group in groups for value in neutral(group)])

    def statistics(self) -> dict[str, float]:
        """Return the counts."""
        return {**self.counts}


def neutral(scores: Sequence[float | None]) -> list[float]:
    """Return a prompt's scores with the mean of the others in place of those that are missing; all missing: zeros."""
    known = [value for value in scores if value is not None]
    if not known:
        return [0.0] * len(scores)
    # of equal scores the mean may differ by rounding, and would then be the best or the worst
    middle = known[0] if min(known) == max(known) else math.fsum(known) / len(known)
    return [middle if value is None else value for value in scores]
