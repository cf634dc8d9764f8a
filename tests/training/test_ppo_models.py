"""PPO over real (tiny) models: padding, micro-batches, temperature, where values and scores are read, ratio 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from ablate.algorithms.ppo import PPOParameters
from ablate.context import Resources
from ablate.errors import StageError
from ablate.training import placement
from ablate.training.devices import autocast
from ablate.training.experience import (
    PassLimits,
    Recorder,
    Rollout,
    mini_batches,
    outcomes,
    reward_model_score,
)
from ablate.training.learner import Network
from ablate.training.online_pairs import reference_columns
from ablate.training.pair_log import OnlinePair
from ablate.training.placement import FrozenPlace, Placed, frozen_score, sampled_from
from ablate.training.policy_gradient import PPOLearner
from ablate.training.rollouts import (
    Episode,
    EpisodeBatch,
    collate,
    response_entropy,
    response_logits,
    response_logprobs,
    sample,
)
from ablate.training.score_head import response_values, sequence_scores
from ablate.training.targets import Targets, gae_targets
from tests.training.tiny import EOS, PAD, llama

V = 40
LIMITS = PassLimits(torch.device("cpu"), 4096, 2**20)


def config(**changes: Any) -> LlamaConfig:
    """A model where any pass in training mode would show."""
    shape = {"num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": False}
    return llama(V, **{**shape, "initializer_range": 0.3, "attention_dropout": 0.5, **changes})


def policy(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(config()).eval()


def reward_model(seed: int = 1) -> LlamaForSequenceClassification:
    torch.manual_seed(seed)
    return LlamaForSequenceClassification(config(num_labels=1)).eval()


def episodes(count: int = 24, seed: int = 4) -> list[Episode]:
    stream = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (count,), generator=stream).tolist()
    prompts = [torch.randint(2, V, (length,), generator=stream).tolist() for length in lengths]
    responses = sample(
        policy(),
        prompts,
        max_new_tokens=14,
        temperature=0.7,
        eos_token_ids=[EOS, 7, 8],
        pad_token_id=PAD,
        generator_seed=seed,
        batch_size=64,
    )
    pairs = zip(prompts, responses, strict=True)
    return [Episode(f"p{i}", prompt, r.ids, r.finished) for i, (prompt, r) in enumerate(pairs)]


def scores_of(model: torch.nn.Module, batch: EpisodeBatch) -> torch.Tensor:
    return sequence_scores(model, batch.input_ids_BT, batch.attention_mask_BT)


def parameters(**changes: Any) -> PPOParameters:
    return PPOParameters(**{"learning_rate": 1e-3, "mini_batch_size": 24, "prompts_per_step": 24, **changes})


def learner(settings: PPOParameters, limits: PassLimits = LIMITS, pad: int = PAD) -> PPOLearner:
    models = (("policy", policy()), ("value", reward_model()))
    networks = {name: Network(model, settings.learning_rate, 0.0) for name, model in models}
    return PPOLearner(networks, settings, pad, limits)


def rollout(
    settings: PPOParameters,
    chunks: list[list[int]] | None = None,
    pad: int = PAD,
    rows: Sequence[Episode] | None = None,
) -> Rollout:
    found = list(rows or episodes())
    recorder = Recorder(policy(), policy(9), reward_model(), pad, LIMITS, settings.temperature, settings.dtype)
    scores_N = reward_model_score(reward_model(2), pad, LIMITS, settings.dtype)(found)
    outcomes_N = outcomes(scores_N, found, settings.missing_eos_reward)
    return recorder.record(found, chunks or [list(range(len(found)))], scores_N, outcomes_N)


def gradients(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in network.parameters.items() if value.grad is not None}


def losses_and_gradients(settings: PPOParameters, made: Rollout, limits: PassLimits, pad: int = PAD) -> Any:
    """Losses and gradients of one mini-batch with all rows, without the optimiser step."""
    trained = learner(settings, limits, pad)
    kept: dict[str, dict[str, torch.Tensor]] = {}
    for name, network in trained.networks.items():

        def keep(factor: float, max_norm: float, name: str = name, network: Network = network) -> float:
            kept[name] = gradients(network)
            return 0.0

        network.step = keep  # type: ignore[method-assign]
    losses = trained.update(
        made, gae_targets(made, settings), list(range(len(made.episodes))), 1.0, step=1, first=False
    )
    return losses, kept


def assert_near(first: Any, second: Any, tolerance: float = 1e-6) -> None:
    (losses, grads), (other_losses, other_grads) = first, second
    assert losses == pytest.approx(other_losses, abs=tolerance, rel=1e-5)
    for network in grads:
        for name in grads[network]:
            torch.testing.assert_close(grads[network][name], other_grads[network][name], atol=5e-6, rtol=1e-4)


class Moved(nn.Module):
    """A model that counts how often it is moved, and says where it is when it is called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.place = model, torch.device("meta")
        self.moves: list[torch.device] = []

    def to(self, device: torch.device) -> Moved:  # type: ignore[override]
        self.place = device
        self.moves.append(device)
        return self

    def forward(self, **inputs: Any) -> Any:
        assert self.place == GPU, "it computes at home"
        return self.model(**inputs)


