import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerBase

from ablate.context import EventLog, StageContext, read_json
from ablate.data.tokenise import CHUNK, run
from ablate.errors import DataError, UsageError
from ablate.models.tokenizers import byte_tokenizer, word_tokenizer

WORDS = [f"w{index}" for index in range(10)]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def pair(name: str, prompt: str, chosen: str, rejected: str, margin: float | None = None) -> dict[str, Any]:
    return {
        "id": name,
        "prompt": [message("user", prompt)],
        "chosen": [message("assistant", chosen)],
        "rejected": [message("assistant", rejected)],
        "margin": margin,
        "source": "s",
    }


def tokenise(
    folder: Path, rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase | None = None, **config: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    tokenizer = tokenizer or word_tokenizer(WORDS, "pocket")
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "output").mkdir()
    inputs = {"data": folder / "rows.jsonl", "tokenizer": folder / "tokenizer"}
    events = EventLog(folder / "events.jsonl")
    run(StageContext("tokenise", config, inputs, folder / "output", folder, events))
    report = read_json(folder / "output" / "report.json")
    kept = pq.read_table(folder / "output" / "tokens.parquet").to_pylist()
    assert report["in"] == len(rows) == report["kept"] + sum(report["dropped"].values())
    assert report["kept"] == len(kept)
    return kept, report


# ids of the word tokenizer: 0 pad, 1 end, 2 user, 3 assistant, 4 system, 5 unknown, 6 … the words w0 …


def test_pair_by_hand(tmp_path: Path) -> None:
    row = {**pair("p", "w0 w1", "w2", "w3 w4", margin=0.5)}
    row["prompt"] = [message("user", "w9"), message("assistant", "w8"), message("user", "w0 w1")]
    kept, report = tokenise(tmp_path, [row], format="pairs", max_length=20)
    assert kept == [
        {
            "id": "p",
            "prompt_ids": [2, 15, 3, 14, 1, 2, 6, 7, 3],
            "chosen_ids": [8, 1],
            "rejected_ids": [9, 10, 1],
            "margin": 0.5,
        }
    ]
    assert (report["truncated"], report["longest"]) == (0, 12)


def test_two_turn_conversation_mask_by_hand(tmp_path: Path) -> None:
    turns = [("system", "w5"), ("user", "w0"), ("assistant", "w1 w2"), ("user", "w3"), ("assistant", "w4")]
    row = {"id": "c", "messages": [message(*turn) for turn in turns], "source": "s"}
    kept, _ = tokenise(tmp_path, [row], format="conversations", max_length=None)
    assert kept == [
        {
            "id": "c",
            "input_ids": [4, 11, 2, 6, 3, 7, 8, 1, 2, 9, 3, 10, 1],
            "loss_mask": [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1],
        }
    ]


def test_prompts_by_hand_and_dropped_when_long(tmp_path: Path) -> None:
    rows = [{"id": str(n), "prompt": [message("user", " ".join(WORDS[:n]))], "source": "s"} for n in (1, 2, 3)]
    kept, report = tokenise(tmp_path, rows, format="prompts", max_prompt_length=4)
    assert kept == [{"id": "1", "prompt_ids": [2, 6, 3]}, {"id": "2", "prompt_ids": [2, 6, 7, 3]}]
    assert report["dropped"] == {"prompt-too-long": 1}


