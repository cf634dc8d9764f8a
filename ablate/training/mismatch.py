"""Prompts with completions that were written to other prompts: what KTO's estimate of the KL divergence is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ablate.errors import DataError
from ablate.training.collate import IntArray, PairCollator, PairTokens, Ragged
from ablate.training.seeding import derive_seed


def mismatched(pairs: PairTokens) -> PairTokens:
    """Return ``pairs`` with both completions of each taken from a row that has another prompt.

    Which row depends on the data alone, so that one pass of the reference serves every seed, epoch and strength. No
    sequence is longer than the longest of ``pairs``: a completion that would be is cut, to one token at least.
    Raises DataError when all pairs have one prompt.
    """
    rows, longest = partners(pairs), int(pairs.lengths_N.max())
    room = longest - pairs.prompts.lengths
    chosen, rejected = (
        Ragged.of([side[row][:most] for row, most in zip(rows, room, strict=True)])
        for side in (pairs.chosen, pairs.rejected)
    )
    return PairTokens(pairs.ids, pairs.prompts, chosen, rejected)


def partners(pairs: PairTokens) -> IntArray:
    """Return for each row another one with another prompt: in a fixed random order, the next that has one."""
    order = np.random.default_rng(derive_seed("mismatch")).permutation(len(pairs))
    prompts = [pairs.prompts[row].tobytes() for row in order]
    if len(set(prompts)) < 2:
        raise DataError(
            f"all {len(pairs)} pairs have one prompt: KTO's KL baseline needs completions of other prompts",
            hint="use a set with at least two prompts",
        )
    found, following = np.empty_like(order), 0
    for place in range(2 * len(order) - 1, -1, -1):  # twice round, so that the last rows find the first ones
        here, after = place % len(order), (place + 1) % len(order)
        if prompts[here] != prompts[after]:
            following = after
        found[order[here]] = order[following]
    return found


@dataclass(frozen=True)
class MismatchCollator(PairCollator):
    """Makes batches of pairs that hold, as ``mismatched``, the batch that ``other`` makes of the same rows."""

    other: PairCollator = field(kw_only=True)

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the padded batch of these rows."""
        return {**super().__call__(rows), "mismatched": self.other(rows)}