HOME, GPU = torch.device("cpu"), torch.device("cpu", 0)  # two names of one place


def test_a_frozen_model_at_home_in_host_memory_moves_once_a_pass_however_many_micro_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, few, place = episodes(9), PassLimits(torch.device("cpu"), 16, 2**20), FrozenPlace(HOME, GPU)
    chunks, zeros = few.chunks(found, range(9)), torch.zeros(9)
    assert len(chunks) > 3
    moved, plain = Moved(policy(2)), policy(2)
    placed = Placed(moved, place)
    assert moved.moves == [HOME] and not list(placed.parameters())
    recorders = [Recorder(policy(), other, None, PAD, few, 0.7, "float32") for other in (placed, plain)]
    ours, theirs = (recorder.record(found, chunks, zeros, zeros) for recorder in recorders)
    assert torch.equal(ours.reference_logps_NR, theirs.reference_logps_NR) and ours.reference_logps_NR.any()
    assert moved.moves == [HOME, GPU, HOME]

    pairs = [OnlinePair(one, other, 1.0, 0.0) for one, other in zip(found[:4], found[4:], strict=False)]
    sides = [reference_columns(other, pairs, PAD, few, "float32") for other in (placed, plain)]
    assert all(torch.equal(column_B, sides[1][name]) for name, column_B in sides[0].items())
    assert moved.moves == [HOME, GPU, HOME, GPU, HOME]

    with pytest.raises(RuntimeError, match="gone"):
        reference_columns(placed, pairs, PAD, Broken(few), "float32")  # type: ignore[arg-type]
    assert moved.place == HOME, "also where a pass fails"

    with sampled_from(placed) as lent:
        assert lent is moved and moved.place == GPU
    assert moved.moves[-1] == HOME
    with sampled_from(plain) as lent:
        assert lent is plain

    judge = Moved(reward_model())
    monkeypatch.setattr(placement, "load_reward_model", lambda path: judge)
    monkeypatch.setattr(FrozenPlace, "of", lambda resources: place)
    made = frozen_score(Path("judge"), None, Resources(), lambda model, device: lambda rows: torch.ones(len(rows)))
    assert made(found).tolist() == [1.0] * 9
    assert judge.moves == [HOME, GPU, HOME]


@dataclass
class Broken:
    """Limits whose passes fail."""

    limits: PassLimits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.limits, name)

    def chunks(self, *arguments: Any) -> list[list[int]]:
        raise RuntimeError("gone")


def padded(batch: EpisodeBatch, pad_id: int, left: int, right: int) -> EpisodeBatch:
    """The batch with more columns of padding, which must change nothing."""
    ids_BT = functional.pad(batch.input_ids_BT, (left, right), value=pad_id)
    attention_mask_BT = functional.pad(batch.attention_mask_BT, (left, right))
    return EpisodeBatch(ids_BT, attention_mask_BT, functional.pad(batch.response_mask_BR, (0, right)))


