"""KTO, BCO and AOT as functions: against slow formulas of a whole batch, and cases worked by hand."""

from __future__ import annotations

import math
import random

import pytest
import torch

from ablate.training.batch_losses import BATCH_LOSSES, aot, aot_unpaired, bco, kto
from ablate.training.coupling import COUPLINGS, of_equal_rank
from ablate.training.losses import PairLogprobs

BETA, EPSILON = 0.3, 0.15
DESIRABLE, UNDESIRABLE = 1.4, 0.6
Row = tuple[float, float, float, float]


def sigma(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def slow_kto(rows: list[Row], kl: float) -> float:
    """Ethayarajh et al. 2024: the mean of lambda_y - v(x, y) over the 2B examples of a batch."""
    losses = []
    for c, r, ref_c, ref_r in rows:
        losses.append(DESIRABLE - DESIRABLE * sigma(BETA * ((c - ref_c) - kl)))
        losses.append(UNDESIRABLE - UNDESIRABLE * sigma(BETA * (kl - (r - ref_r))))
    return sum(losses) / len(losses)


def slow_bco(rows: list[Row], shift: float) -> float:
    """Jung et al. 2024: binary cross-entropy of a classifier whose logit is the shifted reward."""
    losses = []
    for c, r, ref_c, ref_r in rows:
        losses.append(-math.log(sigma(BETA * (c - ref_c) - shift)))
        losses.append(-math.log(1 - sigma(BETA * (r - ref_r) - shift)))
    return sum(losses) / len(losses)


def slow_smoothed(h: float) -> float:
    return -(1 - EPSILON) * math.log(sigma(h)) - EPSILON * math.log(sigma(-h))


def slow_aot(rows: list[Row]) -> float:
    """Melnyk et al. 2024, paired: sorted differences of policy and reference, rank by rank."""
    policy = sorted(c - r for c, r, _, _ in rows)
    reference = sorted(ref_c - ref_r for _, _, ref_c, ref_r in rows)
    return sum(slow_smoothed(BETA * (p - q)) for p, q in zip(policy, reference, strict=True)) / len(rows)


def slow_aot_unpaired(rows: list[Row]) -> float:
    """Melnyk et al. 2024, unpaired: sorted log-ratios of chosen and of rejected completions, rank by rank."""
    chosen = sorted(c - ref_c for c, _, ref_c, _ in rows)
    rejected = sorted(r - ref_r for _, r, _, ref_r in rows)
    return sum(slow_smoothed(BETA * (p - q)) for p, q in zip(chosen, rejected, strict=True)) / len(rows)


def random_rows(count: int) -> list[Row]:
    generator = random.Random(6)
    return [tuple(generator.uniform(-20, -5) for _ in range(4)) for _ in range(count)]  # type: ignore[misc]


def as_tensors(rows: list[Row]) -> PairLogprobs:
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]
    for column in columns[:2]:
        column.requires_grad_()
    return PairLogprobs(*columns, torch.ones(len(rows)), torch.ones(len(rows)))


def of_batch(value: float, pairs: PairLogprobs) -> torch.Tensor:
    return torch.full_like(pairs.chosen_B, value).detach()


def fast_aot(pairs: PairLogprobs) -> torch.Tensor:
    policy_B = (pairs.chosen_B - pairs.rejected_B).detach()
    quantile_B = of_equal_rank(policy_B, pairs.reference_chosen_B - pairs.reference_rejected_B)
    return aot(pairs, quantile_B, beta=BETA, label_smoothing=EPSILON)


def fast_aot_unpaired(pairs: PairLogprobs) -> torch.Tensor:
    chosen_B, rejected_B = pairs.chosen_ratio_B.detach(), pairs.rejected_ratio_B.detach()
    quantiles = of_equal_rank(chosen_B, rejected_B), of_equal_rank(rejected_B, chosen_B)
    return aot_unpaired(pairs, *quantiles, beta=BETA, label_smoothing=EPSILON)


