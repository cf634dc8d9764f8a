"""Pairs of a policy's own samples: which they are, what is learnt from them, against loops in plain floats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from ablate.algorithms.d2po import D2POParameters
from ablate.algorithms.online_dpo import OnlineDPOParameters, OnlinePairParameters
from ablate.errors import StageError
from ablate.training.checkpoints import Cadence, complete_checkpoints
from ablate.training.collate import PairCollator
from ablate.training.discriminator import Discriminator
from ablate.training.experience import PassLimits, Rollout, Score
from ablate.training.learner import Network
from ablate.training.losses import PREFERENCE_LOSSES
from ablate.training.objectives import PreferenceObjective
from ablate.training.on_policy import OnPolicyTrainer, Prompt, Tokens
from ablate.training.online import Annotator, within_budget
from ablate.training.online_pairs import PairLearner, PairPass, best_and_worst, pair_tokens, reference_columns
from ablate.training.pair_log import OnlinePair, PairLog
from ablate.training.preference import preference_objective
from ablate.training.rollouts import Episode
from tests.training.tiny import EOS, PAD, llama

V, WANTED = 20, 5
CPU = torch.device("cpu")
LIMITS = PassLimits(CPU, 4096, 2**24)
PROMPTS = [Prompt(f"p{i}", [2 + i % 7, 3 + i % 11, 4][: 1 + i % 3]) for i in range(40)]


def policy(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(llama(V, initializer_range=0.2)).eval()


def classifier(seed: int = 1) -> LlamaForSequenceClassification:
    torch.manual_seed(seed)
    return LlamaForSequenceClassification(llama(V, num_labels=1, initializer_range=0.2)).eval()


def count_wanted(episodes: Sequence[Episode]) -> torch.Tensor:
    return torch.tensor([float(episode.response_ids.count(WANTED)) for episode in episodes])


def d2po(seed: int = 0, score: Score = count_wanted, **changes: Any) -> OnPolicyTrainer:
    values = {"gold_every": 64, "gold_labels": 8, "discriminator_learning_rate": 3e-3, "discriminator": "sft"}
    parameters = D2POParameters(**{**SMALL, **values, **changes})
    labeller = Discriminator(classifier(), score, parameters, seed, PAD, LIMITS, by_name=True)
    return trainer(parameters, labeller, seed)


SMALL: dict[str, Any] = {
    "learning_rate": 3e-3,
    "prompts_per_step": 32,
    "mini_batch_size": 16,
    "max_response_length": 8,
    "temperature": 0.8,
    "missing_eos_reward": None,
    "steps": 5,
}


def online(seed: int = 0, score: Score = count_wanted, **changes: Any) -> OnPolicyTrainer:
    parameters = OnlineDPOParameters(**{**SMALL, **changes})
    return trainer(parameters, Annotator(score, parameters.responses_per_prompt, parameters.labels_per_prompt), seed)


def pair_objective(parameters: OnlinePairParameters) -> PreferenceObjective:
    return preference_objective(PREFERENCE_LOSSES[parameters.loss], parameters)


def trainer(parameters: OnlinePairParameters, labeller: Any, seed: int, start: int | None = None) -> OnPolicyTrainer:
    reference = policy(seed)
    learner = PairLearner(
        networks={"policy": Network(policy(seed if start is None else start), parameters.learning_rate, 0.0)},
        parameters=within_budget(parameters, len(PROMPTS)),
        pad_id=PAD,
        limits=LIMITS,
        reference=reference,
        objective=pair_objective(parameters),
        labeller=labeller,
        log=PairLog({prompt.id: [] for prompt in PROMPTS}, lambda ids: " ".join(map(str, ids)), "test"),
    )
    tokens = Tokens(frozenset({EOS}), PAD, lambda ids: " ".join(map(str, ids)))
    return OnPolicyTrainer(learner, seed, reference=reference, score=labeller, prompts=PROMPTS, tokens=tokens)


def episode(prompt: list[int], response: list[int], name: str = "p") -> Episode:
    return Episode(name, prompt, response, response[-1] == EOS)


# Which responses make a pair


def test_the_best_meets_the_worst_and_ties_are_left_out() -> None:
    responses = [[5, 1], [6, 1], [7, 1], [5, 5, 1], [8, 1], [9, 1], [4, 1], [4, 1], [4, 1]]
    episodes = [episode([2], ids, f"p{row // 3}") for row, ids in enumerate(responses)]
    scores = torch.tensor([1.0, 3.0, 3.0, 2.0, 2.0, 2.0, 0.5, 0.50001, 0.5])
    first, tied, same = best_and_worst(episodes, scores, 3)
    assert first is not None
    assert (first.chosen.response_ids, first.rejected.response_ids) == ([6, 1], [5, 1])
    assert (first.chosen_score, first.rejected_score, first.margin) == (3.0, 1.0, 2.0)
    assert tied is None  # all equal
    assert same is None  # equal tokens, scores that differ by rounding


def test_a_missing_eos_loses_and_two_missing_ones_tie(tmp_path: Path) -> None:
    made = online(missing_eos_reward=-10.0, steps=1)
    made.train(tmp_path)
    assert isinstance(made.learner, PairLearner)
    for row in made.learner.log.rows:
        assert row["chosen"][0]["content"].endswith(f" {EOS}") or row["chosen"][0]["content"] == str(EOS)
        assert row["finished"] is (row["rejected_score"] != -10.0)
    assert made.learner.log.rows


# A step against a loop in plain floats


def slow_logprob(model: LlamaForCausalLM, prompt: list[int], response: list[int]) -> torch.Tensor:
    """Sum over the response of log softmax at each token, one unpadded sequence at a time."""
    logits = model(torch.tensor([prompt + response])).logits[0].double()
    total = torch.zeros((), dtype=torch.float64)
    for place, token in enumerate(response, start=len(prompt)):
        row = logits[place - 1]
        total = total + row[token] - torch.log(torch.exp(row - row.max()).sum()) - row.max()
    return total


def slow_loss(name: str, h: torch.Tensor, beta: float) -> torch.Tensor:
    if name == "dpo":
        return torch.log(1 + torch.exp(-beta * h))
    if name == "ipo":
        return (h - 1 / (2 * beta)) ** 2
    return torch.clamp(1 - beta * h, min=0.0)


def given_rollout(group: int = 3) -> Rollout:
    """Samples of unequal lengths with fixed scores: eight prompts, one of them tied."""
    random = np.random.default_rng(7)
    episodes = []
    for prompt in range(8):
        ids = random.integers(2, V, 1 + prompt % 4).tolist()
        for _ in range(group):
            response = [*random.integers(2, V, random.integers(1, 7)).tolist(), EOS]
            episodes.append(episode(ids, response, f"p{prompt}"))
    scores = torch.tensor(random.normal(size=len(episodes)), dtype=torch.float32)
    scores[group : 2 * group] = 1.0
    empty = torch.zeros(len(episodes), 8)
    return Rollout(episodes, empty, scores, scores, empty, empty, empty, None, group)


@pytest.mark.parametrize(("name", "beta"), [("dpo", 0.1), ("dpo", 2.0), ("ipo", 0.3), ("hinge", 0.5)])
def test_a_step_from_given_samples_is_the_papers(name: Any, beta: float) -> None:
    rollout = given_rollout()
    parameters = OnlineDPOParameters(**{**SMALL, "responses_per_prompt": 3, "loss": name, "beta": beta})
    made = trainer(parameters, Annotator(count_wanted, 3, 2), seed=0, start=3).learner
    assert isinstance(made, PairLearner)
    targets = made.targets(rollout)
    statistics = made.statistics(rollout, targets)
    assert (statistics["pairs"], statistics["ties"]) == (7, 1 / 8)
    means = made.backward(rollout, targets, list(range(24)), step=2, first=True)

    model, reference = policy(3), policy(0)
    losses = []
    for prompt in range(8):
        own = [(float(rollout.scores_N[row]), rollout.episodes[row]) for row in range(3 * prompt, 3 * prompt + 3)]
        best, worst = max(own, key=lambda pair: pair[0]), min(own, key=lambda pair: pair[0])
        if best[0] == worst[0]:
            continue
        h = torch.zeros((), dtype=torch.float64)
        for sign, (_, side) in ((1.0, best), (-1.0, worst)):
            ratio = slow_logprob(model, side.prompt_ids, side.response_ids)
            ratio = ratio - slow_logprob(reference, side.prompt_ids, side.response_ids).detach()
            h = h + sign * ratio
        losses.append(slow_loss(name, h, beta))
    mean = sum(losses) / len(losses)  # type: ignore[arg-type]
    assert isinstance(mean, torch.Tensor)
    mean.backward()
    assert means["loss"] == pytest.approx(mean.item(), rel=1e-5)
    expected = {key: value.grad for key, value in model.named_parameters()}
    for key, value in made.policy.parameters.items():
        assert value.grad is not None and expected[key] is not None
        torch.testing.assert_close(value.grad, expected[key], rtol=1e-3, atol=1e-5, msg=key)


def test_the_reference_gets_no_gradient_and_stays() -> None:
    made = online(steps=2)
    before = {key: value.clone() for key, value in made.recorder.reference.state_dict().items()}
    made.step()
    assert isinstance(made.learner, PairLearner)
    assert made.learner.reference is made.recorder.reference
    assert all(torch.equal(before[key], value) for key, value in made.recorder.reference.state_dict().items())
    assert not any(value.requires_grad for value in made.recorder.reference.parameters())


@pytest.mark.parametrize(("name", "expected"), [("dpo", math.log(2)), ("ipo", 25.0), ("hinge", 1.0)])
def test_the_first_loss_is_that_of_policy_and_reference_being_equal(name: Any, expected: float) -> None:
    made = online(steps=1, loss=name, beta=0.1, mini_batch_size=32)
    made.step()
    assert made.history.records[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_policy_unlike_its_reference_is_refused_at_the_start() -> None:
    parameters = OnlineDPOParameters(**SMALL)
    made = trainer(parameters, Annotator(count_wanted, 2, 1), seed=0, start=3)
    with pytest.raises(StageError, match=r"a policy equal to its reference gives 0\.693147"):
        made.step()


def test_weights_of_four_bits_start_as_near_as_they_do_offline() -> None:
    """They are multiplied in bfloat16 whatever the dtype, so the first loss may differ by as much."""
    for changes, tolerance in (
        ({}, 1e-3),
        ({"dtype": "bfloat16"}, 2e-2),
        ({"lora_rank": 4, "quantisation": "4bit"}, 2e-2),
    ):
        assert pair_objective(OnlineDPOParameters(**{**SMALL, **changes})).tolerance == tolerance


@pytest.mark.parametrize(("pad_id", "columns"), [(PAD, {"right": 5}), (PAD, {"left": 3}), (EOS, {})])
def test_padding_changes_nothing(pad_id: int, columns: dict[str, int], more_padding: Any) -> None:
    class Wider(PairCollator):
        def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
            return dict(more_padding(super().__call__(rows), self.pad_id, **columns))

    pairs = [pair for pair in best_and_worst(given_rollout().episodes, given_rollout().scores_N, 3) if pair]
    tokens = pair_tokens(pairs)
    reference = reference_columns(policy(0), pairs, PAD, LIMITS, "float32")
    found = []
    for collator, limits in (
        (PairCollator(tokens, PAD, reference), LIMITS),
        (Wider(tokens, pad_id, reference), PassLimits(CPU, 30, 2**24)),
    ):
        model = policy(3)
        passes = PairPass(model, pair_objective(OnlineDPOParameters(**SMALL)), limits, "float32")
        means = passes.backward(collator, list(range(len(pairs))))
        found.append((means["loss"], [value.grad for value in model.parameters()]))
    (loss, grads), (other, others) = found
    assert loss == pytest.approx(other, rel=1e-6)
    for one, two in zip(grads, others, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_a_mini_batch_without_pairs_teaches_nothing() -> None:
    made = online(score=lambda episodes: torch.zeros(len(episodes)), steps=2)
    before = {key: value.clone() for key, value in made.learner.policy.parameters.items()}
    made.step()
    record = made.history.records[0]
    assert (record["pairs"], record["ties"]) == (0, 1.0)
    assert all(torch.equal(before[key], value) for key, value in made.learner.policy.parameters.items())


def test_a_step_s_means_are_over_its_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mini-batches of 16 prompts with few pairs, with many, and with none, which says nothing of the loss."""

    def score(episodes: Sequence[Episode]) -> torch.Tensor:
        odd = torch.tensor([int(item.prompt_id[1:]) % 2 for item in episodes])
        return count_wanted(episodes) * odd * torch.arange(len(episodes)).remainder(3)

    made, seen, backward = online(score=score, steps=1, mini_batch_size=8), [], PairLearner.backward

    def watched(self: PairLearner, rollout: Any, targets: Any, rows: list[int], **named: Any) -> dict[str, float]:
        means = backward(self, rollout, targets, rows, **named)
        seen.append((sum(row // 2 in targets.rows for row in rows[::2]), means))
        return means

    monkeypatch.setattr(PairLearner, "backward", watched)
    made.step()
    record, counts = made.history.records[0], [count for count, _ in seen]
    assert sum(counts) == record["pairs"] and len(set(counts)) > 1
    for name in ("loss", "rewards/margin", "rewards/accuracy"):
        total = sum(count * means[name] for count, means in seen if count)
        assert record[name] == pytest.approx(total / record["pairs"], rel=1e-9)


# Whole runs


MANY_LABELS = {"gold_every": 32, "gold_labels": 24, "gold_choice": "random", "gold_memory": "all"}


@pytest.mark.parametrize(("make", "options"), [(online, {}), (d2po, MANY_LABELS)])
def test_the_wanted_token_is_learnt(make: Any, options: dict[str, Any], tmp_path: Path) -> None:
    made = make(steps=14, **options)
    made.train(tmp_path)
    wanted = [sample["response"].split().count(str(WANTED)) for sample in made.samples]
    assert np.mean(wanted[:9]) < 1.0
    assert np.mean(wanted[-9:]) > 2.5
    records = made.history.records
    assert records[0]["kl"] == 0.0 and records[-1]["kl"] > 1.0
    assert records[-1]["entropy"] < records[0]["entropy"]
    assert records[-1]["samples"] == 14 * 64


def test_labels_end_an_online_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = online(label_budget=100, steps=5)
    assert capsys.readouterr().out == (
        "label_budget 100 is used up after 3 steps of 32 labels: training ends there, not after 5 steps\n"
    )
    made.train(tmp_path)
    assert [record["labels"] for record in made.history.records] == [32, 64, 96]
    assert [record["samples"] for record in made.history.records] == [64, 128, 192]
    with pytest.raises(ValueError, match="label_budget 31 has no room for one step of 32 labels"):
        OnlineDPOParameters(**{**SMALL, "label_budget": 31})


def test_a_label_is_a_comparison_of_two_responses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four responses to a prompt hold three comparisons, so 32 prompts cost 96 labels a step."""
    made = online(label_budget=200, steps=5, responses_per_prompt=4)
    assert "used up after 2 steps of 96 labels" in capsys.readouterr().out
    made.train(tmp_path)
    assert [record["labels"] for record in made.history.records] == [96, 192]
    with pytest.raises(ValueError, match="label_budget 95 has no room for one step of 96 labels"):
        OnlineDPOParameters(**{**SMALL, "label_budget": 95, "responses_per_prompt": 4})


def test_the_budgets_of_d2po_by_hand(tmp_path: Path) -> None:
    """Rounds in step 1, then whenever 64 more pairs were sampled: steps 3, 5 and, with what is left, 7.

    All 64 samples of a step are looked at once more, which is no label.
    """
    asked: list[int] = []

    def annotate(episodes: Sequence[Episode]) -> torch.Tensor:
        asked.append(len(episodes) // 2)
        return count_wanted(episodes)

    made = d2po(score=annotate, steps=10, label_budget=26)
    made.train(tmp_path)
    assert asked == [8, 32, 32, 8, 32, 32, 8, 32, 32, 2, 32, 32, 32, 32]
    records = made.history.records
    assert [record["labels"] for record in records] == [8, 8, 16, 16, 24, 24, 26, 26, 26, 26]
    assert [record["silver_labels"] for record in records] == [32 * step for step in range(1, 11)]
    rounds = [record["step"] for record in records if "gold_score" in record]
    assert rounds == [1, 3, 5, 7]


class Interrupted(Exception):
    pass


def interrupted_after(steps: int, made: OnPolicyTrainer, folder: Path) -> None:
    step = made.step

    def stop() -> None:
        if made.done == steps:
            raise Interrupted
        step()

    made.step = stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        made.train(folder, cadence=Cadence(seconds=0))


@pytest.mark.parametrize("make", [online, d2po])
@pytest.mark.parametrize("steps", [1, 4])
def test_an_interrupted_run_ends_as_an_unbroken_one(make: Any, steps: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"inner_epochs": 2, "steps": 6, "prompts_per_step": 16, "mini_batch_size": 8}
    if make is d2po:
        options |= {"gold_memory": "all", "gold_every": 32}
    unbroken = make(**options)
    unbroken.train(tmp_path / "unbroken")
    interrupted_after(steps, make(**options), tmp_path / "first")
    resumed = make(**options)
    resumed.train(tmp_path / "second", [tmp_path / "first"])
    assert unbroken.history.records == resumed.history.records
    assert unbroken.samples == resumed.samples
    assert unbroken.learner.log.rows == resumed.learner.log.rows
    for key, value in unbroken.learner.policy.parameters.items():
        assert torch.equal(value, resumed.learner.policy.parameters[key])
    if make is d2po:
        one, two = unbroken.learner.labeller, resumed.learner.labeller
        assert one.gold == two.gold and one.pool == two.pool and len(one.gold) > 8
        for key, value in one.network.parameters.items():
            assert torch.equal(value, two.network.parameters[key])


@pytest.mark.parametrize("make", [online, d2po])
@pytest.mark.parametrize("number", [1, 3])
def test_a_stopped_step_leaves_the_checkpoint_before_it_as_it_was(make: Any, number: int, tmp_path: Path) -> None:
    """By the time that a score turns out not to be finite, labels are counted and a discriminator has learnt."""
    options: dict[str, Any] = {"steps": 4, "prompts_per_step": 16, "mini_batch_size": 8, "missing_eos_reward": -10.0}
    if make is d2po:
        options |= {"gold_every": 16, "gold_memory": "all"}
    unbroken, stopped, resumed = (make(**options) for _ in range(3))
    unbroken.gold = resumed.gold = count_wanted
    unbroken.train(tmp_path / "unbroken")

    def gold(episodes: Sequence[Episode]) -> torch.Tensor:  # is asked after the labeller
        return count_wanted(episodes) * (float("nan") if stopped.done == number - 1 else 1.0)

    stopped.gold = gold
    message = rf"step {number}: the gold reward of 32 .* prompts p\d+.*saved in .*stopped-in-step-{number}\n"
    with pytest.raises(StageError, match=message):
        stopped.train(tmp_path / "stopped", cadence=Cadence(seconds=0))
    before = ["checkpoint-2"] if number == 3 else []
    assert [path.name for path in complete_checkpoints(tmp_path / "stopped")] == before
    resumed.train(tmp_path / "resumed", [tmp_path / "stopped"])
    assert resumed.history.records == unbroken.history.records
    assert resumed.learner.log.rows == unbroken.learner.log.rows
    for key, value in unbroken.learner.policy.parameters.items():
        assert torch.equal(value, resumed.learner.policy.parameters[key])
    if make is d2po:
        one, two = unbroken.learner.labeller, resumed.learner.labeller
        assert one.gold == two.gold and one.pool == two.pool and one.step == two.step
        assert all(torch.equal(value, two.network.parameters[key]) for key, value in one.network.parameters.items())


def test_gold_scores_that_are_no_numbers_stop_the_run(tmp_path: Path) -> None:
    """One that is not finite would order its pair by chance, and none of its kind would be missed."""

    def annotate(episodes: Sequence[Episode]) -> torch.Tensor:
        return torch.tensor([float("nan") if int(item.prompt_id[1:]) % 2 else 1.0 for item in episodes])

    made = d2po(score=annotate, gold_labels=32, prompts_per_step=40, steps=2)
    message = r"step 1: the gold score of \d+ responses is not finite; prompts p\d*[13579], p\d*[13579], "
    with pytest.raises(StageError, match=message):
        made.train(tmp_path)


# The discriminator


def pooled(margins: Sequence[float]) -> list[OnlinePair]:
    """Pairs whose preferred side has one wanted token more, told apart by ``margins``."""
    return [
        OnlinePair(
            episode([2], [WANTED, 6 + row, EOS], f"p{row}"), episode([2], [6 + row, EOS], f"p{row}"), margin, 0.0
        )
        for row, margin in enumerate(margins)
    ]


def discriminator(score: Score = count_wanted, **changes: Any) -> Discriminator:
    parameters = D2POParameters(**{**SMALL, "gold_labels": 3, "discriminator_batch_size": 16, **changes})
    return Discriminator(classifier(), score, parameters, 0, PAD, LIMITS, by_name=True)


def test_confidence_takes_the_pairs_told_apart_least() -> None:
    made = discriminator()
    made.pool = pooled([0.9, 0.1, 0.5, 0.2, 0.7])
    assert [pair.margin for pair in made._choose()] == [0.1, 0.2, 0.5]
    assert made.pool == []
    drawn = []
    for seed in range(3):
        made = discriminator(gold_choice="random")
        made.pool, made.step = pooled([0.9, 0.1, 0.5, 0.2, 0.7]), seed
        drawn.append([pair.margin for pair in made._choose()])
    assert len({tuple(margins) for margins in drawn}) > 1
    assert all(len(set(margins)) == 3 for margins in drawn)


def test_accuracy_is_measured_before_the_discriminator_learns() -> None:
    """Of four labels one ties and one contradicts the discriminator: two of the three others are right."""
    gold = iter([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0], [5.0, 4.0]])
    made = discriminator(lambda episodes: torch.tensor([score for _ in range(4) for score in next(gold)]))
    before = classifier()
    made._learn(pooled([0.1, 0.2, 0.3, 0.4]))
    assert made.last_round["discriminator_accuracy"] == pytest.approx(2 / 3)
    assert made.last_round["gold_ties"] == 1 / 4
    assert made.last_round["gold_score"] == pytest.approx(17 / 8)
    assert made.gold_labels == 4
    losses = []
    for pair, flipped in ((0, False), (1, True), (3, False)):
        sides = [[2, WANTED, 6 + pair, EOS], [2, 6 + pair, EOS]]
        chosen, rejected = (slow_score(before, ids) for ids in (sides[::-1] if flipped else sides))
        losses.append(math.log(1 + math.exp(rejected - chosen)))
    assert made.last_round["discriminator_loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)


def slow_score(model: LlamaForSequenceClassification, ids: list[int]) -> float:
    with torch.no_grad():
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0, -1].double()
        return float(hidden @ model.score.weight[0].double())


def test_a_gold_label_that_is_sure_without_asking_is_not_asked() -> None:
    """A pair that a missing EOS decides has no need of the annotator, unless the score of such a response counts."""
    episodes = [episode([2], [WANTED, EOS]), episode([2], [6, 7]), episode([2], [WANTED, EOS]), episode([2], [8, EOS])]
    scores = torch.tensor([1.0, 0.0, 1.0, 0.0])
    for reward, expected in ((-10.0, 1), (None, 2)):
        made = discriminator(missing_eos_reward=reward)
        made._is_due(episodes, scores)
        assert len(made.pool) == expected


# Replay


def test_an_offline_run_on_the_pairs_in_their_order_is_the_online_run(
    make_context: Any, policy_folder: Path, tmp_path: Path
) -> None:
    """The same pairs in the same batches at the same rate: where the pairs came from makes no difference."""
    from ablate.models.loading import load_policy, load_tokenizer
    from ablate.models.properties import pad_id
    from ablate.training.logprobs import run as reference_pass
    from ablate.training.preference import train_preference

    parameters = OnlineDPOParameters(
        **{**SMALL, "learning_rate": 1e-3, "prompts_per_step": 8, "mini_batch_size": 8, "warmup_ratio": 0.0, "steps": 4}
    )
    model, reference, tokenizer = load_policy(policy_folder), load_policy(policy_folder), load_tokenizer(policy_folder)
    kept: list[OnlinePair] = []

    class Keeping(PairLog):
        def add(self, pair: OnlinePair, step: int) -> None:
            kept.append(pair)

    labeller = Annotator(lambda episodes: torch.tensor([float(sum(item.response_ids)) for item in episodes]), 2, 1)
    learner = PairLearner(
        networks={"policy": Network(model, parameters.learning_rate, 0.0)},
        parameters=parameters,
        pad_id=pad_id(tokenizer),
        limits=LIMITS,
        reference=reference,
        objective=pair_objective(parameters),
        labeller=labeller,
        log=Keeping({}, str, "test"),
    )
    prompts = [Prompt(f"p{i}", [6 + i, 7 + i]) for i in range(20)]
    tokens = Tokens(frozenset({int(tokenizer.eos_token_id)}), pad_id(tokenizer), str)  # type: ignore[arg-type]
    OnPolicyTrainer(learner, 0, reference=reference, score=labeller, prompts=prompts, tokens=tokens).train(tmp_path)
    assert len(kept) == 32  # no ties

    columns = {
        "prompt_ids": [pair.chosen.prompt_ids for pair in kept],
        "chosen_ids": [pair.chosen.response_ids for pair in kept],
        "rejected_ids": [pair.rejected.response_ids for pair in kept],
    }
    table = pa.table({"id": [f"pair-{row}" for row in range(32)], **columns})
    for name, metadata in (("kept", {"order": "kept"}), ("shuffled", {})):
        data = tmp_path / f"{name}.parquet"
        pq.write_table(table.replace_schema_metadata(metadata), data)
        logprobs = make_context(f"reference-{name}", {"dtype": "float32"}, {"model": policy_folder, "data": data})
        reference_pass(logprobs)
        offline = {"learning_rate": 1e-3, "warmup_ratio": 0.0, "scheduler": "constant", "epochs": 1, "batch_size": 8}
        context = make_context(
            name,
            {"algorithm": "dpo", "parameters": {**offline, "beta": parameters.beta}, "seed": 5},
            {"policy": policy_folder, "data": data, "reference_logprobs": logprobs.output / "logprobs.parquet"},
        )
        train_preference(context, Cadence())
        replayed = load_policy(context.output / "model").state_dict()
        largest = max(float((value - replayed[key]).abs().max()) for key, value in model.state_dict().items())
        assert (largest < 1e-5) is (name == "kept")


def test_pairs_are_kept_once_in_the_order_in_which_they_are_learnt_from() -> None:
    made = online(steps=1, inner_epochs=3)
    parts = made.mini_batches(64, 0)
    episodes = made.sample_episodes(0)
    made.step()
    assert isinstance(made.learner, PairLearner)
    rows = made.learner.log.rows
    pairs = best_and_worst(episodes, count_wanted(episodes), 2)
    order = [row // 2 for part in parts for row in part[::2]]
    expected = [pair.chosen.response_ids for prompt in order if (pair := pairs[prompt]) is not None]
    assert [[int(token) for token in row["chosen"][0]["content"].split()] for row in rows] == expected
    assert {row["step"] for row in rows} == {1}