@pytest.mark.parametrize(("left", "right"), [(0, 5), (6, 0), (3, 2)])
@pytest.mark.parametrize("pad", [PAD, EOS, 17])
def test_padding_changes_no_log_probability_entropy_value_or_score(left: int, right: int, pad: int) -> None:
    found, temperature = episodes(), 0.7
    whole = padded(collate(found, pad), pad, left, right)
    with torch.no_grad():
        logits = response_logits(policy(), whole)
        logps, entropies = (
            response_logprobs(logits, whole, temperature),
            response_entropy(logits, whole, temperature),
        )
        values, scores = response_values(reward_model(), whole), scores_of(reward_model(), whole)
        for row, episode in enumerate(found):
            alone = collate([episode], PAD)
            width = len(episode.response_ids)
            logits = response_logits(policy(), alone)
            for batched, single in (
                (logps, response_logprobs(logits, alone, temperature)),
                (entropies, response_entropy(logits, alone, temperature)),
                (values, response_values(reward_model(), alone)),
            ):
                torch.testing.assert_close(batched[row, :width], single[0], atol=1e-5, rtol=1e-5)
                assert (batched[row, width:] == 0).all()
            torch.testing.assert_close(scores[row], scores_of(reward_model(), alone)[0], atol=1e-5, rtol=1e-5)


def test_log_probabilities_are_those_of_a_plain_forward_pass_at_the_sampling_temperature() -> None:
    for episode in episodes(6):
        ids = torch.tensor([episode.prompt_ids + episode.response_ids])
        with torch.no_grad():
            logps_TV = (policy()(ids).logits[0] / 0.7).log_softmax(-1)
            batch = collate([episode], PAD)
            found = response_logprobs(response_logits(policy(), batch), batch, 0.7)[0]
        first = len(episode.prompt_ids)
        for t, token in enumerate(episode.response_ids):
            assert float(found[t]) == pytest.approx(float(logps_TV[first + t - 1, token]), abs=1e-5)


def test_the_score_is_read_at_the_last_response_token_and_never_at_padding() -> None:
    model = reward_model()
    found = episodes()
    batch = padded(collate(found, EOS), EOS, 2, 4)
    with torch.no_grad():
        scores = scores_of(model, batch)
    for row, episode in enumerate(found):
        ids = torch.tensor([episode.prompt_ids + episode.response_ids])
        with torch.no_grad():
            hidden = model.model(ids).last_hidden_state
            expected = model.score(hidden)[0, -1, 0]
            assert float(model(ids).logits[0, 0]) == pytest.approx(float(expected), abs=1e-5)
        assert float(scores[row]) == pytest.approx(float(expected), abs=1e-5)


def test_a_value_is_read_before_its_token() -> None:
    """V_t may not see token t: changing the last token changes the score, and no value."""
    episode = Episode("a", [3, 4, 5], [6, 7, 8], False)
    other = replace(episode, response_ids=[6, 7, 9])
    model = reward_model()
    with torch.no_grad():
        first, second = (response_values(model, collate([e], PAD)) for e in (episode, other))
        hidden = model.model(torch.tensor([[3, 4, 5, 6, 7, 8]])).last_hidden_state
    assert torch.equal(first, second)
    torch.testing.assert_close(first[0], model.score(hidden)[0, 2:5, 0], atol=1e-5, rtol=1e-5)
    assert not torch.equal(scores_of(model, collate([episode], PAD)), scores_of(model, collate([other], PAD)))