def fast_kto(pairs: PairLogprobs) -> torch.Tensor:
    kl_B = of_batch(0.8, pairs)
    return kto(pairs, kl_B, beta=BETA, desirable_weight=DESIRABLE, undesirable_weight=UNDESIRABLE)


CASES = pytest.mark.parametrize(
    ("slow", "fast"),
    [
        (lambda rows: slow_kto(rows, 0.8), fast_kto),
        (lambda rows: slow_bco(rows, -0.4), lambda pairs: bco(pairs, of_batch(-0.4, pairs), beta=BETA)),
        (slow_aot, fast_aot),
        (slow_aot_unpaired, fast_aot_unpaired),
    ],
    ids=["kto", "bco", "aot", "aot_unpaired"],
)


@CASES
def test_the_mean_equals_the_slow_loss_of_the_batch(slow, fast):
    rows = random_rows(9)
    assert fast(as_tensors(rows)).mean().item() == pytest.approx(slow(rows), rel=1e-9)


@CASES
def test_gradients_equal_central_differences_of_the_slow_loss_of_the_batch(slow, fast):
    """Also where a completion is compared with one of another pair: each has the gradient of the whole."""
    rows = random_rows(9)
    pairs = as_tensors(rows)
    fast(pairs).mean().backward()
    step = 1e-5

    def moved(index: int, place: int, by: float) -> float:
        row = tuple(value + by * (place == at) for at, value in enumerate(rows[index]))
        return slow([*rows[:index], row, *rows[index + 1 :]])

    for place, values_B in enumerate((pairs.chosen_B, pairs.rejected_B)):
        for index in range(len(rows)):
            expected = (moved(index, place, step) - moved(index, place, -step)) / (2 * step)
            assert values_B.grad[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_kto_worked_by_hand():
    # chosen rose by 3 nats, rejected fell by 1, z0 = 1: arguments 0.5 * 2 and 0.5 * 2, both 1 - sigma(1) = 0.2689414
    pairs = as_tensors([(-7.0, -11.0, -10.0, -10.0)])
    kl_B = of_batch(1.0, pairs)
    assert kto(pairs, kl_B, beta=0.5, desirable_weight=1, undesirable_weight=1).item() == pytest.approx(0.2689414)
    assert kto(pairs, kl_B, beta=0.5, desirable_weight=3, undesirable_weight=1).item() == pytest.approx(2 * 0.2689414)


def test_bco_worked_by_hand():
    # rewards 1.5 and -0.5, their mean 0.5 as the shift: logits 1 and -1, both log(1 + e^-1) = 0.3132617
    pairs = as_tensors([(-7.0, -11.0, -10.0, -10.0)])
    assert bco(pairs, of_batch(0.5, pairs), beta=0.5).item() == pytest.approx(0.3132617)


def test_aot_worked_by_hand():
    # Differences of the policy: 4 and 0; of the reference: 1 and 2. By rank 4 - 2 and 0 - 1; by pair it were 3 and -2.
    pairs = as_tensors([(-6.0, -10.0, -9.0, -10.0), (-10.0, -10.0, -8.0, -10.0)])
    quantile_B = of_equal_rank(torch.tensor([4.0, 0.0]), torch.tensor([1.0, 2.0]))
    assert quantile_B.tolist() == [2.0, 1.0]
    expected = [-math.log(sigma(2)), -math.log(sigma(-1))]
    assert aot(pairs, quantile_B, beta=1.0, label_smoothing=0.0).tolist() == pytest.approx(expected)


def test_equal_values_keep_their_order():
    assert of_equal_rank(torch.tensor([3.0, 1.0, 1.0]), torch.tensor([7.0, 5.0, 6.0])).tolist() == [7.0, 5.0, 6.0]


def test_the_tables_name_the_same_losses():
    assert set(BATCH_LOSSES) == set(COUPLINGS)
    for name, function in BATCH_LOSSES.items():
        assert function.__name__ == name
