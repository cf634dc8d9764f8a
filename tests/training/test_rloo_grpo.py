"""RLOO and GRPO against loops written from the papers, cases worked by hand, and TRL's own losses."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from ablate.algorithms.grpo import GRPOParameters
from ablate.algorithms.on_policy import PolicyGradientParameters
from ablate.algorithms.rloo import RLOOParameters
from ablate.errors import StageError
from ablate.training.advantages import group_normalised, leave_one_out, regularised_outcomes
from ablate.training.checkpoints import Cadence
from ablate.training.experience import PassLimits, Recorder, Rollout, win_rate
from ablate.training.learner import Network
from ablate.training.on_policy import OnPolicyTrainer, Prompt, Tokens
from ablate.training.policy_gradient import GRPOLearner, RLOOLearner
from ablate.training.policy_loss import Terms
from ablate.training.policy_update import PolicyGradientLearner
from ablate.training.rollouts import Episode, sample
from ablate.training.seeding import derive_seed
from ablate.training.targets import Targets
from tests.training.tiny import EOS, PAD, llama

V, WANTED, GROUP = 20, 5, 4
LIMITS = PassLimits(torch.device("cpu"), 4096, 2**24)
LENGTHS = (3, 1, 5, 2, 4, 4, 1, 6)
Rows = list[list[float]]


def rows(seed: int, low: float = -3.0, high: float = -0.1) -> Rows:
    stream = random.Random(seed)
    return [[stream.uniform(low, high) for _ in range(length)] for length in LENGTHS]


def near(values: Rows, seed: int, spread: float) -> Rows:
    stream = random.Random(seed)
    return [[value + stream.uniform(-spread, spread) for value in row] for row in values]


def padded(values: Rows, filler: float, extra: int = 0) -> Tensor:
    width = max(map(len, values)) + extra
    return torch.tensor([row + [filler] * (width - len(row)) for row in values], dtype=torch.float64)


def mask(extra: int = 0) -> Tensor:
    return padded([[1.0] * length for length in LENGTHS], 0.0, extra).long()


def terms(new: Rows, old: Rows, reference: Rows, advantages: list[float], extra: int = 0, filler: float = 7.0) -> Terms:
    """Padded tensors whose padding holds nonsense."""
    mask_BR = mask(extra)
    advantages_BR = torch.tensor(advantages, dtype=torch.float64).unsqueeze(-1) * mask_BR
    logps_BR = padded(new, filler, extra).requires_grad_()
    return Terms(logps_BR, padded(old, -filler, extra), padded(reference, filler / 2, extra), advantages_BR, mask_BR)


def learner(parameters: PolicyGradientParameters) -> PolicyGradientLearner[Any]:
    network = Network(policy(), parameters.learning_rate, 0.0)
    made = GRPOLearner if isinstance(parameters, GRPOParameters) else RLOOLearner
    return made({"policy": network}, parameters, PAD, LIMITS)  # type: ignore[arg-type]


def loss_of(parameters: PolicyGradientParameters, given: Terms) -> Tensor:
    """The loss of one mini-batch that is one micro-batch, as the learner puts it together."""
    trained = learner(parameters)
    losses_BR, _ = trained.losses(given)
    return losses_BR.where(given.mask_BR.bool(), 0.0).sum() / trained.count(given.mask_BR)


# Advantages


def test_leave_one_out_by_hand() -> None:
    assert leave_one_out(torch.tensor([1.0, 2.0, 3.0]), 3).tolist() == [-1.5, 0.0, 1.5]
    two_groups = leave_one_out(torch.tensor([1.0, 2.0, 3.0, 10.0, 10.0, 16.0]), 3)
    assert two_groups.tolist() == [-1.5, 0.0, 1.5, -3.0, -3.0, 6.0]
    assert leave_one_out(torch.tensor([0.0, 1.0]), 2).tolist() == [-1.0, 1.0]


def test_group_normalisation_by_hand() -> None:
    found = group_normalised(torch.tensor([1.0, 2.0, 3.0]), 3, 0.5)
    assert found.tolist() == pytest.approx([-1 / 1.5, 0.0, 1 / 1.5])  # mean 2, sd 1
    assert group_normalised(torch.tensor([1.0, 2.0, 6.0]), 3, None).tolist() == [-2.0, -1.0, 3.0]


@pytest.mark.parametrize("value", [0.1, -7.3, 1e6])
@pytest.mark.parametrize("group", [2, 3, 7, 8])
def test_equal_rewards_give_exactly_no_advantage(value: float, group: int) -> None:
    rewards_N = torch.full((2 * group,), value)
    for advantages_N in (
        leave_one_out(rewards_N, group),
        group_normalised(rewards_N, group, 1e-4),
        group_normalised(rewards_N, group, None),
    ):
        assert torch.equal(advantages_N, torch.zeros(2 * group))


@pytest.mark.parametrize("group", [2, 4, 8])
def test_advantages_are_those_of_a_loop(group: int) -> None:
    stream = random.Random(group)
    rewards = [stream.gauss(0, 2) for _ in range(3 * group)]
    alone, normalised = [], []
    for index, reward in enumerate(rewards):
        start = index - index % group
        own = rewards[start : start + group]
        others = [other for place, other in enumerate(own) if place != index % group]
        alone.append(reward - sum(others) / len(others))
        mean = sum(own) / group
        deviation = math.sqrt(sum((other - mean) ** 2 for other in own) / (group - 1))
        normalised.append((reward - mean) / (deviation + 1e-4))
    given = torch.tensor(rewards)
    assert leave_one_out(given, group).tolist() == pytest.approx(alone, abs=1e-5)
    assert group_normalised(given, group, 1e-4).tolist() == pytest.approx(normalised, abs=1e-5)
    assert leave_one_out(given, group).tolist() == pytest.approx(
        [
            group / (group - 1) * (reward - sum(rewards[i - i % group :][:group]) / group)
            for i, reward in enumerate(rewards)
        ],
        abs=1e-5,
    )


def test_the_kl_of_the_whole_response_is_in_rloos_reward() -> None:
    new, reference, outcomes = rows(1), rows(2), [0.5, -1.0, 2.0, 0.0, 1.0, 1.0, -3.0, 0.25]
    expected = [
        outcome - 0.3 * sum(a - b for a, b in zip(one, other, strict=True))
        for one, other, outcome in zip(new, reference, outcomes, strict=True)
    ]
    outcomes_N = torch.tensor(outcomes, dtype=torch.float64)
    for extra in (0, 3):
        found = regularised_outcomes(
            padded(new, 9.0, extra), padded(reference, -9.0, extra), outcomes_N, mask(extra), 0.3
        )
        assert found.tolist() == pytest.approx(expected, abs=1e-12)


# Losses


def slow_rloo(new: Rows, old: Rows, advantages: list[float], clip: float) -> float:
    losses = []
    for row, before, advantage in zip(new, old, advantages, strict=True):
        ratio = math.exp(sum(row) - sum(before))
        cut = min(max(ratio, 1 - clip), 1 + clip)
        losses.append(-min(ratio * advantage, cut * advantage))
    return sum(losses) / len(losses)


def slow_grpo(
    new: Rows, old: Rows, reference: Rows, advantages: list[float], clip: float, beta: float, lengths: str, limit: int
) -> float:
    total, tokens = 0.0, 0
    for row, before, other, advantage in zip(new, old, reference, advantages, strict=True):
        response = 0.0
        for a, b, c in zip(row, before, other, strict=True):
            ratio = math.exp(a - b)
            cut = min(max(ratio, 1 - clip), 1 + clip)
            estimate = math.exp(c - a) - (c - a) - 1
            response += -min(ratio * advantage, cut * advantage) + beta * estimate
        total += response / {"response": len(row), "token": 1, "limit": limit}[lengths]
        tokens += len(row)
    return total / (tokens if lengths == "token" else len(new))


ADVANTAGES = [1.0, -0.5, 0.3, -2.0, 0.0, 1.5, -0.1, 0.7]


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.6])
@pytest.mark.parametrize("extra", [0, 4])
def test_rloo_loss_is_that_of_a_loop(spread: float, extra: int) -> None:
    old = rows(3)
    new = near(old, 4, spread)
    found = loss_of(RLOOParameters(clip_range=0.2), terms(new, old, rows(5), ADVANTAGES, extra))
    assert found.item() == pytest.approx(slow_rloo(new, old, ADVANTAGES, 0.2), abs=1e-10)
    unclipped = loss_of(RLOOParameters(clip_range=None), terms(new, old, rows(5), ADVANTAGES, extra))
    assert unclipped.item() == pytest.approx(slow_rloo(new, old, ADVANTAGES, 1e9), abs=1e-10)


@pytest.mark.parametrize("lengths", ["response", "token", "limit"])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("extra", [0, 4])
def test_grpo_loss_is_that_of_a_loop(spread: float, extra: int, lengths: str) -> None:
    old, reference = rows(3), rows(5)
    new = near(old, 4, spread)
    parameters = GRPOParameters(
        clip_range=0.2,
        kl_coefficient=0.3,
        length_normalisation=lengths,
        max_response_length=9,  # type: ignore[arg-type]
    )
    found = loss_of(parameters, terms(new, old, reference, ADVANTAGES, extra))
    assert found.item() == pytest.approx(slow_grpo(new, old, reference, ADVANTAGES, 0.2, 0.3, lengths, 9), abs=1e-10)


def test_before_any_update_rloos_gradient_is_reinforces() -> None:
    """d L / d log pi(y_t) = -A / B at every token of a response, 0 at padding."""
    old = rows(3)
    given = terms(old, old, rows(5), ADVANTAGES, extra=2)
    loss_of(RLOOParameters(), given).backward()
    assert given.logps_BR.grad is not None
    expected_BR = -torch.tensor(ADVANTAGES, dtype=torch.float64).unsqueeze(-1) * given.mask_BR / len(LENGTHS)
    torch.testing.assert_close(given.logps_BR.grad, expected_BR, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "parameters", [RLOOParameters(), GRPOParameters(), GRPOParameters(length_normalisation="limit")]
)
def test_gradients_are_those_of_finite_differences(parameters: PolicyGradientParameters) -> None:
    old, reference = rows(3), rows(5)
    new = near(old, 4, 0.05)
    given = terms(new, old, reference, ADVANTAGES)
    loss_of(parameters, given).backward()
    assert given.logps_BR.grad is not None
    step = 1e-6
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            sides = []
            for sign in (1, -1):
                moved = [list(values) for values in new]
                moved[row][t] += sign * step
                sides.append(loss_of(parameters, terms(moved, old, reference, ADVANTAGES)).item())
            assert float(given.logps_BR.grad[row, t]) == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-6)


def trl_loss(trainer: Any, given: Terms, inputs: dict[str, Tensor], **settings: Any) -> Tensor:
    """TRL's own loss of the same log-probabilities; only what the loss touches is there."""
    nothing_B0 = given.mask_BR[:, :0]
    stub = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (given.logps_BR, torch.zeros_like(given.logps_BR), None),
        accelerator=SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x),
        _metrics={"eval": defaultdict(list)},
        model=SimpleNamespace(training=False),
        aux_loss_enabled=False,
        epsilon_low=0.2,
        epsilon_high=0.2,
        **settings,
    )
    batch = {"prompt_ids": nothing_B0, "prompt_mask": nothing_B0}
    batch |= {"completion_ids": given.mask_BR, "completion_mask": given.mask_BR}
    loss: Tensor = trainer._compute_loss(stub, None, batch | inputs)
    return loss


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.6])
def test_rloo_loss_is_trls(spread: float) -> None:
    from trl import RLOOTrainer

    old = rows(3)
    given = terms(near(old, 4, spread), old, rows(5), ADVANTAGES, filler=0.0)
    sums = {"old_logps": given.old_logps_BR.sum(-1), "advantages": given.advantages_BR[:, 0]}
    assert loss_of(RLOOParameters(), given).item() == pytest.approx(trl_loss(RLOOTrainer, given, sums).item(), abs=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [("response", "grpo"), ("token", "bnpo"), ("limit", "dr_grpo")])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.6])
