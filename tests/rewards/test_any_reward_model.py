"""Any sequence classifier with one output, scored without an experiment: against transformers' own forward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from ablate.catalogs.suite_parts import Reading
from ablate.errors import DataError, StageError
from ablate.models.loading import load_reward_model, load_tokenizer, new_policy, save_model
from ablate.models.reward_heads import mark_end_of_turn
from ablate.models.tokenizers import byte_tokenizer
from ablate.rewards import reward_model
from ablate.rewards.pairs import Candidates, Pair
from ablate.rewards.reward_model import RewardModel
from ablate.rewards.stage import open_reward_model, score_pairs

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PROMPTS = ["a", "a longer question " * 5, "mid", "mid", "z"]
RESPONSES = ["short", "yes", "a long answer " * 8, "", "not so long"]


def chatml(side: str, *, bos: bool = False, pad: str | None = "<|pad|>") -> PreTrainedTokenizerFast:
    """A byte-level tokenizer as others publish theirs: ChatML, a line break after the end of a turn, padding on a side.

    With ``bos`` both the template and the tokenizer put a beginning-of-sequence token first, as Llama 3's do.
    """
    special = ["<s>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate([*special, *alphabet])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token=pad,
        additional_special_tokens=["<|im_start|>"],
        padding_side=side,
        truncation_side=side,
    )
    tokenizer.chat_template = ("{{ bos_token }}" if bos else "") + CHATML
    return tokenizer


def llama(tokenizer: Any, positions: int = 512) -> Any:
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=positions, num_labels=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForSequenceClassification(config)


def gpt2(tokenizer: Any, positions: int = 512) -> Any:
    config = GPT2Config(
        vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=positions, num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return GPT2ForSequenceClassification(config)


def bert(tokenizer: Any, positions: int = 512) -> Any:
    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=positions, num_labels=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def published(folder: Path, build: Any, tokenizer: Any, **options: Any) -> Path:
    torch.manual_seed(0)
    model = build(tokenizer, **options)
    for parameter in model.parameters():
        parameter.data.mul_(3.0)
    save_model(model, tokenizer, folder)
    return folder


def rendered(prompt: str, response: str) -> str:
    """What ChatML makes of the two."""
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{response}<|im_end|>\n"


def alone(folder: Path, text: str, *, bos: bool = False, limit: int = 512) -> float:
    """The logit of transformers' own forward for one conversation, without padding: the reference."""
    tokenizer = load_tokenizer(folder, doubled_bos=True)
    ids = tokenizer.encode(text, add_special_tokens=False)
    ids = [tokenizer.bos_token_id, *ids] if bos else ids
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    if not isinstance(model, BertForSequenceClassification):
        model.config.pad_token_id = None  # one row, no padding: its last token is the last one
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids[-limit:]])).logits[0, 0])


def asked() -> list[Pair]:
    return [
        Pair(str(n), "t", "s", ({"role": "user", "content": prompt},), response, "other")
        for n, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True))
    ]


def scored(folder: Path, pairs: Sequence[Pair | Candidates], **options: Any) -> list[dict[str, Any]]:
    """Rows of a released reward model."""
    return score_pairs(open_reward_model(folder, **{"released": True, **options}), pairs)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("build", [llama, gpt2, bert])
