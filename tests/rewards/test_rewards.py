"""Rewards: the reward model against a slow reference, closed forms, and pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ablate.data.sources import DataFile
from ablate.data.suite_files import Source
from ablate.errors import DataError, StageError, UnknownNameError
from ablate.models.loading import load_reward_model, load_tokenizer, new_policy, save_model
from ablate.models.tokenizers import byte_tokenizer
from ablate.rewards import reward_model
from ablate.rewards.closed_form import closed_form
from ablate.rewards.pairs import Pair, llmbar, pair_subset
from ablate.rewards.reward_model import RewardModel
from ablate.training.experience import PassLimits, reward_model_score
from ablate.training.rollouts import Episode

PROMPTS = [[{"role": "user", "content": text}] for text in ("a", "a much longer question " * 4, "mid", "mid")]
RESPONSES = ["short", "yes", "a long answer " * 6, ""]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    folder = tmp_path_factory.mktemp("reward")
    tokenizer = byte_tokenizer("tulu")
    architecture = {"hidden_size": 32, "layers": 2, "heads": 2, "ffn_size": 64, "max_positions": 256}
    save_model(new_policy(architecture, tokenizer, seed=1), tokenizer, folder / "policy")
    save_model(load_reward_model(folder / "policy", head_seed=2), tokenizer, folder / "reward")
    return RewardModel(load_reward_model(folder / "reward"), load_tokenizer(folder / "reward"))


def slow_score(model: RewardModel, prompt: list[dict[str, str]], response: str) -> float:
    """One conversation without padding: the head applied to the hidden state of the end-of-turn token."""
    text = f"<|user|>\n{prompt[0]['content'].strip()}\n<|assistant|>\n{response.strip()}<|end|>"
    ids = torch.tensor([model.tokenizer.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        hidden = model.model.model(input_ids=ids).last_hidden_state[0, -1]  # type: ignore[union-attr, operator]
        return float(model.model.score(hidden))  # type: ignore[operator]


def test_scores_equal_the_unpadded_reference_in_any_batch(model: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [slow_score(model, p, r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert len(set(expected)) == 4
    assert model.score(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)
    assert model.score(PROMPTS[::-1], RESPONSES[::-1]) == pytest.approx(expected[::-1], abs=1e-5)
    monkeypatch.setattr(reward_model, "BATCH_TOKENS", 1)
    assert model.score(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_ppo_is_rewarded_with_the_scores_of_the_score_stage(model: RewardModel, dtype: str, tolerance: float) -> None:
    """Up to what the trunk rounds: the head itself works in float32 in both."""
    ids = [model.tokens(p, r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    sampled = [Episode(str(row), tokens[:5], tokens[5:], True) for row, tokens in enumerate(ids)]
    limits = PassLimits(torch.device("cpu"), 4096, 2**20)
    score = reward_model_score(model.model, pad_id=0, limits=limits, dtype=dtype)
    found = score(sampled)
    assert found.tolist() == pytest.approx(model.score(PROMPTS, RESPONSES), abs=tolerance)
    assert (found != found.bfloat16().float()).any()


def test_the_template_is_applied_once_and_ends_with_the_end_of_turn(model: RewardModel) -> None:
    ids = model.tokens(PROMPTS[0], "yes")
    marks = model.tokenizer.convert_ids_to_tokens(ids)
    assert [marks.count(name) for name in ("<|user|>", "<|assistant|>", "<|end|>")] == [1, 1, 1]
    assert ids[-1] == model.tokenizer.eos_token_id


def test_a_template_that_does_not_end_the_turn_is_refused(model: RewardModel) -> None:
    tokenizer = byte_tokenizer("tulu")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    with pytest.raises(StageError, match="chat template does not end turns with its EOS token"):
        RewardModel(model.model, tokenizer).score(PROMPTS[:1], RESPONSES[:1])


def test_a_conversation_that_does_not_fit_has_no_score(model: RewardModel) -> None:
    scores = model.score([PROMPTS[0], PROMPTS[0]], ["fits", "x" * 400])
    assert scores[0] is not None
    assert scores[1] is None


def test_closed_form_counts_nouns_and_names_the_nearest() -> None:
    nouns = closed_form("nouns")
    assert [nouns(text) for text in ("", "zzz", "the dog", "the dog , a dog")] == [0.0, 0.0, 1.0, 2.0]
    with pytest.raises(UnknownNameError, match="did you mean 'nouns'"):
        closed_form("noun")


def test_llmbar_takes_the_labelled_output_as_chosen(tmp_path: Path) -> None:
    rows = [{"input": "q", "output_1": "one", "output_2": "two", "label": label} for label in (1, 2)]
    path = tmp_path / "natural.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    pairs = llmbar(Source((DataFile("llmbar/natural.json", path),)), {})
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("one", "two"), ("two", "one")]
    assert {pair.subset for pair in pairs} == {"llmbar-natural"}
    path.write_text(json.dumps([{**rows[0], "label": 3}]), encoding="utf-8")
    with pytest.raises(DataError, match="label 3"):
        llmbar(Source((DataFile("llmbar/natural.json", path),)), {})
    with pytest.raises(DataError, match="no subset of LLMBar"):
        llmbar(Source((DataFile("other.json", path),)), {})


def test_a_limit_draws_from_each_subset_apart() -> None:
    pairs = [Pair(f"{name}{n}", "t", name, (), "c", "r") for name in ("a", "b") for n in range(9)]
    kept = pair_subset(pairs, 4, 1)
    assert [sum(pair.subset == name for pair in kept) for name in ("a", "b")] == [4, 4]
    assert [pair for pair in kept if pair.subset == "b"] == pair_subset(pairs[9:], 4, 1)
    assert pair_subset(pairs, None, 1) == pairs


@pytest.mark.data
def test_llmbar_counts_are_those_of_reward_bench(data_root: Path) -> None:
    names = [
        "natural.json",
        "adver_neighbor.json.gz",
        "adver_gptinst.json.gz",
        "adver_gptout.json",
        "adver_manual.json",
    ]
    files = tuple(DataFile(f"preference/llmbar/{name}", data_root / "preference/llmbar" / name) for name in names)
    pairs = llmbar(Source(files), {})
    counts = {subset: sum(pair.subset == subset for pair in pairs) for subset in {pair.subset for pair in pairs}}
    assert counts == {
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    }
    assert len({pair.id for pair in pairs}) == 419


def test_scoring_and_training_see_the_same_tokens(model: RewardModel) -> None:
    from ablate.data.tokenise import Limits, Tally, encode_pairs

    rows = [
        {
            "id": str(number),
            "prompt": prompt,
            "chosen": [{"role": "assistant", "content": response}],
            "rejected": [{"role": "assistant", "content": "other"}],
        }
        for number, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True))
    ]
    encoded = encode_pairs(rows, model.tokenizer, Limits(), Tally())
    assert len(encoded) == 4
    for prompt, response, row in zip(PROMPTS, RESPONSES, encoded, strict=True):
        assert model.tokens(prompt, response) == row["prompt_ids"] + row["chosen_ids"]
        assert model.tokens(prompt, "other") == row["prompt_ids"] + row["rejected_ids"]
