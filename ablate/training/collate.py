"""Tokenised preference pairs and conversations in memory, and padded batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ablate.errors import DataError

Side = Literal["left", "right"]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ragged:
    """Lists of integers of different lengths, stored flat: list i is ``values[offsets[i]:offsets[i + 1]]``."""

    values: IntArray
    offsets: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> IntArray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> IntArray:
        """Length of every list."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, lists: Sequence[Sequence[int] | IntArray]) -> Ragged:
        """Store lists that are in memory."""
        arrays = [np.zeros(0, np.int64), *(np.asarray(values, np.int64) for values in lists)]
        return cls(np.concatenate(arrays), np.cumsum([0, *map(len, lists)]))

    @classmethod
    def from_column(cls, column: pa.ChunkedArray) -> Ragged:
        """Read a parquet column of lists."""
        lengths = np.array([0, *(len(row) for chunk in column.chunks for row in chunk)], dtype=np.int64)
        flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        values = np.concatenate(flat).astype(np.int64) if flat else np.zeros(0, dtype=np.int64)
        return cls(values, np.cumsum(lengths))


@dataclass(frozen=True)
class Examples(Dataset[int]):
    """Named examples of one or more sequences; as a torch dataset the items are row numbers, which a collator reads."""

    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> int:
        return index

    @property
    def lengths_N(self) -> IntArray:
        """Tokens of each example's longest sequence."""
        raise NotImplementedError

    @property
    def sequences(self) -> int:
        """Sequences of one example in a forward pass."""
        return 1

    @property
    def kept_order(self) -> bool:
        """Whether batches take the examples as they come, instead of in a seeded order."""
        return False


class Collator(Protocol):
    """Makes a batch from row numbers of its examples, and puts these into ``rows``."""

    @property
    def examples(self) -> Examples:
        """The examples that rows are numbers of."""
        ...

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the padded batch of these rows."""
        ...


@dataclass(frozen=True)
class PairTokens(Examples):
    """The pairs of a ``tokens.parquet``."""

    prompts: Ragged
    chosen: Ragged
    rejected: Ragged
    in_order: bool = False

    @property
    def kept_order(self) -> bool:
        """Whether the set says that its order counts: that in which an online run learnt from the pairs."""
        return self.in_order

    @property
    def sequences(self) -> int:
        """Chosen and rejected."""
        return 2

    @property
    def lengths_N(self) -> IntArray:
        """Tokens of the longer of each pair's two sequences."""
        return self.prompts.lengths + np.maximum(self.chosen.lengths, self.rejected.lengths)

    @classmethod
    def read(cls, path: Path) -> PairTokens:
        """Read ``tokens.parquet`` of the pairs format; raises DataError when columns or completions are missing."""
        table = pq.read_table(path)
        needed = ["id", "prompt_ids", "chosen_ids", "rejected_ids"]
        if missing := [name for name in needed if name not in table.column_names]:
            raise DataError(f"{path} lacks the columns {missing}; it has {table.column_names}: not tokenised pairs")
        if not table.num_rows:
            raise DataError(f"{path} holds no pair: nothing to train on; see the report beside it for what was dropped")
        pairs = cls(
            ids=table.column("id").to_pylist(),
            prompts=Ragged.from_column(table.column("prompt_ids")),
            chosen=Ragged.from_column(table.column("chosen_ids")),
            rejected=Ragged.from_column(table.column("rejected_ids")),
            in_order=(table.schema.metadata or {}).get(b"order") == b"kept",
        )
        empty = np.flatnonzero(
            (pairs.chosen.lengths == 0) | (pairs.rejected.lengths == 0) | (pairs.prompts.lengths == 0)
        )
        if len(empty):
            raise DataError(
                f"{path}: {len(empty)} pairs have an empty prompt or completion, first {pairs.ids[empty[0]]}"
            )
        return pairs


