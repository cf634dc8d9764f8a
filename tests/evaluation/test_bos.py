"""Training, evaluation and reward models begin a conversation as the tokenizer begins every text: with one BOS."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from ablate.data.tokenise import Limits, Tally, encode_conversations, encode_pairs, encode_prompts
from ablate.evaluation.policy import Policy
from ablate.models.tokenizers import word_tokenizer
from ablate.rewards.reward_model import RewardModel
from ablate.training.pretrain import encode_corpus

QUESTION = [{"role": "user", "content": "a b"}]
ANSWER = {"role": "assistant", "content": "b"}
ROW: dict[str, Any] = {
    "id": "r",
    "prompt": QUESTION,
    "chosen": [ANSWER],
    "rejected": [{"role": "assistant", "content": "a"}],
    "messages": [*QUESTION, ANSWER],
}
# ids of the word tokenizer: 1 end, 2 user, 3 assistant, 6 a, 7 b, and the BOS that is added here, 8
PROMPT, CHOSEN, BOS = [2, 6, 7, 3], [7, 1], 8


def make_tokenizer(adds: bool, renders: bool) -> PreTrainedTokenizerBase:
    """A tokenizer that ``adds`` a BOS to every text as Llama's does, and whose template ``renders`` one, or not."""
    tokenizer = word_tokenizer(["a", "b"], "pocket")
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    if adds:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", BOS)]
        )
    if renders:
        tokenizer.chat_template = "{{ bos_token + ' ' }}" + str(tokenizer.chat_template)
    assert tokenizer("a")["input_ids"] == ([BOS] if adds else []) + [6]
    return tokenizer


def model() -> Any:
    """What an engine asks of a model that is never run."""
    return SimpleNamespace(eval=lambda: model(), config=SimpleNamespace(max_position_embeddings=64))


@pytest.mark.parametrize(
    ("adds", "renders", "begins"),
    [(False, False, []), (True, False, [BOS]), (False, True, [BOS]), (True, True, [BOS])],
)
def test_every_rendering_begins_with_one_bos_where_there_is_one(
    adds: bool, renders: bool, begins: list[int], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(adds, renders)
    (pair,) = encode_pairs([ROW], tokenizer, Limits(), Tally())
    assert (pair["prompt_ids"], pair["chosen_ids"], pair["rejected_ids"]) == (begins + PROMPT, CHOSEN, [6, 1])
    (prompt,) = encode_prompts([ROW], tokenizer, Limits(), Tally())
    assert prompt["prompt_ids"] == begins + PROMPT
    (conversation,) = encode_conversations([ROW], tokenizer, Limits(), Tally())
    assert conversation["input_ids"] == begins + PROMPT + CHOSEN
    assert conversation["loss_mask"] == [0] * len(begins + PROMPT) + [1, 1]
    policy = Policy(model(), tokenizer, chat=True)
    assert policy.encode(policy.render(QUESTION)) == begins + PROMPT
    assert policy.split_tokens(policy.render(QUESTION), "b") == (begins + PROMPT, [7])
    assert RewardModel(model(), tokenizer).tokens(QUESTION, "b") == begins + PROMPT + CHOSEN
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    documents, _ = encode_corpus(tmp_path / "rows.jsonl", tokenizer, "conversations", 64)
    assert documents[0].tolist() == begins + PROMPT + CHOSEN


def test_a_limit_counts_the_bos() -> None:
    tokenizer = make_tokenizer(True, False)
    assert encode_prompts([ROW], tokenizer, Limits(max_prompt_length=5), Tally())
    assert not encode_prompts([ROW], tokenizer, Limits(max_prompt_length=4), Tally())
    (cut,) = encode_conversations([ROW], tokenizer, Limits(max_length=6, truncation="keep-start"), Tally())
    assert cut["input_ids"] == [BOS, *PROMPT, 7]


def test_without_a_chat_template_the_tokenizer_begins_the_text() -> None:
    plain = Policy(model(), make_tokenizer(True, False), chat=False)
    assert plain.encode("a b") == [BOS, 6, 7]
    assert Policy(model(), make_tokenizer(False, False), chat=False).encode("a b") == [6, 7]
