"""Tokenised rankings in memory, and padded batches of them: a prompt with its k responses is one example."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ablate.errors import DataError, suggestion
from ablate.training.collate import Examples, IntArray, Ragged, pad_sequences

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RankingTokens(Examples):
    """The rows of a ``tokens.parquet`` of rankings: row i has the responses ``first[i]`` to ``first[i + 1]``.

    Responses come best first. ``ranks`` are 1 for the best, equal for ties; ``scores`` are NaN where there are none;
    ``aspects`` are the rated attributes of every response.
    """

    prompts: Ragged
    completions: Ragged
    first: IntArray
    ranks: IntArray
    scores: FloatArray
    aspects: list[dict[str, float]]

    @property
    def responses_N(self) -> IntArray:
        """Responses to each prompt."""
        return np.diff(self.first)

    @property
    def sequences(self) -> int:
        """Sequences of one example in a forward pass: those of the longest list."""
        return int(self.responses_N.max())

    @property
    def lengths_N(self) -> IntArray:
        """Tokens of each prompt with its longest response."""
        longest = np.maximum.reduceat(self.completions.lengths, self.first[:-1])
        return self.prompts.lengths + longest

    def responses(self, row: int) -> slice:
        """Return which responses are those of a row."""
        return slice(int(self.first[row]), int(self.first[row + 1]))

    @classmethod
    def read(cls, path: Path) -> RankingTokens:
        """Read ``tokens.parquet`` of the rankings or rated format; raises DataError when it holds something else."""
        table = pq.read_table(path)
        needed = ["id", "prompt_ids", "completion_ids", "ranks", "scores", "aspects"]
        if missing := [name for name in needed if name not in table.column_names]:
            raise DataError(f"{path} lacks the columns {missing}; it has {table.column_names}: not tokenised rankings")
        if not table.num_rows:
            raise DataError(f"{path} holds no ranking; see the report beside it for what was dropped")
        lists = table.column("completion_ids").to_pylist()
        flat = [np.asarray(ids, dtype=np.int64) for row in lists for ids in row]
        completions = Ragged(np.concatenate(flat), np.cumsum([0, *map(len, flat)]))
        prompts = Ragged.from_column(table.column("prompt_ids"))
        if not completions.lengths.all() or not prompts.lengths.all():
            raise DataError(f"{path}: a prompt or a completion is empty")
        return cls(
            table.column("id").to_pylist(),
            prompts,
            completions,
            np.cumsum([0, *map(len, lists)]),
            np.asarray(_joined(table, "ranks"), dtype=np.int64),
            np.array(_joined(table, "scores"), dtype=np.float64),
            [dict(pairs) for pairs in _joined(table, "aspects")],
        )

    def ratings(self, attributes: Sequence[str], weighted: Iterable[str]) -> FloatArray:
        """Return the ratings of every response, [responses, attributes], NaN where one is missing.

        Raises DataError for a ``weighted`` attribute that no response has: its head would stay as it was drawn.
        """
        found = sorted({name for aspects in self.aspects for name in aspects})
        for name in weighted:
            if name not in found:
                raise DataError(
                    f"no response of this set is rated for {name!r}, which has a weight in the reward",
                    hint=suggestion(name, found) if found else "its responses have no attributes",
                )
        rows = [[aspects.get(name, float("nan")) for name in attributes] for aspects in self.aspects]
        return np.array(rows, dtype=np.float64)


def _joined(table: Any, column: str) -> list[Any]:
    return [value for row in table.column(column).to_pylist() for value in row]


@dataclass(frozen=True)
class RankingCollator:
    """Makes a batch of B prompts from row numbers: the responses of all of them, prompt by prompt, in one array.

    Keys beside those of ``pad_sequences``: ``ranks`` [B, K], 0 where a prompt has fewer responses than the longest
    list, ``scores`` [B, K], NaN where there are none; ``rows`` [B]; with ``ratings`` those of the sequences.
    """

    examples: RankingTokens
    pad_id: int
    ratings: FloatArray | None = None

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the padded batch of these rows."""
        data = self.examples
        places = [data.responses(row) for row in rows]
        numbers = [number for place in places for number in range(place.start, place.stop)]
        prompts = [data.prompts[row] for row, place in zip(rows, places, strict=True) for _ in range(_size(place))]
        batch = pad_sequences(prompts, [data.completions[number] for number in numbers], self.pad_id)
        shape = (len(rows), max(map(_size, places)))
        ranks_BK, scores_BK = torch.zeros(shape, dtype=torch.int64), torch.full(shape, float("nan"))
        for row, place in enumerate(places):
            ranks_BK[row, : _size(place)] = torch.from_numpy(data.ranks[place])
            scores_BK[row, : _size(place)] = torch.from_numpy(data.scores[place]).float()
        rated = {} if self.ratings is None else {"ratings": torch.from_numpy(self.ratings[numbers]).float()}
        return {**batch, "ranks": ranks_BK, "scores": scores_BK, "rows": torch.tensor(rows), **rated}


def _size(place: slice) -> int:
    return int(place.stop - place.start)


def by_prompt(values_N: Tensor, ranks_BK: Tensor) -> Tensor:
    """Return one value a response, in the order of the batch, as [B, K]; 0 where a prompt has no response."""
    return torch.zeros(ranks_BK.shape, dtype=values_N.dtype, device=values_N.device).masked_scatter(
        ranks_BK > 0, values_N
    )