def test_policies_for_long_pairs(tmp_path: Path) -> None:
    long_answer = " ".join(WORDS)
    rows = [
        pair("fits", "w0", "w1", "w2"),  # 3 + 2
        pair("long-answer", "w0", long_answer, "w2"),  # 3 + 11
        pair("long-prompt", " ".join(WORDS[:7]), "w1", "w2"),  # 9 + 2
        pair("same-start", "w0", long_answer, long_answer + " w1"),  # equal once cut
        pair("equal", "w0", "w1", "w1"),
    ]
    (tmp_path / "drop").mkdir()
    kept, report = tokenise(tmp_path / "drop", rows, format="pairs", max_length=8, truncation="drop")
    assert [row["id"] for row in kept] == ["fits"]
    assert report["dropped"] == {"too-long": 3, "equal-completions": 1} and report["truncated"] == 0
    (tmp_path / "keep").mkdir()
    kept, report = tokenise(tmp_path / "keep", rows, format="pairs", max_length=8, truncation="keep-start")
    assert [row["id"] for row in kept] == ["fits", "long-answer"]
    assert kept[1]["chosen_ids"] == [6, 7, 8, 9, 10] and kept[1]["rejected_ids"] == [8, 1]
    assert report["dropped"] == {"prompt-too-long": 1, "equal-when-truncated": 1, "equal-completions": 1}
    assert (report["truncated"], report["longest"]) == (1, 8)
    (tmp_path / "prompt").mkdir()
    kept, report = tokenise(tmp_path / "prompt", rows, format="pairs", max_length=None, max_prompt_length=5)
    assert report["dropped"] == {"prompt-too-long": 1, "equal-completions": 1}


def test_policies_for_long_conversations(tmp_path: Path) -> None:
    def row(name: str, question: str, answer: str) -> dict[str, Any]:
        return {"id": name, "messages": [message("user", question), message("assistant", answer)], "source": "s"}

    rows = [row("fits", "w0", "w1"), row("cut", "w0", "w1 w2 w3"), row("gone", "w0 w1 w2 w3", "w4")]
    (tmp_path / "keep").mkdir()
    kept, report = tokenise(tmp_path / "keep", rows, format="conversations", max_length=5)
    assert [(r["id"], r["loss_mask"]) for r in kept] == [("fits", [0, 0, 0, 1, 1]), ("cut", [0, 0, 0, 1, 1])]
    assert report["dropped"] == {"no-assistant-tokens": 1} and report["truncated"] == 1
    (tmp_path / "drop").mkdir()
    kept, report = tokenise(tmp_path / "drop", rows, format="conversations", max_length=5, truncation="drop")
    assert [r["id"] for r in kept] == ["fits"] and report["dropped"] == {"too-long": 2}


def test_an_answer_counts_alone_and_not_the_turns_of_its_prompt(tmp_path: Path) -> None:
    row = pair("p", "w0", "w2", "w3")
    row["prompt"] = [message("user", "w9"), message("assistant", "w8"), message("user", "w0")]
    rows = [row, pair("cut", "w0", "w1 " * 9, "w2"), pair("gone", "w0 " * 9, "w1", "w2")]
    kept, report = tokenise(tmp_path, rows, format="answers", max_length=10, truncation="keep-start")
    assert kept == [
        {"id": "p", "input_ids": [2, 15, 3, 14, 1, 2, 6, 3, 8, 1], "loss_mask": [0] * 8 + [1, 1]},
        {"id": "cut", "input_ids": [2, 6, 3, *[7] * 7], "loss_mask": [0] * 3 + [1] * 7},
    ]
    assert report["dropped"] == {"no-assistant-tokens": 1} and report["truncated"] == 1


def test_text_that_spells_special_tokens_is_dropped(tmp_path: Path) -> None:
    rows = [pair("a", "hello", "one", "two"), pair("b", "hello", "one<|end|>\n<|user|>\nmore", "two")]
    kept, report = tokenise(tmp_path, rows, byte_tokenizer("tulu"), format="pairs", max_length=100)
    assert [row["id"] for row in kept] == ["a"] and report["dropped"] == {"control-token-in-text": 1}


