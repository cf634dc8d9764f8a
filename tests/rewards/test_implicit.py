"""The implicit reward of a policy: by hand, against a loop over single tokens, in batches of any size."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from ablate.errors import StageError
from ablate.models.loading import load_policy, load_tokenizer, new_policy, save_model
from ablate.models.tokenizers import byte_tokenizer
from ablate.rewards.implicit import ImplicitReward, LanguageModel, pair_rows
from ablate.rewards.likelihood import Likelihood, log_likelihood, log_ratio
from ablate.rewards.pairs import Pair
from ablate.training import logprobs

PROMPTS = [[{"role": "user", "content": text}] for text in ("a", "a much longer question " * 4, "mid", "mid")]
RESPONSES = ["short", "yes", "a long answer " * 6, ""]


def test_by_hand() -> None:
    """Two tokens of probability 1/2 and 1/4 under the policy, 1/4 and 1/8 under the reference."""
    policy, reference = Likelihood(math.log(1 / 8), 2), Likelihood(math.log(1 / 32), 2)
    assert log_ratio(policy, reference, average=False) == pytest.approx(math.log(4))
    assert log_ratio(policy, reference, average=True) == pytest.approx(math.log(2))
    assert log_likelihood(policy, average=False) == pytest.approx(-3 * math.log(2))
    assert log_likelihood(policy, average=True) == pytest.approx(-1.5 * math.log(2))
    assert log_ratio(policy, policy, average=False) == 0.0
    assert log_ratio(policy, None, average=False) is log_ratio(None, policy, average=False) is None
    assert log_likelihood(None, average=True) is None
    with pytest.raises(StageError, match="2 tokens where its reference reads 3"):
        log_ratio(policy, Likelihood(-1.0, 3), average=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A policy and a reference of one tokenizer; a context of 256 tokens."""
    tokenizer = byte_tokenizer("tulu")
    architecture = {"hidden_size": 32, "layers": 2, "heads": 2, "ffn_size": 64, "max_positions": 256}
    folders = [tmp_path_factory.mktemp(name) for name in ("policy", "reference")]
    for seed, folder in enumerate(folders):
        model = new_policy(architecture, tokenizer, seed=seed)
        for parameter in model.parameters():
            parameter.data.mul_(4.0)
        save_model(model, tokenizer, folder)
    return folders


@pytest.fixture(scope="module")
def models(folders: list[Path]) -> list[LanguageModel]:
    return [LanguageModel(load_policy(folder), load_tokenizer(folder)) for folder in folders]


def slow(model: LanguageModel, prompt: str, completion: str) -> tuple[float, int]:
    """Sum of log-probabilities of the completion's tokens, one at a time, in float64, and how many they are."""
    before, after = (model.tokenizer.encode(text, add_special_tokens=False) for text in (prompt, completion))
    total, wide = 0.0, load_policy(Path(model.model.name_or_path)).double()  # type: ignore[arg-type]
    for place, token in enumerate(after):
        with torch.no_grad():
            logits = wide(input_ids=torch.tensor([[*before, *after[:place]]])).logits[0, -1]
        total += float(logits[token] - logits.logsumexp(-1))
    return total, len(after)


def test_scores_equal_a_loop_over_tokens_in_any_batch(
    models: list[LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [
        (f"<|user|>\n{prompt[0]['content'].strip()}\n<|assistant|>\n", f"{response.strip()}<|end|>")
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    own, others = ([slow(model, *text) for text in texts] for model in models)
    ratios = [one - other for (one, _), (other, _) in zip(own, others, strict=True)]
    assert min(map(abs, ratios)) > 0.1
    policy, reference = models
    assert ImplicitReward(policy, reference).score(PROMPTS, RESPONSES) == pytest.approx(ratios, abs=1e-3)
    alone = [total / tokens for total, tokens in own]
    assert ImplicitReward(policy).score(PROMPTS, RESPONSES) == pytest.approx(alone, abs=1e-4)
    summed = ImplicitReward(policy, average=False)
    assert summed.score(PROMPTS, RESPONSES) == pytest.approx([total for total, _ in own], abs=1e-3)
    whole = ImplicitReward(policy, reference).score(PROMPTS[::-1], RESPONSES[::-1])
    monkeypatch.setattr(logprobs, "PASS_TOKENS", 1)
    single = ImplicitReward(policy, reference).score(PROMPTS[::-1], RESPONSES[::-1])
    assert whole == pytest.approx(ratios[::-1], abs=1e-3) and single == pytest.approx(whole, abs=1e-4)


def test_what_does_not_fit_a_context_has_no_reward(models: list[LanguageModel], folders: list[Path]) -> None:
    policy, reference = models
    assert ImplicitReward(policy).score(PROMPTS[:1] * 2, ["fits", "x" * 300])[1] is None
    short = LanguageModel(load_policy(folders[1]), reference.tokenizer)
    short.model.config.max_position_embeddings = 40  # type: ignore[union-attr]
    scores = ImplicitReward(policy, short).score(PROMPTS[:1] * 2, ["fits", "x" * 60])
    assert scores[0] is not None and scores[1] is None


def test_rows_of_pairs_with_and_without_a_chat_template(models: list[LanguageModel]) -> None:
    policy = models[0]
    pair = Pair("p", "task", "subset", PROMPTS[0], "yes", "no , never", plain="question : a answer :")
    [chat], [plain] = (pair_rows(policy, [pair], chat=chat) for chat in (True, False))
    assert {name: chat[name] for name in ("id", "task", "subset", "chosen_length", "rejected_length")} == {
        "id": "p", "task": "task", "subset": "subset", "chosen_length": 3, "rejected_length": 10,
    }  # fmt: skip
    total, tokens = slow(policy, "<|user|>\na\n<|assistant|>\n", "no , never<|end|>")
    assert chat["rejected"] == {"logprob": pytest.approx(total, abs=1e-3), "tokens": tokens}
    total, tokens = slow(policy, "question : a answer :", " yes")
    assert plain["chosen"] == {"logprob": pytest.approx(total, abs=1e-3), "tokens": tokens}
