"""Rewards, advantages and losses against a reference in plain Python, written from the papers over unpadded lists."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ablate.training.advantages import (
    generalised_advantages,
    last_token,
    masked_mean,
    penalised_rewards,
    whiten,
)
from ablate.training.experience import outcomes
from ablate.training.policy_loss import (
    approximate_kl,
    clipped_policy_losses,
    clipped_value_losses,
    policy_clipped,
    value_clipped,
)
from ablate.training.rollouts import Episode, collate

BETA, GAMMA, LAMBDA, CLIP = 0.05, 0.97, 0.9, 0.2
Rows = list[list[float]]


def reference_rewards(logps: Rows, reference: Rows, scores: list[float]) -> Rows:
    rewards = []
    for row, other, score in zip(logps, reference, scores, strict=True):
        values = [-BETA * (a - b) for a, b in zip(row, other, strict=True)]
        values[-1] += score
        rewards.append(values)
    return rewards


def reference_advantages(rewards: Rows, values: Rows) -> Rows:
    """A_t = sum over l of (gamma lambda)^l delta_{t+l}: the sum itself, not the recursion."""
    advantages = []
    for reward, value in zip(rewards, values, strict=True):
        count = len(reward)
        after = [*value[1:], 0.0]
        deltas = [reward[t] + GAMMA * after[t] - value[t] for t in range(count)]
        advantages.append([sum((GAMMA * LAMBDA) ** (k - t) * deltas[k] for k in range(t, count)) for t in range(count)])
    return advantages


def reference_whiten(rows: Rows) -> Rows:
    flat = [x for row in rows for x in row]
    mean = sum(flat) / len(flat)
    variance = sum((x - mean) ** 2 for x in flat) / len(flat)
    return [[(x - mean) / math.sqrt(variance + 1e-8) for x in row] for row in rows]


def reference_policy_loss(new: Rows, old: Rows, advantages: Rows) -> float:
    total, count = 0.0, 0
    for row, before, gains in zip(new, old, advantages, strict=True):
        for a, b, gain in zip(row, before, gains, strict=True):
            ratio = math.exp(a - b)
            total += -min(ratio * gain, min(max(ratio, 1 - CLIP), 1 + CLIP) * gain)
            count += 1
    return total / count


def reference_value_loss(new: Rows, old: Rows, returns: Rows) -> float:
    total, count = 0.0, 0
    for row, before, targets in zip(new, old, returns, strict=True):
        for v, v_old, target in zip(row, before, targets, strict=True):
            v_clip = min(max(v, v_old - CLIP), v_old + CLIP)
            total += 0.5 * max((v - target) ** 2, (v_clip - target) ** 2)
            count += 1
    return total / count


def pad(rows: Rows, width: int, filler: float = float("nan")) -> Tensor:
    """NaN at padding: whatever reads it shows it in the result."""
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows], dtype=torch.float64)


class Case:
    """Random episodes of different lengths; padding has the EOS id, and every third response lacks its EOS."""

    def __init__(self, seed: int, extra: int) -> None:
        numbers = random.Random(seed)
        self.lengths = [numbers.randint(1, 7) for _ in range(6)]
        eos = 1
        self.episodes = []
        for i, length in enumerate(self.lengths):
            ids = [numbers.randint(2, 9) for _ in range(length)]
            if i % 3:
                ids[-1] = eos
            self.episodes.append(Episode(str(i), [3] * numbers.randint(1, 4), ids, bool(i % 3)))
        self.mask = functional.pad(collate(self.episodes, eos).response_mask_BR, (0, extra))
        self.width = self.mask.shape[1]

        def rows(low: float, high: float) -> Rows:
            return [[numbers.uniform(low, high) for _ in range(length)] for length in self.lengths]

        self.old, self.reference, self.values = rows(-4, 0), rows(-4, 0), rows(-1, 1)
        self.new = [[x + numbers.uniform(-0.5, 0.5) for x in row] for row in self.old]
        self.new_values = [[x + numbers.uniform(-0.5, 0.5) for x in row] for row in self.values]
        self.scores = [numbers.uniform(-2, 2) for _ in self.lengths]
        self.outcomes = [score if e.finished else -10.0 for score, e in zip(self.scores, self.episodes, strict=True)]

    def padded(self, rows: Rows) -> Tensor:
        return pad(rows, self.width)

    def unpad(self, values: Tensor) -> Rows:
        assert not values.where(self.mask.bool(), 0.0).isnan().any()
        return [row[:length].tolist() for row, length in zip(values, self.lengths, strict=True)]


def close(found: Rows, expected: Rows) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("extra", [0, 3])
def test_rewards_advantages_and_losses_match_the_loop_form(seed: int, extra: int) -> None:
    case = Case(seed, extra)
    mask = case.mask
    outcomes_N = outcomes(torch.tensor(case.scores, dtype=torch.float64), case.episodes, -10.0)
    assert outcomes_N.tolist() == case.outcomes

    rewards = penalised_rewards(case.padded(case.old), case.padded(case.reference), outcomes_N, mask, BETA)
    expected_rewards = reference_rewards(case.old, case.reference, case.outcomes)
    close(case.unpad(rewards), expected_rewards)
    assert rewards.where(mask.bool(), 1.0)[~mask.bool()].sum() == (~mask.bool()).sum()

    values = case.padded(case.values).nan_to_num(0.0)
    advantages, returns = generalised_advantages(rewards, values, mask, GAMMA, LAMBDA)
    expected_advantages = reference_advantages(expected_rewards, case.values)
    close(case.unpad(advantages), expected_advantages)
    expected_returns = [
        [a + v for a, v in zip(x, y, strict=True)] for x, y in zip(expected_advantages, case.values, strict=True)
    ]
    close(case.unpad(returns), expected_returns)

    whitened = whiten(advantages, mask)
    expected_whitened = reference_whiten(expected_advantages)
    close(case.unpad(whitened), expected_whitened)
    assert (whitened[~mask.bool()] == 0).all()

    losses = clipped_policy_losses(case.padded(case.new), case.padded(case.old), whitened, CLIP)
    expected = reference_policy_loss(case.new, case.old, expected_whitened)
    assert float(masked_mean(losses, mask)) == pytest.approx(expected, abs=1e-9)

    losses = clipped_value_losses(case.padded(case.new_values), case.padded(case.values), returns, CLIP)
    expected = reference_value_loss(case.new_values, case.values, expected_returns)
    assert float(masked_mean(losses, mask)) == pytest.approx(expected, abs=1e-9)


def test_whitening_ignores_what_stands_at_padding() -> None:
    values = torch.tensor([[1.0, 3.0, float("inf")], [5.0, float("nan"), 7e9]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    spread = math.sqrt(8 / 3)
    assert whiten(values, mask).tolist() == [
        pytest.approx([-2 / spread, 0.0, 0.0], abs=1e-6),
        pytest.approx([2 / spread, 0.0, 0.0], abs=1e-6),
    ]


def test_hand_worked_episode() -> None:
    """Two tokens, KL 0.2 and -0.1 nats, score 1, beta 0.5: r = (-0.1, 1.05); gamma 1, lambda 0.5, V = (0.4, 0.8)."""
    mask = torch.tensor([[1, 1]])
    rewards = penalised_rewards(
        torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.2, -1.9]]), torch.tensor([1.0]), mask, 0.5
    )
    assert rewards.tolist() == [pytest.approx([-0.1, 1.05])]
    advantages, returns = generalised_advantages(rewards, torch.tensor([[0.4, 0.8]]), mask, 1.0, 0.5)
    # delta_2 = 1.05 - 0.8 = 0.25; delta_1 = -0.1 + 0.8 - 0.4 = 0.3; A_1 = 0.3 + 0.5 * 0.25
    assert advantages.tolist() == [pytest.approx([0.425, 0.25])]
    assert returns.tolist() == [pytest.approx([0.825, 1.05])]


def test_lambda_one_and_no_values_give_the_reward_to_go() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    advantages, _ = generalised_advantages(rewards, torch.zeros(1, 3), torch.ones(1, 3), 0.5, 1.0)
    assert advantages.tolist() == [[3.0, 4.0, 4.0]]


def test_the_last_token_is_the_first_eos_even_when_padding_has_its_id() -> None:
    batch = collate([Episode("a", [5], [8, 1], True), Episode("b", [5], [8, 7, 6, 1], True)], 1)
    assert last_token(batch.response_mask_BR).tolist() == [1, 3]


def test_missing_eos_reward_null_keeps_the_score() -> None:
    episodes = [Episode("a", [5], [8], False), Episode("b", [5], [1], True)]
    assert outcomes(torch.tensor([1.0, 2.0]), episodes, None).tolist() == [1.0, 2.0]
    assert outcomes(torch.tensor([1.0, 2.0]), episodes, -10.0).tolist() == [-10.0, 2.0]


def test_the_policy_gradient_is_cut_only_where_the_clip_is_active() -> None:
    ratios = torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.1]])
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0, 2.0]])
    logps = ratios.log().requires_grad_()
    losses = clipped_policy_losses(logps, torch.zeros(1, 5), advantages, 0.2)
    losses.sum().backward()
    assert losses.tolist() == [pytest.approx([-1.2, 1.5, -0.5, 0.8, -2.2])]
    assert logps.grad is not None
    assert logps.grad.tolist() == [pytest.approx([0.0, 1.5, -0.5, 0.0, -2.2])]
    assert policy_clipped(logps, torch.zeros(1, 5), advantages, 0.2).tolist() == [[1.0, 0.0, 0.0, 1.0, 0.0]]


def test_the_value_gradient_is_cut_only_where_the_clipped_square_is_larger() -> None:
    values = torch.tensor([[1.0, 1.0, 0.1]], requires_grad=True)
    old, returns = torch.zeros(1, 3), torch.tensor([[2.0, 0.0, 2.0]])
    losses = clipped_value_losses(values, old, returns, 0.2)
    losses.sum().backward()
    assert losses.tolist() == [pytest.approx([1.62, 0.5, 1.805])]
    assert values.grad is not None
    assert values.grad.tolist() == [pytest.approx([0.0, 1.0, -1.9])]
    assert value_clipped(values, old, returns, 0.2).tolist() == [[1.0, 0.0, 0.0]]


def test_chunks_of_a_mini_batch_add_up_to_its_mean_whatever_their_padding() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]])
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 99.0, 99.0], [5.0, 6.0, 99.0]])
    whole = masked_mean(values, mask)
    parts = masked_mean(values[:1], mask[:1], 6.0) + masked_mean(values[1:, :2], mask[1:, :2], 6.0)
    assert float(whole) == pytest.approx(3.5)
    assert float(parts) == pytest.approx(3.5)


def test_approximate_kl_has_the_mean_of_the_kl_and_is_never_negative() -> None:
    torch.manual_seed(0)
    old, new = torch.randn(5).log_softmax(-1), torch.randn(5).log_softmax(-1)
    terms = approximate_kl(new, old)
    assert (terms >= 0).all()
    assert float((old.exp() * terms).sum()) == pytest.approx(float((old.exp() * (old - new)).sum()), abs=1e-6)
