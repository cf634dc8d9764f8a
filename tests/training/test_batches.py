"""The order of examples: a function of lengths, batch size, seed and epoch, and of nothing else."""

import numpy as np
import pytest

from ablate.training.batches import WINDOW_BATCHES, MicroBatches, batch_order, micro_batch_size

LENGTHS = np.random.default_rng(0).integers(2, 60, 1000)


def padding(batches: list[list[int]]) -> float:
    """Share of padding in batches padded to their longest row."""
    padded = sum(len(rows) * max(LENGTHS[row] for row in rows) for rows in batches)
    return 1 - LENGTHS.sum() / padded


def slow_order(lengths, batch_size: int, permutation: list[int]) -> set[tuple[int, ...]]:
    """The batches of one epoch, as lists, from the permutation."""
    whole, batches = len(permutation) - len(permutation) % batch_size, set()
    for start in range(0, whole, WINDOW_BATCHES * batch_size):
        window = permutation[start : min(start + WINDOW_BATCHES * batch_size, whole)]
        window = [row for _, _, row in sorted((lengths[row], place, row) for place, row in enumerate(window))]
        batches |= {tuple(window[first : first + batch_size]) for first in range(0, len(window), batch_size)}
    return batches


def test_windows_of_a_permutation_are_sorted_and_cut():
    from ablate.training.seeding import derive_seed

    permutation = np.random.default_rng(derive_seed(5, "order", 2)).permutation(1000).tolist()
    *batches, last = batch_order(LENGTHS, 24, seed=5, epoch=2)
    assert {tuple(rows) for rows in batches} == slow_order(LENGTHS, 24, permutation)
    assert len(batches) == 41 and len(last) == 16
    assert sorted(last) == sorted(permutation[984:])
    assert [min(LENGTHS[rows]) for rows in batches] != sorted(min(LENGTHS[rows]) for rows in batches)


@pytest.mark.parametrize("rows, batch_size", [(1000, 24), (960, 24), (5, 8), (8, 8), (1, 1)])
def test_every_epoch_has_every_row_once_and_at_most_one_smaller_batch_at_its_end(rows, batch_size):
    for epoch in range(3):
        batches = batch_order(LENGTHS[:rows], batch_size, seed=1, epoch=epoch)
        assert sorted(row for batch in batches for row in batch) == list(range(rows))
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert all((np.diff(LENGTHS[batch]) >= 0).all() for batch in batches)


def test_orders_depend_on_seed_and_epoch_and_not_on_the_state_of_any_generator():
    def order(seed: int, epoch: int) -> str:
        np.random.seed(len("anything"))
        return str(batch_order(LENGTHS, 24, seed, epoch))

    assert order(1, 0) == order(1, 0)
    assert len({order(seed, epoch) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_rows_of_a_batch_have_similar_lengths_and_rows_of_a_window_do_not():
    random = np.random.default_rng(1).permutation(1000)
    assert padding([random[start : start + 24].tolist() for start in range(0, 1000, 24)]) > 0.4
    assert padding(batch_order(LENGTHS, 24, seed=1, epoch=0)) < 0.1


def test_micro_batches_are_the_batches_in_parts():
    def order(micro_batch: int) -> list[list[int]]:
        batches = MicroBatches(LENGTHS[:29], batch_size=8, micro_batch=micro_batch, seed=1)
        batches.set_epoch(3)
        found = list(batches)
        assert len(found) == len(batches)
        return found

    whole = batch_order(LENGTHS[:29], 8, seed=1, epoch=3)
    assert order(8) == whole
    assert order(2) == [rows[start : start + 2] for rows in whole for start in range(0, len(rows), 2)]
    assert [len(rows) for rows in order(2)] == [2] * 14 + [1]


def test_micro_batch_divides_the_batch_and_fits_the_limits():
    assert micro_batch_size(32, 80, vocabulary=300) == 32
    assert micro_batch_size(32, 4096, vocabulary=32_000) == 2
    assert micro_batch_size(32, 16_384, vocabulary=128_000) == 1
    assert micro_batch_size(32, 1200, vocabulary=300) == 8
    assert micro_batch_size(12, 80, vocabulary=300, limit=5) == 4
    with pytest.raises(ValueError, match="1 micro-batches of 3 do not divide the batch of 8"):
        MicroBatches(LENGTHS, batch_size=8, micro_batch=3, seed=0)


def test_a_kept_order_is_that_of_the_rows_in_every_epoch():
    batches = batch_order(LENGTHS[:29], 8, seed=1, epoch=0, kept_order=True)
    assert [sorted(rows) for rows in batches] == [list(range(start, min(start + 8, 29))) for start in (0, 8, 16, 24)]
    assert all((np.diff(LENGTHS[rows]) >= 0).all() for rows in batches)
    kept = MicroBatches(LENGTHS[:29], batch_size=8, micro_batch=4, seed=1, kept_order=True)
    first = list(kept)
    kept.set_epoch(3)
    assert list(kept) == first and sorted(first[0] + first[1]) == list(range(8))