def test_bfloat16_rounds_neither_scores_nor_values() -> None:
    """The trunk multiplies in bfloat16; the head adds its products up in float32, one at a time here."""
    model, batch = reward_model(), collate(episodes(), PAD)
    with torch.no_grad(), autocast("cpu", "bfloat16"):
        scores_B, values_BR = scores_of(model, batch), response_values(model, batch)
        hidden_BTH = model.model(
            batch.input_ids_BT, attention_mask=batch.attention_mask_BT, position_ids=batch.positions_BT
        ).last_hidden_state
    products_BTH = hidden_BTH.double() * model.score.weight.double()
    expected_BT = products_BTH.sum(-1)
    width = batch.response_mask_BR.shape[1]
    for row, length in enumerate(batch.response_mask_BR.sum(-1).tolist()):
        first = batch.input_ids_BT.shape[1] - width
        assert scores_B[row].item() == pytest.approx(expected_BT[row, first + length - 1].item(), abs=1e-5)
        expected_R = expected_BT[row, first - 1 : first + length - 1].float()
        torch.testing.assert_close(values_BR[row, :length], expected_R, atol=1e-5, rtol=0)
    for found in (scores_B, values_BR[batch.response_mask_BR.bool()]):
        assert found.dtype == torch.float32
        assert (found != found.bfloat16().float()).float().mean() > 0.9


def test_a_model_without_a_score_head_is_refused() -> None:
    with pytest.raises(StageError, match="score"):
        response_values(policy(), collate(episodes(2), PAD))


@pytest.mark.parametrize("pad", [EOS, 17])
def test_the_pad_id_changes_no_loss_and_no_gradient(pad: int) -> None:
    settings = parameters()
    first = losses_and_gradients(settings, rollout(settings), LIMITS)
    second = losses_and_gradients(settings, rollout(settings, pad=pad), LIMITS, pad)
    assert_near(first, second)


@pytest.mark.parametrize("tokens", [1, 40, 100])
def test_micro_batches_change_neither_rollout_nor_loss_nor_gradient(tokens: int) -> None:
    settings, small = parameters(), PassLimits(torch.device("cpu"), tokens, 1)
    whole = rollout(settings)
    chunks = small.chunks(whole.episodes, range(len(whole.episodes)))
    assert len(chunks) > 2
    split = rollout(settings, chunks)
    for name in ("logps_NR", "reference_logps_NR", "values_NR", "entropies_NR"):
        torch.testing.assert_close(getattr(whole, name), getattr(split, name), atol=5e-6, rtol=1e-5)
    assert_near(losses_and_gradients(settings, whole, LIMITS), losses_and_gradients(settings, whole, small))


def test_a_mini_batch_twice_as_large_has_the_same_scale() -> None:
    """The same episodes twice: the same losses and the same gradients."""
    settings, once = parameters(whiten_advantages=False), episodes(12)
    first = losses_and_gradients(settings, rollout(settings, rows=once), LIMITS)
    second = losses_and_gradients(settings, rollout(settings, rows=once + once), LIMITS)
    assert_near(first, second)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_ratio_is_exactly_one_before_the_first_update(dtype: str) -> None:
    settings = parameters(mini_batch_size=7, dtype=dtype)
    found = episodes()
    parts = mini_batches(len(found), 7, 0, 1, 0)
    made = rollout(settings, [chunk for rows in parts for chunk in LIMITS.chunks(found, rows)], rows=found)
    trained = learner(settings)
    for rows in parts:
        for chunk in LIMITS.chunks(found, rows):
            _, means = trained.policy_loss(made, gae_targets(made, settings), chunk, made.mask_NR[rows])
            assert means["largest_log_ratio"] == 0.0
            assert means["approx_kl"] == means["policy_clip_fraction"] == 0.0


def test_a_ratio_other_than_one_at_the_start_stops_the_run() -> None:
    settings = parameters()
    made = rollout(settings)
    targets, rows = gae_targets(made, settings), list(range(24))
    mismatched = learner(parameters(temperature=1.0))
    with pytest.raises(StageError, match=r"step 3: before any update the log ratio.*prompts p0, p1"):
        mismatched.update(made, targets, rows, 1.0, step=3, first=True)
    trained = learner(settings)
    trained.policy.model.train()  # dropout on in one of the two passes
    with pytest.raises(StageError, match="dropout"):
        trained.update(made, targets, rows, 1.0, step=3, first=True)