def test_grpo_loss_and_gradient_are_trls(ours: str, theirs: str, spread: float) -> None:
    from trl import GRPOTrainer

    old, reference = rows(3), rows(5)
    new = near(old, 4, spread)
    parameters = GRPOParameters(kl_coefficient=0.3, length_normalisation=ours, max_response_length=9)  # type: ignore[arg-type]
    losses, gradients = [], []
    for of_trl in (False, True):
        given = terms(new, old, reference, ADVANTAGES, filler=0.0)
        batch = {"old_per_token_logps": given.old_logps_BR, "ref_per_token_logps": given.reference_logps_BR}
        settings = SimpleNamespace(delta=None, use_bias_correction_kl=False)
        loss = (
            trl_loss(
                GRPOTrainer,
                given,
                batch | {"advantages": given.advantages_BR[:, 0]},
                beta=0.3,
                loss_type=theirs,
                importance_sampling_level="token",
                max_completion_length=9,
                top_entropy_quantile=1.0,
                off_policy_mask_threshold=None,
                use_vllm=False,
                args=settings,
                _entropy_bonus_enabled=False,
            )
            if of_trl
            else loss_of(parameters, given)
        )
        loss.backward()
        assert given.logps_BR.grad is not None
        losses.append(loss.item())
        gradients.append(given.logps_BR.grad)
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-9, rtol=0)


