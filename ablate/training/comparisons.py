"""Two responses to one prompt in one sequence, for models that compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ablate.errors import DataError
from ablate.training.collate import IntArray, PairTokens, Ragged, pad_sequences


def joined(prompt: IntArray, first: IntArray, second: IntArray) -> IntArray:
    """Return both conversations one after the other: prompt, first response, prompt again, second response.

    Any chat template can write it, and each response stands where it would stand alone: right behind its prompt.
    """
    return np.concatenate([prompt, first, prompt, second])


@dataclass(frozen=True)
class ComparedPairs(PairTokens):
    """Pairs whose two sequences are both orders of the comparison."""

    @property
    def lengths_N(self) -> IntArray:
        """Tokens of each comparison; both orders have as many."""
        return 2 * self.prompts.lengths + self.chosen.lengths + self.rejected.lengths

    @classmethod
    def within(cls, pairs: PairTokens, limit: int | None) -> ComparedPairs:
        """Return the pairs whose comparison has at most ``limit`` tokens; DataError where none has."""
        every = cls(pairs.ids, pairs.prompts, pairs.chosen, pairs.rejected, pairs.in_order)
        rows = np.flatnonzero(every.lengths_N <= limit) if limit is not None else np.arange(len(every))
        if not len(rows):
            shortest = int(every.lengths_N.min())
            raise DataError(
                f"no pair fits: two conversations in one sequence have at least {shortest} tokens, the model's "
                f"context {limit}",
                hint="lower reward_model.max_length to half the context, with truncation: keep-start",
            )
        prompts, chosen, rejected = (_taken(lists, rows) for lists in (every.prompts, every.chosen, every.rejected))
        return cls([every.ids[row] for row in rows], prompts, chosen, rejected, pairs.in_order)


def _taken(lists: Ragged, rows: IntArray) -> Ragged:
    return Ragged.of([lists[row] for row in rows])


@dataclass(frozen=True)
class ComparisonCollator:
    """Makes a batch of B pairs from row numbers: 2B sequences, first all with the chosen response first."""

    examples: ComparedPairs
    pad_id: int

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the padded batch of these rows."""
        pairs = self.examples
        prompts = [pairs.prompts[row] for row in rows]
        sides = [[pairs.chosen[row] for row in rows], [pairs.rejected[row] for row in rows]]
        sequences = [
            joined(prompt, first, second)
            for firsts, seconds in (sides, sides[::-1])
            for prompt, first, second in zip(prompts, firsts, seconds, strict=True)
        ]
        batch = pad_sequences([ids[:0] for ids in sequences], sequences, self.pad_id)
        return {**batch, "rows": torch.tensor(rows)}
