"""Losses over rankings against slow references in plain Python, hand-worked cases, and their gradients."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch

from ablate.training.ranking_losses import RankedLogprobs, pro, rrhf
from ablate.training.reward_losses import both_orders, bradley_terry, centring, instruct_k, k_wise
from ablate.training.reward_objectives import agreement

Ranking = list[tuple[float, int]]
"""Score and rank of each response to one prompt."""


def sigma(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def slow_k_wise(ranking: Ranking) -> float:
    """Zhu et al. 2023: the product over places of the chance that the best of what is left is drawn first."""
    total = 0.0
    for score, rank in ranking:
        below = [math.exp(other) for other, place in ranking if place > rank]
        total -= math.log(math.exp(score) / (math.exp(score) + sum(below)))
    return total


def slow_plackett_luce(scores_best_first: list[float]) -> float:
    left = list(scores_best_first)
    probability = 1.0
    while left:
        probability *= math.exp(left[0]) / sum(map(math.exp, left))
        left.pop(0)
    return -math.log(probability)


def slow_instruct_k(ranking: Ranking) -> float:
    """Ouyang et al. 2022, eq. 1: every pair of a prompt once, ties left out, divided by their number."""
    losses = [-math.log(sigma(one - other)) for one, place in ranking for other, below in ranking if place < below]
    return sum(losses) / len(losses)


def slow_centring(ranking: Ranking) -> float:
    scores = [score for score, _ in ranking]
    pairs = [(scores[i] + scores[j]) ** 2 for i in range(len(scores)) for j in range(i + 1, len(scores))]
    return sum(pairs) / len(pairs)


def draw(count: int, *, ties: bool, seed: int = 4) -> list[Ranking]:
    """Rankings of 2 to 7 responses, in any order."""
    stream = random.Random(seed)
    rankings = []
    for _ in range(count):
        size = stream.randint(2, 7)
        ranks = [stream.randint(1, 3) for _ in range(size)] if ties else stream.sample(range(1, size + 1), size)
        ranks[:2] = [1, 2] if ties else ranks[:2]
        rankings.append([(stream.uniform(-3, 3), rank) for rank in ranks])
    return rankings


def padded(rankings: list[Ranking]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rankings))
    scores, ranks = torch.zeros(len(rankings), width, dtype=torch.float64), torch.zeros(len(rankings), width)
    for row, ranking in enumerate(rankings):
        scores[row, : len(ranking)] = torch.tensor([score for score, _ in ranking], dtype=torch.float64)
        ranks[row, : len(ranking)] = torch.tensor([rank for _, rank in ranking])
    return scores.requires_grad_(), ranks.long()


CASES: list[tuple[Callable[[Ranking], float], Callable[..., torch.Tensor]]] = [
    (slow_k_wise, k_wise),
    (slow_instruct_k, instruct_k),
    (slow_centring, centring),
]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("slow", "fast"), CASES, ids=["k-wise", "instruct-k", "centring"])
def test_losses_of_scores_equal_their_formula_prompt_by_prompt(slow, fast, ties):
    rankings = draw(30, ties=ties)
    expected = torch.tensor([slow(ranking) for ranking in rankings], dtype=torch.float64)
    torch.testing.assert_close(fast(*padded(rankings)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("slow", "fast"), CASES, ids=["k-wise", "instruct-k", "centring"])
def test_gradients_of_scores_equal_central_differences_and_padding_has_none(slow, fast):
    rankings = draw(8, ties=True)
    scores, ranks = padded(rankings)
    fast(scores, ranks).sum().backward()
    step = 1e-5
    for row, ranking in enumerate(rankings):
        for place in range(len(ranking)):
            moved = [
                slow([(score + sign * step * (at == place), rank) for at, (score, rank) in enumerate(ranking)])
                for sign in (1, -1)
            ]
            assert scores.grad[row, place].item() == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=1e-6)
    assert not scores.grad[ranks == 0].any()


def test_k_wise_without_ties_is_the_plackett_luce_probability_of_the_ranking():
    rankings = draw(20, ties=False)
    best_first = [[score for score, _ in sorted(ranking, key=lambda pair: pair[1])] for ranking in rankings]
    expected = [slow_plackett_luce(scores) for scores in best_first]
    assert k_wise(*padded(rankings)).tolist() == pytest.approx(expected, rel=1e-9)


def test_two_responses_are_bradley_terry_in_every_loss():
    scores, ranks = padded([[(0.7, 1), (-0.4, 2)], [(0.1, 2), (0.3, 1)]])
    expected = [-math.log(sigma(1.1)), -math.log(sigma(0.2))]
    for loss in (k_wise, instruct_k):
        assert loss(scores, ranks).tolist() == pytest.approx(expected)


def test_rankings_worked_by_hand():
    # Scores ln 3, ln 2, ln 1: the best is drawn with 3/6, then the second with 2/3: 1/3 in all.
    scores, ranks = padded([[(math.log(3), 1), (math.log(2), 2), (0.0, 3)]])
    assert k_wise(scores, ranks).item() == pytest.approx(math.log(3))
    # Pairs: 3/5, 3/4 and 2/3 won.
    assert instruct_k(scores, ranks).item() == pytest.approx(math.log(5 / 3 * 4 / 3 * 3 / 2) / 3)
    # The two best tied: each against the third alone, 3/4 and 2/3; the tie itself says nothing.
    _, tied = padded([[(0.0, 1), (0.0, 1), (0.0, 2)]])
    assert k_wise(scores, tied).item() == pytest.approx(math.log(4 / 3 * 3 / 2))
    assert instruct_k(scores, tied).item() == pytest.approx(math.log(4 / 3 * 3 / 2) / 2)
    # All tied: nothing to learn, and no division by zero.
    _, all_tied = padded([[(0.0, 1), (0.0, 1), (0.0, 1)]])
    for loss in (k_wise, instruct_k):
        assert loss(scores, all_tied).item() == 0.0
    # Sums of pairs of 1, -1 and 2: 0, 3 and 1; the mean of their squares is 10/3.
    assert centring(*padded([[(1.0, 1), (-1.0, 2), (2.0, 3)]])).item() == pytest.approx(10 / 3)


def test_a_margin_asks_for_that_much_more():
    chosen, rejected = torch.tensor([2.0, 0.5]), torch.tensor([0.5, 0.5])
    expected = [-math.log(sigma(1.5 - 1.0)), -math.log(sigma(0.0 - 0.25))]
    assert bradley_terry(chosen, rejected, torch.tensor([1.0, 0.25])).tolist() == pytest.approx(expected)


def test_bradley_terry_equals_its_formula():
    stream = random.Random(5)
    chosen, rejected = ([stream.uniform(-4, 4) for _ in range(30)] for _ in range(2))
    tensors = [torch.tensor(values, dtype=torch.float64) for values in (chosen, rejected)]
    expected = [-math.log(sigma(c - r)) for c, r in zip(chosen, rejected, strict=True)]
    torch.testing.assert_close(bradley_terry(*tensors), torch.tensor(expected, dtype=torch.float64))


def test_bradley_terry_gradient_is_the_probability_of_the_wrong_order():
    chosen = torch.tensor([0.7, -1.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([0.2, 1.5], dtype=torch.float64)
    bradley_terry(chosen, rejected).sum().backward()
    expected = torch.tensor([-sigma(-0.5), -sigma(2.5)], dtype=torch.float64)
    torch.testing.assert_close(chosen.grad, expected)


def test_both_orders_of_a_comparison_count_alike():
    # First read as chosen: log-odds 1 for it; read the other way round: log-odds 0.5 for the rejected, an error.
    expected = -(math.log(sigma(1.0)) + math.log(sigma(-0.5))) / 2
    assert both_orders(torch.tensor([1.0]), torch.tensor([0.5])).item() == pytest.approx(expected)


def test_agreement_worked_by_hand():
    # Ranks 1, 2, 2, 3: five untied pairs. Scores 0.5, 0.9, 0.1, 0.1: (1,2) wrong, (1,3) right, (1,4) right,
    # (2,4) right, (3,4) a tie of scores: neither right nor wrong for tau, not right for accuracy.
    scores, ranks = torch.tensor([[0.5, 0.9, 0.1, 0.1, 7.0]]), torch.tensor([[1, 2, 2, 3, 0]])
    found = {name: value.item() for name, value in agreement(scores, ranks).items()}
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["agreement"] == pytest.approx((3 - 1) / 5)
    assert found["best"] == 0.0  # the highest score is that of the second; padding is no candidate
    assert found["margin"] == pytest.approx((-0.4 + 0.4 + 0.4 + 0.8 + 0.0) / 5)


Response = tuple[float, int, int, float]
"""Summed log-probability, tokens, rank and score of a response."""


def slow_rrhf(ranking: list[Response], rank_weight: float, exponent: float) -> float:
    p = [logp / tokens**exponent for logp, tokens, _, _ in ranking]
    hinge = 0.0
    for i, (_, _, rank_i, _) in enumerate(ranking):
        for j, (_, _, rank_j, _) in enumerate(ranking):
            if rank_j > rank_i:
                hinge += max(0.0, p[j] - p[i])
    best = [logp for logp, _, rank, _ in ranking if rank == 1]
    return rank_weight * hinge - sum(best) / len(best)


def slow_pro(ranking: list[Response], sft_weight: float) -> float:
    p = [logp / tokens for logp, tokens, _, _ in ranking]
    total = 0.0
    for i, (_, _, rank_i, score_i) in enumerate(ranking):
        gaps = [
            (j, 1.0 if math.isnan(score_i) else max(score_i - score_j, 0.0))
            for j, (_, _, rank_j, score_j) in enumerate(ranking)
            if rank_j > rank_i
        ]
        if gaps:
            own = math.exp(p[i] * max(gap for _, gap in gaps))
            total -= math.log(own / (own + sum(math.exp(p[j] * gap) for j, gap in gaps)))
    best = [logp for logp, _, rank, _ in ranking if rank == 1]
    return total - sft_weight * (len(ranking) - 1) ** 2 * sum(best) / len(best)


def responses(count: int, *, scored: bool) -> list[list[Response]]:
    stream = random.Random(6)
    made = []
    for _ in range(count):
        size = stream.randint(2, 6)
        ranks = [1, 2, *(stream.randint(1, 4) for _ in range(size - 2))]
        made.append(
            [
                (stream.uniform(-40, -2), stream.randint(1, 12), rank, -1.3 * rank if scored else float("nan"))
                for rank in ranks
            ]
        )
    return made


def as_tensors(rankings: list[list[Response]]) -> RankedLogprobs:
    width = max(map(len, rankings))
    columns = [
        torch.tensor([[row[place][at] if place < len(row) else empty for place in range(width)] for row in rankings])
        for at, empty in enumerate((0.0, 1, 0, float("nan")))
    ]
    logps, tokens, ranks, scores = columns
    return RankedLogprobs(logps.double().requires_grad_(), tokens, ranks, scores.double())


POLICY_CASES = [
    (lambda r: slow_rrhf(r, 1.0, 1.0), lambda t: rrhf(t, rank_weight=1.0, length_exponent=1.0)),
    (lambda r: slow_rrhf(r, 7.0, 0.5), lambda t: rrhf(t, rank_weight=7.0, length_exponent=0.5)),
    (lambda r: slow_pro(r, 0.05), lambda t: pro(t, sft_weight=0.05)),
]


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize(("slow", "fast"), POLICY_CASES, ids=["rrhf", "rrhf-weighted", "pro"])
def test_policy_losses_and_gradients_equal_their_formula(slow, fast, scored):
    rankings = responses(12, scored=scored)
    ranked = as_tensors(rankings)
    found = fast(ranked)
    assert found.tolist() == pytest.approx([slow(ranking) for ranking in rankings], rel=1e-6)
    found.sum().backward()
    step = 1e-4
    for row, ranking in enumerate(rankings):
        for place, (logp, *rest) in enumerate(ranking):
            up, down = ([*ranking[:place], (logp + s * step, *rest), *ranking[place + 1 :]] for s in (1, -1))
            expected = (slow(up) - slow(down)) / (2 * step)
            assert ranked.logps_BK.grad[row, place].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert not ranked.logps_BK.grad[ranked.ranks_BK == 0].any()


def test_policy_losses_worked_by_hand():
    # Two responses of 2 and 4 tokens, -4 and -4 nats: -2 and -1 a token, and the first is the better one.
    ranked = as_tensors([[(-4.0, 2, 1, 5.0), (-4.0, 4, 2, 3.0)]])
    assert rrhf(ranked, rank_weight=1.0, length_exponent=1.0).item() == pytest.approx(1.0 + 4.0)
    assert rrhf(ranked, rank_weight=1.0, length_exponent=0.0).item() == pytest.approx(0.0 + 4.0)
    # PRO: the gap is 2, so -4 against -2; SFT's term is 0.05 x 1 x 4.
    expected = math.log(math.exp(-4) + math.exp(-2)) + 4 + 0.05 * 4
    assert pro(ranked, sft_weight=0.05).item() == pytest.approx(expected)
    # Where the ranking holds, RRHF imitates the best alone: of two that share the first rank, both.
    tied = as_tensors([[(-2.0, 2, 1, 1.0), (-4.0, 4, 1, 1.0), (-9.0, 3, 2, 0.0)]])
    assert rrhf(tied, rank_weight=1.0, length_exponent=1.0).item() == pytest.approx(3.0)