def test_zero_advantages_give_no_policy_gradient() -> None:
    settings = parameters()
    made = rollout(settings)
    trained = learner(settings)
    zero = Targets(torch.zeros_like(made.logps_NR), gae_targets(made, settings).returns_NR)
    losses = trained.update(made, zero, list(range(24)), 1.0, step=1, first=True)
    assert losses["policy_grad_norm"] == losses["policy_loss"] == 0.0
    assert losses["value_grad_norm"] > 0


def test_a_policy_equal_to_its_reference_has_exactly_zero_kl() -> None:
    settings, found = parameters(gae_lambda=1.0), episodes()
    recorder = Recorder(policy(), policy(), None, PAD, LIMITS, 0.7, "float32")
    made = recorder.record(found, [list(range(24))], torch.ones(24), torch.ones(24))
    assert torch.equal(made.logps_NR, made.reference_logps_NR)
    with pytest.raises(StageError, match="value network"):  # which this rollout was recorded without
        gae_targets(made, settings)


@pytest.mark.parametrize("where", ["logps_NR", "values_NR"])
def test_a_loss_that_is_not_finite_names_step_and_prompts(where: str) -> None:
    settings = parameters()
    made = rollout(settings)
    targets = gae_targets(made, settings)
    broken = getattr(made, where).clone()
    broken[0, 0] = float("nan")
    trained = learner(settings)
    before = {name: value.clone() for name, value in trained.policy.parameters.items()}
    with pytest.raises(StageError, match=r"step 5: .*not finite.*p0, p1"):
        trained.update(replace(made, **{where: broken}), targets, list(range(24)), 1.0, step=5, first=False)
    if where == "logps_NR":
        assert all(torch.equal(value, before[name]) for name, value in trained.policy.parameters.items())


def test_the_policy_loss_falls_and_the_values_learn_on_a_fixed_rollout() -> None:
    settings = parameters(learning_rate=3e-3, value_coefficient=1.0, value_clip_range=100.0)
    made = rollout(settings)
    targets, trained = gae_targets(made, settings), learner(settings)
    losses = [trained.update(made, targets, list(range(24)), 1.0, step=1, first=i == 0) for i in range(12)]
    assert losses[-1]["policy_loss"] < losses[0]["policy_loss"] - 0.05
    assert losses[-1]["value_loss"] < 0.7 * losses[0]["value_loss"]
    assert losses[-1]["policy_clip_fraction"] > 0


def test_network_state_survives_a_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tied = LlamaForCausalLM(config(tie_word_embeddings=True))
    network = Network(tied, 1e-2, 0.1)
    ids = torch.randint(0, V, (2, 5))

    def advance(one: Network) -> None:
        loss = nn.functional.cross_entropy(one.model(ids).logits.flatten(0, 1), ids.flatten())
        loss.backward()
        one.step(1.0, 1.0)

    advance(network)
    network.save(tmp_path, "policy")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".safetensors"]
    restored = Network(LlamaForCausalLM(config(tie_word_embeddings=True)), 1e-2, 0.1)
    restored.load(tmp_path, "policy")
    for one in (network, restored):
        advance(one)
    for name, value in network.parameters.items():
        assert torch.equal(value, restored.parameters[name])
    with pytest.raises(StageError, match="another model"):
        Network(reward_model(), 1e-2, 0.0).load(tmp_path, "policy")


def test_pass_limits_follow_the_vocabulary_and_the_cache() -> None:
    small = PassLimits.of(Resources(threads=1), 300)
    large = PassLimits.of(Resources(threads=1), 256_000)
    assert small.tokens == 4096
    assert large.tokens < 300
    assert small.sampling_rows(policy(), 64) == 512
    assert PassLimits(torch.device("cpu"), 1, 1).sampling_rows(policy(), 64) == 1
