"""Which examples share a batch, in what order the batches come, and how a batch is cut into forward passes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from ablate.training.collate import IntArray
from ablate.training.distributed import share, world
from ablate.training.seeding import derive_seed

# Examples of this many batches are sorted by length together: little padding, and batches that are still mixed.
WINDOW_BATCHES = 16

# Limits of one forward and backward pass; the micro-batch is the largest divisor of the batch that keeps to both.
MICRO_BATCH_TOKENS = 16_384
MICRO_BATCH_LOGITS = 2**28


def batch_order(
    lengths_N: IntArray,
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    window: int = WINDOW_BATCHES,
    kept_order: bool = False,
) -> list[list[int]]:
    """Return the batches of an epoch as row numbers, a function of the arguments alone.

    A seeded permutation is cut into windows of ``window`` batches; the rows of a window are sorted by length and cut
    into batches, and the batches of all windows come in random order. So which rows share a batch depends on their
    lengths, but for every loss and micro-batch alike. The rows that do not fill a batch are the permutation's last
    ones: a random sample too, in a smaller batch at the end. Inside each batch rows are sorted by length, so that its
    micro-batches pad little. With ``kept_order`` the batches are the rows as they come, in every epoch.
    """
    if kept_order:
        rows_N = np.arange(len(lengths_N))
        starts = range(0, len(rows_N), batch_size)
        return [_by_length(rows_N[start : start + batch_size], lengths_N).tolist() for start in starts]
    random = np.random.default_rng(derive_seed(seed, "order", epoch))
    order = random.permutation(len(lengths_N))
    whole = len(order) // batch_size * batch_size
    sorted_windows = [
        _by_length(order[start : min(start + window * batch_size, whole)], lengths_N)
        for start in range(0, whole, window * batch_size)
    ]
    batches_KB = np.concatenate([order[:0], *sorted_windows]).reshape(-1, batch_size)
    batches: list[list[int]] = batches_KB[random.permutation(len(batches_KB))].tolist()
    rest = _by_length(order[whole:], lengths_N).tolist()
    return [*batches, rest] if rest else batches


def _by_length(rows_M: IntArray, lengths_N: IntArray) -> IntArray:
    return rows_M[np.argsort(lengths_N[rows_M], kind="stable")]


class MicroBatches(Sampler[list[int]]):
    """The batches of ``batch_order`` cut into micro-batches, epoch by epoch; of several processes each has its share.

    Micro-batches never cross a batch: size times processes must divide ``batch_size``, and only the last batch of an
    epoch may be smaller. All processes make the same number of passes over a batch: one that has no row left gets an
    idle micro-batch, ``[~row]``, whose pass counts nothing.
    """

    drop_last = False

    def __init__(
        self, lengths_N: IntArray, *, batch_size: int, micro_batch: int, seed: int, kept_order: bool = False
    ) -> None:
        if batch_size % (micro_batch * world()):
            raise ValueError(f"{world()} micro-batches of {micro_batch} do not divide the batch of {batch_size}")
        self.lengths_N = lengths_N
        self.batch_size = micro_batch
        self.whole_batch = batch_size
        self.seed = seed
        self.kept_order = kept_order
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; called by the training loop before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths_N), self.whole_batch)
        return whole * self._passes(self.whole_batch) + self._passes(rest)

    def __iter__(self) -> Iterator[list[int]]:
        order = batch_order(self.lengths_N, self.whole_batch, self.seed, self.epoch, kept_order=self.kept_order)
        for rows in order:
            own = share(rows)
            for index in range(self._passes(len(rows))):
                yield own[index * self.batch_size : (index + 1) * self.batch_size] or [~rows[0]]

    def _passes(self, rows: int) -> int:
        """Return the micro-batches that a batch of ``rows`` takes of every process: those of the largest share."""
        largest = -(-rows // world())
        return -(-largest // self.batch_size)


def micro_batch_size(batch_size: int, tokens: int, vocabulary: int, limit: int | None = None) -> int:
    """Return the largest divisor of ``batch_size`` whose examples of ``tokens`` tokens fit one pass (at least 1).

    ``tokens`` are those of the longest example, all its sequences padded. ``limit`` (examples) replaces the limits of
    tokens and logits when the resources name a micro-batch.
    """
    room = min(MICRO_BATCH_TOKENS, max(MICRO_BATCH_LOGITS // max(vocabulary, 1), 1))
    most = limit if limit is not None else max(room // tokens, 1)
    return max(size for size in range(1, min(most, batch_size) + 1) if batch_size % size == 0)
