"""Losses against slow references in plain Python, hand-worked cases, and their gradients."""

from __future__ import annotations

import inspect
import math
import random
from dataclasses import replace

import pytest
import torch

from ablate.training.losses import (
    PREFERENCE_LOSSES,
    PairLogprobs,
    apo_down,
    apo_zero,
    bco_pair,
    discopop,
    dpo,
    exo_pair,
    hinge,
    ipo,
    ipo_avg,
    nca_pair,
    robust_dpo,
    sigmoid_norm,
    sppo_hard,
)
from ablate.training.schedules import learning_rate_factor

BETA = 0.3
EPSILON = 0.15
TAU = 0.8


def sigma(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def slow_dpo(c: float, r: float, ref_c: float, ref_r: float) -> float:
    """Rafailov et al. 2023, eq. 7, one pair, as printed."""
    return -math.log(sigma(BETA * (c - ref_c) - BETA * (r - ref_r)))


def slow_cdpo(c: float, r: float, ref_c: float, ref_r: float) -> float:
    """Mitchell 2023: the label is right with probability 1 - epsilon; binary cross-entropy of that target."""
    p = sigma(BETA * ((c - ref_c) - (r - ref_r)))
    return -((1 - EPSILON) * math.log(p) + EPSILON * math.log(1 - p))


def difference(c: float, r: float, ref_c: float, ref_r: float) -> float:
    return (c - ref_c) - (r - ref_r)


def slow_ipo(*logps: float) -> float:
    """Azar et al. 2023, eq. 17 with tau = beta."""
    return (difference(*logps) - 1 / (2 * BETA)) ** 2


def slow_hinge(*logps: float) -> float:
    """Liu et al. 2023, hinge-norm, with gamma = beta."""
    return max(0.0, 1 - BETA * difference(*logps))


def slow_robust(*logps: float) -> float:
    """Chowdhury et al. 2024, eq. 12: the losses of the label as given and flipped, weighted so that flips cancel."""
    given, flipped = slow_dpo(*logps), -math.log(sigma(-BETA * difference(*logps)))
    return ((1 - EPSILON) * given - EPSILON * flipped) / (1 - 2 * EPSILON)


def slow_exo(*logps: float) -> float:
    """Ji et al. 2024, eq. 16: KL(p_theta || p_r) over two completions, probabilities as printed."""
    policy = (sigma(BETA * difference(*logps)), sigma(-BETA * difference(*logps)))
    labels = (1 - EPSILON, EPSILON)
    return sum(p * math.log(p / q) for p, q in zip(policy, labels, strict=True))


def slow_nca(c: float, r: float, ref_c: float, ref_r: float) -> float:
    """Chen et al. 2024: -log sigma(r_w) - 1/2 sum over both of log sigma(-r)."""
    chosen, rejected = BETA * (c - ref_c), BETA * (r - ref_r)
    return -math.log(sigma(chosen)) - sum(0.5 * math.log(1 - sigma(reward)) for reward in (chosen, rejected))


def slow_bco_pair(c: float, r: float, ref_c: float, ref_r: float) -> float:
    """Jung et al. 2024 with delta = 0: the cross-entropies of one positive and one negative example."""
    return -math.log(sigma(BETA * (c - ref_c))) - math.log(1 - sigma(BETA * (r - ref_r)))


def slow_sppo(c: float, r: float, ref_c: float, ref_r: float) -> float:
    """Wu et al. 2024, eq. 4.7: [log ratio - eta (P - 1/2)]^2 with P = 1 and P = 0, eta = 1/beta."""
    eta = 1 / BETA
    return (c - ref_c - eta * (1 - 0.5)) ** 2 + (r - ref_r - eta * (0 - 0.5)) ** 2


def slow_apo_zero(c: float, r: float, ref_c: float, ref_r: float) -> float:
    """D'Oosterlinck et al. 2024, eq. 7: -sigma(r_w) + sigma(r_l), and a constant 1."""
    return -sigma(BETA * (c - ref_c)) + sigma(BETA * (r - ref_r)) + 1


def slow_apo_down(c: float, r: float, ref_c: float, ref_r: float) -> float:
    """D'Oosterlinck et al. 2024, eq. 8: sigma(r_w) - sigma(r_w - r_l), and a constant 1."""
    return sigma(BETA * (c - ref_c)) - sigma(BETA * difference(c, r, ref_c, ref_r)) + 1


def slow_discopop(*logps: float) -> float:
    """Lu et al. 2024, eq. 5: the log-ratio modulated loss."""
    rho = BETA * difference(*logps)
    share = sigma(rho / TAU)
    return (1 - share) * -math.log(sigma(rho)) + share * math.exp(-rho)


def random_pairs(count: int) -> list[tuple[float, float, float, float]]:
    generator = random.Random(3)
    return [tuple(generator.uniform(-30, -5) for _ in range(4)) for _ in range(count)]  # type: ignore[misc]


def as_tensors(rows: list[tuple[float, float, float, float]]) -> PairLogprobs:
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]
    for column in columns[:2]:
        column.requires_grad_()
    counts = torch.ones(len(rows))
    return PairLogprobs(*columns, counts, counts)