# Whole steps of tiny models


def policy(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(llama(V))


def count_wanted(episodes: Any) -> Tensor:
    return torch.tensor([float(episode.response_ids.count(WANTED)) for episode in episodes])


SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "prompts_per_step": 8,
    "responses_per_prompt": GROUP,
    "mini_batch_size": 16,
    "max_response_length": 8,
    "temperature": 0.8,
    "kl_coefficient": 0.01,
    "missing_eos_reward": None,
    "steps": 5,
}
METHODS = [RLOOParameters, GRPOParameters]


def trainer(
    parameters: PolicyGradientParameters, score: Any = count_wanted, seed: int = 0, compare: Any = count_wanted
) -> OnPolicyTrainer:
    return OnPolicyTrainer(
        learner(parameters),
        seed,
        reference=policy(),
        score=score,
        compare=compare,
        prompts=[Prompt(f"p{i}", [2 + i % 7, 3 + i % 11, 4][: 1 + i % 3]) for i in range(40)],
        tokens=Tokens(frozenset({EOS}), PAD, lambda ids: " ".join(map(str, ids))),
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_prompt_has_k_neighbouring_responses_and_a_step_counts_prompts(method: Any) -> None:
    episodes = trainer(method(**SETTINGS)).sample_episodes(0)
    assert len(episodes) == 8 * GROUP
    names = [episode.prompt_id for episode in episodes]
    groups = [set(names[start : start + GROUP]) for start in range(0, len(names), GROUP)]
    assert all(len(group) == 1 for group in groups)
    assert len(set(names)) == 8
    assert len({tuple(episode.response_ids) for episode in episodes[:GROUP]}) > 1


def test_win_rates_are_worked_by_hand() -> None:
    assert win_rate(torch.tensor([3.0, 1.0, 2.0, 5.0]), torch.tensor([1.0, 3.0, 2.0, 2.0])) == (1 + 0 + 0.5 + 1) / 4


def test_the_win_rate_is_against_the_reference_s_responses_and_changes_nothing(tmp_path: Path) -> None:
    settings = {**SETTINGS, "prompts_per_step": 16, "mini_batch_size": 32, "steps": 9}
    plain, measured = trainer(RLOOParameters(**settings)), trainer(RLOOParameters(**settings, win_rate_every=4))
    for made, name in ((plain, "plain"), (measured, "measured")):
        made.train(tmp_path / name)
    rates = {record["step"]: record["win_rate"] for record in measured.history.records if "win_rate" in record}
    assert list(rates) == [1, 5, 9]
    assert rates[1] == pytest.approx(0.5, abs=0.2), "policy and reference are one model"
    assert rates[9] > rates[1] + 0.2
    assert [{**record, "win_rate": None} for record in plain.history.records] == [
        {**record, "win_rate": None} for record in measured.history.records
    ]
    measured.done, episodes = 8, measured.sample_episodes(8)
    others = sample(
        policy(),
        [episode.prompt_ids for episode in episodes[::GROUP]],
        max_new_tokens=8,
        temperature=0.8,
        eos_token_ids={EOS},
        pad_token_id=PAD,
        generator_seed=derive_seed(0, "reference rollout", 8),
        batch_size=64,
    )
    won = []
    for prompt, other in enumerate(others):
        for episode in episodes[prompt * GROUP : (prompt + 1) * GROUP]:
            own, theirs = episode.response_ids.count(WANTED), other.ids.count(WANTED)
            won.append((own > theirs) + (own == theirs) / 2)
    assert len(won) == 16 * GROUP
    assert measured._win_rate(episodes) == pytest.approx(sum(won) / len(won))


def test_a_win_rate_needs_something_that_says_who_wins() -> None:
    with pytest.raises(StageError, match=r"(?s)nothing says which of two responses wins.*leave win_rate_every out"):
        trainer(RLOOParameters(**SETTINGS, win_rate_every=1), compare=None)


@pytest.mark.parametrize("method", METHODS)
def test_reward_rises_without_a_value_network(method: Any, tmp_path: Path) -> None:
    made = trainer(method(**{**SETTINGS, "prompts_per_step": 16, "mini_batch_size": 32, "steps": 25}))
    assert set(made.learner.networks) == {"policy"}
    made.train(tmp_path)
    records = made.history.records
    assert records[0]["score"] < 0.8
    assert records[-1]["score"] > 2.5  # of at most 8
    assert records[0]["kl"] == 0.0
    assert records[-1]["samples"] == 25 * 16 * GROUP
    assert not {"value_loss", "explained_variance"} & set(records[-1])


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_ends_as_an_unbroken_one(method: Any, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    calls: list[int] = []

    def third(episodes: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted
        return count_wanted(episodes)

    parameters = method(**{**SETTINGS, "inner_epochs": 2})
    unbroken = trainer(parameters)
    unbroken.train(tmp_path / "unbroken")
    with pytest.raises(Interrupted):
        trainer(parameters, third).train(tmp_path / "first", cadence=Cadence(seconds=0))
    resumed = trainer(parameters)
    resumed.train(tmp_path / "second", [tmp_path / "first"])
    assert resumed.history.records == unbroken.history.records
    assert resumed.samples == unbroken.samples
    expected, found = unbroken.learner.policy.parameters, resumed.learner.policy.parameters
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_names_step_and_prompts_and_goes_on_from_its_saved_state(method: Any, tmp_path: Path) -> None:
    calls: list[int] = []

    def second(episodes: Any) -> Tensor:
        calls.append(1)
        return count_wanted(episodes) * (float("nan") if len(calls) == 2 else 1.0)

    parameters = method(**{**SETTINGS, "steps": 3})
    with pytest.raises(StageError, match=r"step 2: the reward of 32 .* prompts p\d+, .*saved in .*checkpoint-1\n"):
        trainer(parameters, second).train(tmp_path / "stopped")
    unbroken, resumed = trainer(parameters), trainer(parameters)
    unbroken.train(tmp_path / "unbroken")
    resumed.train(tmp_path / "resumed", [tmp_path / "stopped"])
    assert resumed.history.records == unbroken.history.records
    limited = method(**{**SETTINGS, "stop_at_kl": 1e-6})
    with pytest.raises(StageError, match=r"step \d: the KL from the reference is .* prompts p\d+.*checkpoint-\d\n"):
        trainer(limited).train(tmp_path / "limited")


def rollout(parameters: PolicyGradientParameters, score: Any = count_wanted) -> tuple[OnPolicyTrainer, Rollout]:
    made = trainer(parameters, score)
    episodes = made.sample_episodes(0)
    return made, made.evaluate_episodes(episodes, made.mini_batches(len(episodes), 0))


@pytest.mark.parametrize("method", METHODS)
def test_the_ratio_is_exactly_one_before_the_first_update(method: Any) -> None:
    made, found = rollout(method(**SETTINGS))
    targets = made.learner.targets(found)
    for part in made.mini_batches(len(found.episodes), 0):
        for chunk in LIMITS.chunks(found.episodes, part):
            assert isinstance(made.learner, PolicyGradientLearner)
            _, means = made.learner.policy_loss(found, targets, chunk, found.mask_NR[part])
            assert means["largest_log_ratio"] == means["policy_clip_fraction"] == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_another_policy_than_the_one_that_sampled_stops_the_run(method: Any) -> None:
    made, found = rollout(method(**SETTINGS))
    broken = replace(found, logps_NR=found.logps_NR - 0.1 * found.mask_NR)
    with pytest.raises(StageError, match=r"step 1: before any update the log ratio .* is 0.1"):
        made.learner.update(broken, made.learner.targets(broken), list(range(16)), 1.0, step=1, first=True)


@pytest.mark.parametrize("method", METHODS)
def test_equal_rewards_give_no_policy_gradient(method: Any) -> None:
    made, found = rollout(method(**{**SETTINGS, "kl_coefficient": 0.0}), lambda rows: torch.full((len(rows),), 0.1))
    means = made.learner.update(found, made.learner.targets(found), list(range(32)), 1.0, step=1, first=True)
    assert means["policy_grad_norm"] == means["policy_loss"] == 0.0


def gradients(parameters: PolicyGradientParameters, found: Rollout, limits: PassLimits = LIMITS) -> dict[str, Tensor]:
    trained = replace(learner(parameters), limits=limits)
    trained.backward(found, trained.targets(found), list(range(len(found.episodes))), step=1, first=False)
    return {name: value.grad for name, value in trained.policy.parameters.items() if value.grad is not None}


@pytest.mark.parametrize("method", METHODS)
def test_neither_micro_batches_nor_padding_change_the_gradient(method: Any) -> None:
    parameters = method(**SETTINGS)
    _, found = rollout(parameters)
    wide = torch.nn.functional.pad
    padded_rollout = replace(
        found,
        mask_NR=wide(found.mask_NR, (0, 5)),
        logps_NR=wide(found.logps_NR, (0, 5), value=3.0),
        reference_logps_NR=wide(found.reference_logps_NR, (0, 5), value=-3.0),
    )
    whole = gradients(parameters, found)
    for other in (
        gradients(parameters, found, PassLimits(torch.device("cpu"), 24, 2**24)),
        gradients(parameters, padded_rollout),
    ):
        for name, value in whole.items():
            torch.testing.assert_close(value, other[name], atol=5e-6, rtol=1e-4)


def test_the_gradient_of_a_step_is_reinforces_by_hand() -> None:
    """A slow REINFORCE: one response at a time, without padding, its advantage times the gradient of log pi(y)."""
    parameters = RLOOParameters(**SETTINGS)
    _, found = rollout(parameters)
    model, total = policy(), torch.zeros(())
    log_ratios = [(found.logps_NR[i] - found.reference_logps_NR[i]).sum() for i in range(32)]
    rewards = [float(found.scores_N[i] - 0.01 * log_ratios[i]) for i in range(32)]
    for i, episode in enumerate(found.episodes):
        start = i - i % GROUP
        others = [rewards[j] for j in range(start, start + GROUP) if j != i]
        ids = torch.tensor([episode.prompt_ids + episode.response_ids])
        logps_TV = (model(ids).logits[0] / 0.8).log_softmax(-1)
        first = len(episode.prompt_ids)
        logp = sum(logps_TV[first + t - 1, token] for t, token in enumerate(episode.response_ids))
        total = total - (rewards[i] - sum(others) / len(others)) * logp / 32
    total.backward()  # type: ignore[no-untyped-call]
    expected = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    for name, value in gradients(parameters, found).items():
        torch.testing.assert_close(value, expected[name], atol=2e-5, rtol=1e-3)


def test_zero_advantages_leave_grpo_the_pull_to_its_reference() -> None:
    episodes = [Episode("a", [3, 4], [5, 6, EOS], True), Episode("a", [3, 4], [7, EOS], True)]
    recorder = Recorder(policy(), policy(9), None, PAD, LIMITS, 1.0, "float32")
    found = recorder.record(episodes, [[0, 1]], torch.ones(2), torch.ones(2), 2)
    for beta, moves in ((0.0, False), (0.5, True)):
        parameters = GRPOParameters(responses_per_prompt=2, kl_coefficient=beta, temperature=1.0)
        trained = learner(parameters)
        targets = trained.targets(found)
        assert torch.equal(targets.advantages_NR, Targets(torch.zeros(2, 3)).advantages_NR)
        means = trained.update(found, targets, [0, 1], 1.0, step=1, first=True)
        assert (means["policy_grad_norm"] > 0) == moves