def test_completions_end_with_the_end_token_and_decode_to_the_text(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer("tulu")
    answers = ["plain", "\n starts with a break", "ends with one \n", "naïve 😀", "😀", "two\n\nparts"]
    rows = [pair(str(index), f"q{index} \n", answer, "other") for index, answer in enumerate(answers)]
    kept, _ = tokenise(tmp_path, rows, tokenizer, format="pairs", max_length=None)
    for row, answer in zip(kept, answers, strict=True):
        assert row["chosen_ids"].count(tokenizer.eos_token_id) == 1
        assert row["chosen_ids"][-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row["chosen_ids"][:-1]) == answer.strip()
        assert tokenizer.decode(row["prompt_ids"]).endswith("<|assistant|>\n")


def test_order_and_rows_survive_chunks(tmp_path: Path) -> None:
    rows = [pair(str(index), f"w{index % 10}", "w1", "w2") for index in range(2 * CHUNK + 7)]
    kept, _ = tokenise(tmp_path, rows, format="pairs", max_length=8)
    assert [row["id"] for row in kept] == [row["id"] for row in rows]
    assert all(row["prompt_ids"] == [2, 6 + index % 10, 3] for index, row in enumerate(kept))


def test_unknown_words_are_counted(tmp_path: Path) -> None:
    _, report = tokenise(tmp_path, [pair("p", "w0 zzz", "w1", "yyy")], format="pairs", max_length=9)
    assert report["unknown_tokens"] == 3  # the prompt's counts in both sequences


def with_template(template: str) -> PreTrainedTokenizerBase:
    tokenizer = word_tokenizer([*WORDS, "think"], "pocket")
    tokenizer.chat_template = template
    return tokenizer


def test_template_whose_prompt_is_no_prefix_names_the_row(tmp_path: Path) -> None:
    thinks = with_template(
        "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} "
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|> think {% endif %}"
    )
    with pytest.raises(DataError, match=r"row p7: the generation prompt is no prefix.*token 3"):
        tokenise(tmp_path, [pair("p7", "w0", "w1", "w2")], thinks, format="pairs", max_length=9)


def test_template_without_an_end_of_turn_is_refused(tmp_path: Path) -> None:
    endless = with_template(
        "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}<|assistant|> {% endif %}"
    )
    with pytest.raises(DataError, match="does not end with '<|end|>'".replace("|", r"\|")):
        tokenise(tmp_path, [pair("p", "w0", "w1", "w2")], endless, format="pairs", max_length=9)


@pytest.mark.filterwarnings("ignore:.*generation.*")
def test_template_without_marks_is_refused(tmp_path: Path) -> None:
    unmarked = with_template("{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {{ eos_token }} {% endfor %}")
    row = {"id": "c", "messages": [message("user", "w0"), message("assistant", "w1")], "source": "s"}
    with pytest.raises(DataError, match="marks"):
        tokenise(tmp_path, [row], unmarked, format="conversations", max_length=9)


@pytest.mark.parametrize(
    ("line", "message"), [("{", "rows.jsonl:1: not a JSON object"), ('{"id": "a"}', "a row of prompts has id, prompt")]
)
def test_bad_rows_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    byte_tokenizer("tulu").save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    inputs = {"data": tmp_path / "rows.jsonl", "tokenizer": tmp_path / "tokenizer"}
    (tmp_path / "output").mkdir()
    config = {"format": "prompts"}
    with pytest.raises(DataError, match=message):
        run(StageContext("tokenise", config, inputs, tmp_path / "output", tmp_path, EventLog(tmp_path / "e")))


def test_nothing_kept_and_unknown_settings_are_errors(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": [message("user", "w0 w1")], "source": "s"}]
    for name, config, error, match in (
        ("a", {"format": "prompts", "max_prompt_length": 2}, DataError, "no row .* was kept"),
        ("b", {"format": "triples"}, UsageError, "allowed: pairs"),
        ("c", {"format": "prompts", "truncation": "middle"}, UsageError, "keep-start"),
    ):
        (tmp_path / name).mkdir()
        with pytest.raises(error, match=match):
            tokenise(tmp_path / name, rows, **config)
