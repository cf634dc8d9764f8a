"""Rankings in token ids: a prompt and its k responses, with ranks, scores and rated attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ablate.data.records import Response
from ablate.models.chat import Ids

IDS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "prompt_ids": IDS,
        "completion_ids": pa.list_(IDS),
        "ranks": IDS,
        "scores": pa.list_(pa.float64()),
        "aspects": pa.list_(pa.map_(pa.string(), pa.float64())),
    }
)


@dataclass
class Candidates:
    """The responses of one prompt that the limits keep; ``left_out`` counts the others by reason."""

    responses: list[Response] = field(default_factory=list)
    completions: list[Ids] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, response: Response, completion: Ids | None, problem: str) -> None:
        """Keep a response with its ids, or count why it has none; one that is equal to an earlier one is left out."""
        if completion is None:
            self.left_out[problem] += 1
        elif completion in self.completions:
            self.left_out["equal-completions"] += 1
        else:
            self.responses.append(response)
            self.completions.append(completion)


def dense_ranks(positions: Sequence[float], tolerance: float) -> list[int]:
    """Return 1 for the smallest position and one more for each larger one; closer than ``tolerance`` is a tie."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    ranks, rank, previous = [0] * len(positions), 0, -float("inf")
    for index in order:
        if positions[index] - previous > tolerance:
            rank += 1
            previous = positions[index]
        ranks[index] = rank
    return ranks


def stored(name: str, prompt: Ids, kept: Candidates, ranks: Sequence[int]) -> dict[str, Any]:
    """Return the row of a prompt as it is written, best response first."""
    order = sorted(range(len(ranks)), key=lambda index: ranks[index])
    return {
        "id": name,
        "prompt_ids": prompt,
        "completion_ids": [kept.completions[index] for index in order],
        "ranks": [ranks[index] for index in order],
        "scores": [kept.responses[index].score for index in order],
        "aspects": [_pairs(kept.responses[index].aspects) for index in order],
    }


def _pairs(aspects: Mapping[str, float] | None) -> list[tuple[str, float]]:
    return sorted((aspects or {}).items())
