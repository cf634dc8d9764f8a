import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ablate.context import EventLog, StageContext
from ablate.errors import DataError, UsageError
from ablate.models.templates import ASSISTANT, END, PAD, SYSTEM, USER, find_template
from ablate.models.tokenizers import bpe_tokenizer, byte_tokenizer, run, word_tokenizer
from ablate.pocket.vocabulary import vocabulary

TEXTS = ["the quick brown fox jumps over the lazy dog", "the dog sleeps ; the fox does not", "naïve 😀 café"] * 20
CHAT = [
    {"role": "system", "content": "the dog"},
    {"role": "user", "content": "the fox"},
    {"role": "assistant", "content": "dog ; the"},
    {"role": "user", "content": "not the dog"},
    {"role": "assistant", "content": "fox"},
]


def context(folder: Path, config: dict, **inputs: Path) -> StageContext:
    (folder / "output").mkdir(parents=True)
    return StageContext("tokenizer", config, inputs, folder / "output", folder, EventLog(folder / "events.jsonl"))


def tokenizers() -> dict[str, PreTrainedTokenizerBase]:
    return {
        "words": word_tokenizer(sorted(set(" ".join(TEXTS).split())), "pocket"),
        "bytes": byte_tokenizer("tulu"),
        "bpe": bpe_tokenizer(iter(TEXTS), 300, "tulu"),
    }


def slow_mask(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Mark assistant tokens turn by turn: what each assistant turn adds after the generation prompt, up to its eos."""
    mask: list[int] = []
    for index, message in enumerate(messages):
        upto = tokenizer.apply_chat_template(messages[: index + 1], return_dict=True)["input_ids"]
        if message["role"] != "assistant":
            mask += [0] * (len(upto) - len(mask))
            continue
        start = tokenizer.apply_chat_template(messages[:index], add_generation_prompt=True, return_dict=True)
        mask += [0] * (len(start["input_ids"]) - len(mask))
        end = len(upto) - upto[::-1].index(tokenizer.eos_token_id)
        mask += [1] * (end - len(mask)) + [0] * (len(upto) - end)
    return mask


@pytest.mark.parametrize("kind", ["words", "bytes", "bpe"])
def test_specials_and_templates(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizers()[kind]
    tokenizer.save_pretrained(tmp_path)
    for either in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert (either.pad_token, either.eos_token, either.bos_token) == (PAD, END, None)
        assert either.pad_token_id != either.eos_token_id
        plain = either("the fox")["input_ids"]
        assert not set(plain) & set(either.all_special_ids)
        encoded = either.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
        assert encoded["assistant_masks"] == slow_mask(CHAT, either)
        prompt = either.apply_chat_template(CHAT[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert encoded["input_ids"][: len(prompt)] == prompt
        marks = [either.convert_tokens_to_ids(mark) for mark in (USER, ASSISTANT, SYSTEM)]
        assert [sum(i == mark for i in encoded["input_ids"]) for mark in marks] == [2, 2, 1]


def test_tulu_rendering_by_hand() -> None:
    rendered = byte_tokenizer("tulu").apply_chat_template(CHAT[1:3], tokenize=False)
    assert rendered == "<|user|>\nthe fox\n<|assistant|>\ndog ; the<|end|>\n"
    prompt = byte_tokenizer("tulu").apply_chat_template(CHAT[1:2], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>\nthe fox\n<|assistant|>\n"


def test_pocket_rendering_by_hand() -> None:
    tokenizer = word_tokenizer(["fox", "dog"], "pocket")
    chat = [{"role": "user", "content": "fox"}, {"role": "assistant", "content": "dog"}]
    encoded = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == [USER, "fox", ASSISTANT, "dog", END]
    assert encoded["assistant_masks"] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("template", ["tulu", "pocket"])
def test_empty_answer_is_its_end_token(template: str) -> None:
    tokenizer = word_tokenizer(["fox"], template)
    chat = [{"role": "user", "content": "fox"}, {"role": "assistant", "content": ""}]
    encoded = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    assert encoded["input_ids"][-1] == tokenizer.eos_token_id
    assert encoded["assistant_masks"] == [0, 0, 0, 1]


def test_unknown_role_is_refused() -> None:
    with pytest.raises(Exception, match="unknown role tool"):
        byte_tokenizer("tulu").apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)
    with pytest.raises(UsageError, match="tulu"):
        find_template("tulo")


def test_words_round_trip() -> None:
    words = list(vocabulary())
    tokenizer = word_tokenizer(words, "pocket")
    text = " ".join(words)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(text)["input_ids"]) == len(words)
    assert (
        tokenizer.decode([*tokenizer("fox .")["input_ids"], tokenizer.eos_token_id], skip_special_tokens=True)
        == "fox ."
    )
    assert tokenizer("fox zzz")["input_ids"][1] == tokenizer.unk_token_id


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_any_text_round_trips(kind: str) -> None:
    tokenizer = tokenizers()[kind]
    for text in ("", " a  b\n\n\tc ", "naïve 😀 café", "x" * 500, "\x00\x7f"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizers()["bytes"]("é😀")["input_ids"]) == 6


def test_bpe_is_deterministic_and_of_the_asked_size() -> None:
    first, second = (bpe_tokenizer(iter(TEXTS), 290, "tulu") for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert len(first) == 290
    assert len(first("the fox")["input_ids"]) < 7
    with pytest.raises(UsageError, match="below 261"):
        bpe_tokenizer(iter(TEXTS), 260, "tulu")


def test_stage_reads_corpora(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "b.jsonl").write_text(json.dumps({"text": "beta alpha"}) + "\n")
    (data / "a.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "gamma beta"}]}) + "\n")
    made = context(tmp_path / "stage", {"type": "words", "template": "pocket", "vocabulary": "corpus"}, corpus=data)
    assert run(made) == {"type": "words", "vocab_size": 6 + 3}
    tokenizer = AutoTokenizer.from_pretrained(made.output / "tokenizer")
    assert tokenizer.convert_ids_to_tokens([6, 7, 8]) == ["alpha", "beta", "gamma"]


def test_pocket_vocabulary_is_closed(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(json.dumps({"text": " ".join(vocabulary()[:5])}) + "\n")
    bad.write_text(json.dumps({"text": "fox quokka"}) + "\n")
    config = {"type": "words", "template": "pocket", "vocab_size": None}
    assert run(context(tmp_path / "one", config, corpus=good))["vocab_size"] == len(vocabulary()) + 6
    with pytest.raises(DataError, match="'quokka'"):
        run(context(tmp_path / "two", config, corpus=bad))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "x.jsonl:1: not a JSON object"), ("[]", "a list"), ('{"txt": 1}', 'neither "text" nor "messages"')],
)
def test_bad_corpus_names_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(content + "\n")
    with pytest.raises(DataError, match=message):
        run(context(tmp_path / "s", {"type": "bpe", "vocab_size": 300}, corpus=tmp_path / "x.jsonl"))
