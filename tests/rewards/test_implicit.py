"""The implicit reward of a policy: by hand, against a loop over single tokens, in batches of any size."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from ablate.data.json_lines import write_json_lines
from ablate.errors import StageError
from ablate.evaluation.graders import pairs
from ablate.evaluation.grading import Evidence
from ablate.models.loading import load_policy, load_tokenizer, new_policy, save_model
from ablate.models.tokenizers import byte_tokenizer, word_tokenizer
from ablate.rewards.implicit import LanguageModel, pair_rows
from ablate.rewards.likelihood import PAIR_LIKELIHOODS, Likelihood, log_likelihood, log_ratio
from ablate.rewards.pairs import Pair
from ablate.training import logprobs

PROMPTS = [[{"role": "user", "content": text}] for text in ("a", "a much longer question " * 4, "mid", "mid")]
ARCHITECTURE = {"hidden_size": 32, "layers": 2, "heads": 2, "ffn_size": 64, "max_positions": 256}
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
    folders = [tmp_path_factory.mktemp(name) for name in ("policy", "reference")]
    for seed, folder in enumerate(folders):
        model = new_policy(ARCHITECTURE, tokenizer, seed=seed)
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


def slow_chat(model: LanguageModel, prompt: str, response: str) -> tuple[float, int]:
    return slow(model, f"<|user|>\n{prompt.strip()}\n<|assistant|>\n", f"{response.strip()}<|end|>")


def test_likelihoods_equal_a_loop_over_tokens_in_any_batch(
    models: list[LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in models:
        expected = [
            Likelihood(pytest.approx(total, abs=1e-3), tokens)  # type: ignore[arg-type]
            for total, tokens in (
                slow_chat(model, prompt[0]["content"], response)
                for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
            )
        ]
        tokens = model.chat_tokens(PROMPTS, RESPONSES)
        assert model.likelihoods(tokens) == expected
        with monkeypatch.context() as patch:
            patch.setattr(logprobs, "PASS_TOKENS", 1)
            assert model.likelihoods(tokens[::-1]) == expected[::-1]


@pytest.mark.parametrize(("reference", "average"), [(True, False), (True, True), (False, False), (False, True)])
def test_the_grader_of_pairs_takes_the_reward_of_both_sides(
    models: list[LanguageModel], tmp_path: Path, reference: bool, average: bool
) -> None:
    """From the rows that stages leave to the margins, against sums over single tokens."""
    sides = list(zip(RESPONSES, RESPONSES[1:] + RESPONSES[:1], strict=True))
    made = [Pair(f"p{row}", "task", "subset", PROMPTS[row], *own) for row, own in enumerate(sides)]
    for name, model in zip(("own", "reference"), models, strict=True):
        (tmp_path / name).mkdir()
        write_json_lines(tmp_path / name / PAIR_LIKELIHOODS, pair_rows(model, made, chat=True))
    found = Evidence(tmp_path / "own", tmp_path, reference=tmp_path / "reference")
    grades = pairs.implicit(found, {"seed": 0, "reference": reference, "average": average})

    def reward(prompt: str, response: str) -> float:
        (own, tokens), (other, _) = (slow_chat(model, prompt, response) for model in models)
        return (own - other * reference) / (tokens if average else 1)

    margins = [
        reward(prompt[0]["content"], chosen) - reward(prompt[0]["content"], rejected)
        for prompt, (chosen, rejected) in zip(PROMPTS, sides, strict=True)
    ]
    assert min(map(abs, margins)) > 1e-3
    assert grades.health["mean_margin"] == pytest.approx(sum(margins) / 4, abs=1e-3)
    won = [example.value for example in grades.examples if example.metric == "accuracy"]
    assert won == [float(margin > 0) for margin in margins]


def test_what_does_not_fit_a_context_has_no_reward(models: list[LanguageModel]) -> None:
    policy = models[0]
    found = policy.likelihoods(policy.chat_tokens(PROMPTS[:1] * 2, ["fits", "x" * 300]))
    assert found[0] is not None and found[1] is None


def test_a_response_without_tokens_has_no_reward(models: list[LanguageModel]) -> None:
    """Its log-probability is 0, the largest there is, and a mean over no tokens is none."""
    empty = Likelihood(0.0, 0)
    for average in (True, False):
        assert log_likelihood(empty, average=average) is log_ratio(empty, empty, average=average) is None
    tokenizer = word_tokenizer(["a", "b"], "tulu")  # splits at white space, so that a space is no token
    model = LanguageModel(new_policy(ARCHITECTURE, tokenizer, seed=0), tokenizer)
    [row] = pair_rows(model, [Pair("p", "task", "subset", PROMPTS[0], "b", "", plain="a")], chat=False)
    assert (row["chosen"]["tokens"], row["rejected"]["tokens"]) == (1, 0)


def test_a_prompt_whose_tokens_do_not_begin_the_whole_text_is_refused(models: list[LanguageModel]) -> None:
    """A tokenizer that ends every text with a mark: all but one of the response's tokens would be counted."""

    class Ending:
        def encode(self, text: str) -> list[int]:
            return [*models[0].tokenizer.encode(text), 1]

    model = LanguageModel(models[0].model, Ending())
    with pytest.raises(StageError, match=r"the tokens of the prompt 'question : a' are not those"):
        model.plain_tokens(["question : a"], ["yes"])
    assert models[0].plain_tokens(["question : a"], ["yes"])[0][1] == models[0].tokenizer.encode(" yes")


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