def test_the_same_score_alone_and_in_any_batch(
    side: str, build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = published(tmp_path / "rm", build, chatml(side))
    expected = [alone(folder, rendered(p, r)) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert len({round(value, 3) for value in expected}) > 3
    for tokens in (1, 1 << 14):
        monkeypatch.setattr(reward_model, "BATCH_TOKENS", tokens)
        rows = scored(folder, asked())
        assert [row["chosen"] for row in rows] == pytest.approx(expected, abs=1e-5)
        backwards = scored(folder, asked()[::-1])
        assert [row["chosen"] for row in backwards] == pytest.approx(expected[::-1], abs=1e-5)
    assert [row["rejected"] for row in rows] == pytest.approx(
        [alone(folder, rendered(p, "other")) for p in PROMPTS], abs=1e-5
    )


@pytest.mark.parametrize("pad", [None, "<|im_end|>"])
def test_a_pad_token_that_ends_texts_changes_nothing(pad: str | None, tmp_path: Path) -> None:
    """transformers' own batches read one token early there."""
    folder = published(tmp_path / "rm", llama, chatml("right", pad=pad))
    expected = [alone(folder, rendered(p, r)) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert [row["chosen"] for row in scored(folder, asked())] == pytest.approx(expected, abs=1e-5)


def test_a_text_begins_with_one_bos(tmp_path: Path) -> None:
    folder = published(tmp_path / "rm", llama, chatml("right", bos=True))
    tokenizer = load_tokenizer(folder, doubled_bos=True)
    assert tokenizer(tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False))["input_ids"][
        :2
    ] == [0, 0]
    ids = RewardModel(load_reward_model(folder), tokenizer, at="last").tokens(asked()[0].prompt, "short")
    assert ids.count(0) == 1 and ids[0] == 0
    expected = [alone(folder, rendered(p, r), bos=True) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert [row["chosen"] for row in scored(folder, asked())] == pytest.approx(expected, abs=1e-5)


def test_what_is_too_long_loses_its_start_and_is_counted(tmp_path: Path) -> None:
    folder = published(tmp_path / "rm", llama, chatml("right"), positions=96)
    loaded, tokenizer = load_reward_model(folder), load_tokenizer(folder)
    reading = Reading(max_length=2048, too_long="cut-start")
    rows = score_pairs(RewardModel(loaded, tokenizer, at="last", reading=reading), asked())
    expected = [alone(folder, rendered(p, r), limit=96) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert [row["chosen"] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert [row.get("truncated", 0) for row in rows] == [0, 2, 1, 0, 0]
    unread = score_pairs(RewardModel(loaded, tokenizer, at="last"), asked())
    assert [row["chosen"] is None for row in unread] == [False, True, True, False, False]
    ends = RewardModel(loaded, tokenizer, at="last", reading=Reading(max_length=10, too_long="cut-end"))
    assert ends.fitted(list(range(20))) == list(range(10))
    begun = published(tmp_path / "bos", llama, chatml("right", bos=True), positions=96)
    starts = RewardModel(load_reward_model(begun), load_tokenizer(begun, doubled_bos=True), reading=reading)
    assert starts.fitted([0, *range(1, 200)]) == [0, *range(105, 200)], "the first token stays"


def test_models_of_ours_are_read_where_they_were_trained(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer("tulu")
    architecture = {"hidden_size": 32, "layers": 2, "heads": 2, "ffn_size": 64, "max_positions": 256}
    save_model(new_policy(architecture, tokenizer, seed=1), tokenizer, tmp_path / "policy")
    model = load_reward_model(tmp_path / "policy", head_seed=2)
    mark_end_of_turn(model.config)
    save_model(model, tokenizer, tmp_path / "own")
    expected = RewardModel(model, tokenizer).score([pair.prompt for pair in asked()], RESPONSES)
    found = [row["chosen"] for row in scored(tmp_path / "own", asked())]
    assert found == pytest.approx(expected, abs=1e-5)
    last = [row["chosen"] for row in score_pairs(RewardModel(model, tokenizer, at="last"), asked())]
    assert last != pytest.approx(expected, abs=1e-3), "the template's line break would be scored"


def test_candidates_have_a_score_each(tmp_path: Path) -> None:
    folder = published(tmp_path / "rm", llama, chatml("right"))
    prompt = ({"role": "user", "content": "a"},)
    one = Candidates("Ties/tied:1", "t", "Ties", prompt, ("x", "yy"), ("z",), source="tied:1")
    (row,) = scored(folder, [one])
    expected = [alone(folder, rendered("a", text)) for text in ("x", "yy", "z")]
    assert [*row["chosen"], *row["rejected"]] == pytest.approx(expected, abs=1e-5)
    assert (row["chosen_length"], row["rejected_length"], row["source"]) == ([1, 2], [1], "tied:1")


def test_models_that_can_not_be_scored_say_why(tmp_path: Path) -> None:
    tokenizer = chatml("right")
    model = llama(tokenizer)
    model.score.weight.data.fill_(float("nan"))
    save_model(model, tokenizer, tmp_path / "nan")
    with pytest.raises(StageError, match="a score that is no finite number"):
        scored(tmp_path / "nan", asked())
    two = LlamaForSequenceClassification(LlamaConfig(**{**model.config.to_dict(), "num_labels": 2}))
    save_model(two, tokenizer, tmp_path / "two")
    with pytest.raises(DataError, match="num_labels 2"):
        scored(tmp_path / "two", asked())
    tokenizer.chat_template = None
    save_model(model, tokenizer, tmp_path / "bare")
    with pytest.raises(DataError, match="has no chat template"):
        scored(tmp_path / "bare", asked())