def read_margins(path: Path) -> Tensor:
    """Return the score gap of every pair of a ``tokens.parquet``, float32 [N], 0 where the chosen scored lower.

    Raises DataError where a pair has none.
    """
    table = pq.read_table(path, columns=["id", "margin"])
    gaps = table.column("margin").to_pylist()
    if missing := [name for name, gap in zip(table.column("id").to_pylist(), gaps, strict=True) if gap is None]:
        raise DataError(
            f"{path}: {len(missing)} of {len(gaps)} pairs have no score gap, first {missing[0]}",
            hint="loss margin needs a set whose responses have scores; sets of ranks and choices have none",
        )
    return torch.tensor(gaps, dtype=torch.float32).clamp_min(0)


def pad_sequences(
    prompts: Sequence[IntArray], completions: Sequence[IntArray], pad_id: int, *, side: Side = "right"
) -> dict[str, Tensor]:
    """Return prompt + completion rows padded to the longest on ``side``.

    Keys, each [B, T] int64: ``input_ids``, ``attention_mask`` (1 on real tokens), ``completion_mask`` (1 on
    completion tokens). Which token is padding is told by the mask alone, never by its id.
    """
    widths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    shape = (len(widths), max(widths))
    ids, mask, completed = np.full(shape, pad_id), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        start = 0 if side == "right" else shape[1] - widths[row]
        middle, end = start + len(prompt), start + widths[row]
        ids[row, start:middle] = prompt
        ids[row, middle:end] = completion
        mask[row, start:end] = 1
        completed[row, middle:end] = 1
    arrays = {"input_ids": ids, "attention_mask": mask, "completion_mask": completed}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@dataclass(frozen=True)
class PairCollator:
    """Makes a batch of B pairs from row numbers: 2B sequences in one array, first all chosen, then all rejected.

    ``columns`` are further per-pair values [N] (reference log-probabilities, margins) that travel with the batch;
    ``rows`` [B] are the row numbers themselves.
    """

    pairs: PairTokens
    pad_id: int
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def examples(self) -> PairTokens:
        """The pairs."""
        return self.pairs

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the padded batch of these rows."""
        pairs = self.pairs
        prompts = [pairs.prompts[row] for row in rows]
        completions = [pairs.chosen[row] for row in rows] + [pairs.rejected[row] for row in rows]
        batch = pad_sequences(prompts * 2, completions, self.pad_id)
        index = torch.tensor(rows)
        return {**batch, "rows": index, **{name: values[index] for name, values in self.columns.items()}}


@dataclass(frozen=True)
class ConversationTokens(Examples):
    """The conversations of a ``tokens.parquet``; ``counted`` is 1 on the tokens that the loss is over."""

    tokens: Ragged
    counted: Ragged

    @property
    def lengths_N(self) -> IntArray:
        """Tokens of each conversation."""
        return self.tokens.lengths

    @classmethod
    def read(cls, path: Path) -> ConversationTokens:
        """Read ``tokens.parquet`` of the conversations format; raises DataError when it holds something else."""
        table = pq.read_table(path)
        if missing := [name for name in ("id", "input_ids", "loss_mask") if name not in table.column_names]:
            raise DataError(f"{path} lacks the columns {missing}; it has {table.column_names}: not conversations")
        if not table.num_rows:
            raise DataError(f"{path} holds no conversation; see the report beside it for what was dropped")
        tokens, counted = (Ragged.from_column(table.column(name)) for name in ("input_ids", "loss_mask"))
        if not np.array_equal(tokens.offsets, counted.offsets):
            raise DataError(f"{path}: input_ids and loss_mask differ in length")
        return cls(table.column("id").to_pylist(), tokens, counted)


@dataclass(frozen=True)
class ConversationCollator:
    """Makes a batch of B conversations; ``completion_mask`` is 1 on the tokens that the loss is over."""

    conversations: ConversationTokens
    pad_id: int

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the batch of these rows, padded on the right."""
        tokens = [self.conversations.tokens[row] for row in rows]
        batch = pad_sequences([tokens[0][:0]] * len(rows), tokens, self.pad_id)
        for place, row in enumerate(rows):
            counted = self.conversations.counted[row]
            batch["completion_mask"][place, : len(counted)] = torch.from_numpy(counted)
        return {**batch, "rows": torch.tensor(rows)}