CASES = [
    (slow_dpo, lambda pairs: dpo(pairs, beta=BETA)),
    (slow_cdpo, lambda pairs: dpo(pairs, beta=BETA, label_smoothing=EPSILON)),
    (slow_ipo, lambda pairs: ipo(pairs, beta=BETA)),
    (slow_ipo, lambda pairs: ipo_avg(pairs, beta=BETA)),  # of one token a completion
    (slow_hinge, lambda pairs: hinge(pairs, beta=BETA)),
    (slow_robust, lambda pairs: robust_dpo(pairs, beta=BETA, label_smoothing=EPSILON)),
    (slow_dpo, lambda pairs: sigmoid_norm(pairs, beta=BETA)),  # of one token a completion
    (slow_exo, lambda pairs: exo_pair(pairs, beta=BETA, label_smoothing=EPSILON)),
    (slow_nca, lambda pairs: nca_pair(pairs, beta=BETA)),
    (slow_bco_pair, lambda pairs: bco_pair(pairs, beta=BETA)),
    (slow_sppo, lambda pairs: sppo_hard(pairs, beta=BETA)),
    (slow_apo_zero, lambda pairs: apo_zero(pairs, beta=BETA)),
    (slow_apo_down, lambda pairs: apo_down(pairs, beta=BETA)),
    (slow_discopop, lambda pairs: discopop(pairs, beta=BETA, tau=TAU)),
]
NAMES = ["dpo", "cdpo", "ipo", "ipo_avg", "hinge", "robust_dpo", "sigmoid_norm", "exo_pair", "nca_pair", "bco_pair"]
NAMES += ["sppo_hard", "apo_zero", "apo_down", "discopop"]


@pytest.mark.parametrize(("slow", "fast"), CASES, ids=NAMES)
def test_preference_losses_equal_their_formula_pair_by_pair(slow, fast):
    rows = random_pairs(50)
    expected = torch.tensor([slow(*row) for row in rows], dtype=torch.float64)
    torch.testing.assert_close(fast(as_tensors(rows)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("slow", "fast"), CASES, ids=NAMES)
def test_gradients_equal_central_differences_of_the_slow_loss(slow, fast):
    rows = random_pairs(20)
    pairs = as_tensors(rows)
    fast(pairs).sum().backward()
    step = 1e-5
    for index, (c, r, ref_c, ref_r) in enumerate(rows):
        by_chosen = (slow(c + step, r, ref_c, ref_r) - slow(c - step, r, ref_c, ref_r)) / (2 * step)
        by_rejected = (slow(c, r + step, ref_c, ref_r) - slow(c, r - step, ref_c, ref_r)) / (2 * step)
        assert pairs.chosen_B.grad[index].item() == pytest.approx(by_chosen, rel=1e-5, abs=1e-8)
        assert pairs.rejected_B.grad[index].item() == pytest.approx(by_rejected, rel=1e-5, abs=1e-8)


def test_ipo_and_hinge_worked_by_hand():
    # chosen rose by 2 nats, rejected fell by 1: h = 3. At beta 0.25 IPO's target is 2, at beta 0.5 it is 1.
    pairs = as_tensors([(-8.0, -11.0, -10.0, -10.0)])
    assert ipo(pairs, beta=0.25).item() == pytest.approx(1.0)
    assert ipo(pairs, beta=0.5).item() == pytest.approx(4.0)
    # over 4 and 2 tokens: h = 2/4 + 1/2 = 1, the target of beta 0.5
    averaged = replace(pairs, chosen_tokens_B=torch.tensor([4.0]), rejected_tokens_B=torch.tensor([2.0]))
    assert ipo_avg(averaged, beta=0.5).item() == pytest.approx(0.0)
    assert ipo_avg(averaged, beta=0.25).item() == pytest.approx(1.0)
    assert hinge(pairs, beta=0.25).item() == pytest.approx(0.25)
    assert hinge(pairs, beta=0.5).item() == 0.0


def test_losses_of_single_rewards_worked_by_hand():
    # rewards at beta 1: chosen ln 3, rejected -ln 4, so sigma 3/4 and 1/5, sigma of the difference 12/13
    pairs = as_tensors([(math.log(3), -math.log(4), 0.0, 0.0)])
    assert apo_zero(pairs, beta=1.0).item() == pytest.approx(1 / 4 + 1 / 5)
    assert apo_down(pairs, beta=1.0).item() == pytest.approx(3 / 4 + 1 / 13)
    assert bco_pair(pairs, beta=1.0).item() == pytest.approx(-math.log(3 / 4) - math.log(4 / 5))
    assert nca_pair(pairs, beta=1.0).item() == pytest.approx(-math.log(3 / 4) - (math.log(1 / 4) + math.log(4 / 5)) / 2)
    # EXO is 0 where sigma of the difference is what the labels say
    assert exo_pair(pairs, beta=1.0, label_smoothing=1 / 13).item() == pytest.approx(0.0, abs=1e-12)
    # targets 1 and -1 at beta 1/2; log-ratios ln 3 and -ln 4
    assert sppo_hard(pairs, beta=0.5).item() == pytest.approx((math.log(3) - 1) ** 2 + (1 - math.log(4)) ** 2)
    # equal to the reference, both parts of DiscoPOP weigh 1/2: (ln 2 + 1) / 2
    assert discopop(as_tensors([(-3.0, -4.0, -3.0, -4.0)]), beta=0.1, tau=0.05).item() == pytest.approx(
        (math.log(2) + 1) / 2
    )
    # over 2 and 4 tokens: (ln 9)/2 + (ln 16)/4 = ln 6, and sigma(ln 6) = 6/7
    lengths = {"chosen_tokens_B": torch.tensor([2.0]), "rejected_tokens_B": torch.tensor([4.0])}
    long = replace(as_tensors([(math.log(9), -math.log(16), 0.0, 0.0)]), **lengths)
    assert sigmoid_norm(long, beta=1.0).item() == pytest.approx(-math.log(6 / 7))


def test_robust_dpo_is_unbiased_under_flipped_labels():
    rows = random_pairs(20)
    flipped = [(r, c, ref_r, ref_c) for c, r, ref_c, ref_r in rows]
    given, other = (robust_dpo(as_tensors(part), beta=BETA, label_smoothing=EPSILON) for part in (rows, flipped))
    expected = (1 - EPSILON) * given + EPSILON * other
    torch.testing.assert_close(expected, dpo(as_tensors(rows), beta=BETA))


def test_dpo_worked_by_hand():
    # chosen rose by 2 nats, rejected fell by 1: h = 0.5 * 3 = 1.5; -log sigma(1.5) = log(1 + e^-1.5) = 0.2014133
    pairs = as_tensors([(-8.0, -11.0, -10.0, -10.0)])
    assert dpo(pairs, beta=0.5).item() == pytest.approx(0.2014133, abs=1e-7)
    # cDPO at epsilon 0.1 adds 0.1 * (-log sigma(-1.5) + log sigma(1.5)) = 0.1 * 1.5
    assert dpo(pairs, beta=0.5, label_smoothing=0.1).item() == pytest.approx(0.2014133 + 0.15, abs=1e-7)


def test_a_policy_equal_to_its_reference_has_loss_ln_2_whatever_beta():
    pairs = as_tensors([(-8.0, -11.0, -8.0, -11.0)])
    for beta in (0.01, 0.1, 5.0):
        assert dpo(pairs, beta=beta).item() == pytest.approx(math.log(2), abs=1e-12)
        assert dpo(pairs, beta=beta, label_smoothing=0.2).item() == pytest.approx(math.log(2), abs=1e-12)


def test_cdpo_has_its_minimum_at_the_assumed_label_noise():
    best = math.log((1 - EPSILON) / EPSILON) / BETA  # where sigma(h) = 1 - epsilon
    at = [dpo(as_tensors([(d, 0.0, 0.0, 0.0)]), beta=BETA, label_smoothing=EPSILON).item() for d in (best, best + 0.1)]
    assert at[0] < at[1]
    assert at[0] < dpo(as_tensors([(best - 0.1, 0.0, 0.0, 0.0)]), beta=BETA, label_smoothing=EPSILON).item()


def test_large_differences_stay_finite():
    pairs = as_tensors([(-1000.0, -1.0, -1.0, -1000.0)])
    assert dpo(pairs, beta=1.0).item() == pytest.approx(1998.0)
    assert dpo(as_tensors([(-1.0, -1000.0, -1000.0, -1.0)]), beta=1.0).item() == pytest.approx(0.0, abs=1e-12)


def test_the_tables_name_each_function_once():
    assert len(set(PREFERENCE_LOSSES.values())) == len(PREFERENCE_LOSSES)
    for name, function in PREFERENCE_LOSSES.items():
        assert function.__name__ == name.replace("-", "_")
        assert next(iter(inspect.signature(function).parameters)) == "pairs"


def test_schedule_worked_by_hand():
    # 10 steps, 20 % warm-up: 0, 1/2, then linear from 1 at step 2 to 0 at step 10
    linear = [learning_rate_factor(s, steps=10, warmup_ratio=0.2, shape="linear") for s in range(11)]
    assert linear == pytest.approx([0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])
    # down to a tenth of the peak
    floored = [learning_rate_factor(s, steps=10, warmup_ratio=0.0, shape="linear", floor=0.1) for s in (0, 5, 10)]
    assert floored == pytest.approx([1, 0.55, 0.1])
    cosine = [learning_rate_factor(s, steps=4, warmup_ratio=0.0, shape="cosine") for s in range(5)]
    assert cosine == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0])
    assert learning_rate_factor(7, steps=10, warmup_ratio=0.2, shape="constant") == 1


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
def test_the_last_step_is_never_part_of_the_warm_up(shape):
    def rates(steps: int, warmup_ratio: float) -> list[float]:
        return [learning_rate_factor(s, steps=steps, warmup_ratio=warmup_ratio, shape=shape) for s in range(steps)]

    assert rates(1, 0.03) == [1.0]
    assert rates(2, 0.1) == [0.0, 1.0]
    assert rates(3, 0.9) == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_schedule_equals_that_of_transformers(shape):
    from transformers import get_scheduler

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = get_scheduler(shape, optimizer, num_warmup_steps=3, num_training_steps=23)
    for step in range(23):
        ours = learning_rate_factor(step, steps=23, warmup_ratio=0.1, shape=shape)  # ceil(2.3) = 3 warm-up steps
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()
