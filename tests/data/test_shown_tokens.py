"""Rows as a model gets them: ids worked by hand, the same as training's, readable with and without colours."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from rich.text import Text

from ablate.catalogs.datasets import DatasetEntry, datasets
from ablate.catalogs.models import models
from ablate.context import EventLog, StageContext
from ablate.data import stage as dataset_stage
from ablate.data import tokenise
from ablate.data.shown_tokens import show_tokens, view
from ablate.data.tokenizer_of import tokenizer_of
from ablate.errors import DataError, UnknownNameError, UsageError
from ablate.models import tokenizers
from ablate.models.loading import load_tokenizer, tokenizer_fingerprint
from ablate.models.tokenizers import word_tokenizer
from ablate.pocket import stage as pocket_stage

# ids of the word tokenizer: 0 pad, 1 end, 2 user, 3 assistant, 4 system, 5 unknown, 6 … the words w0 …
WORDS = [f"w{index}" for index in range(10)]


@pytest.fixture
def model(tmp_path: Path) -> str:
    word_tokenizer(WORDS, "pocket").save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def entry(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> DatasetEntry:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    facts: dict[str, Any] = {"name": "mine", "title": "Mine", "source": {"files": ["rows.jsonl"]}, "licence": "MIT"}
    facts |= {"format": "preference", "converter": "columns", "label_kind": "human"}
    return DatasetEntry.model_validate(facts | changes)


def preference(folder: Path) -> DatasetEntry:
    rows = [
        {"prompt": "w0 w1", "chosen": "w2", "rejected": "w3 other"},
        {"prompt": "w0", "chosen": "", "rejected": "w3"},
        {"prompt": "w0", "chosen": "w1 <|user|> w2", "rejected": "w3"},
    ]
    return entry(folder, rows)


def plain(rows: list[dict[str, Any]], width: int = 160, *, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="truecolor" if colour else None
    )
    console.print(view(rows, width, colour=colour), highlight=False, soft_wrap=True, end="")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_preference_by_hand(tmp_path: Path, model: str) -> None:
    first, second, third = show_tokens(preference(tmp_path), tmp_path, 5, model)
    ((prompt, chosen, rejected),) = (example["sequences"] for example in first["tokens"])
    assert prompt == {
        "name": "prompt", "text": "<|user|> w0 w1 <|assistant|> ", "ids": (2, 6, 7, 3),
        "pieces": ("<|user|>", "w0", "w1", "<|assistant|>"), "trained": (False, False, False, False),
    }  # fmt: skip
    assert chosen == {
        "name": "chosen", "text": "w2 <|end|>", "ids": (8, 1), "pieces": ("w2", "<|end|>"), "trained": (True, True),
    }  # fmt: skip
    assert (rejected["ids"], rejected["pieces"]) == ((9, 5, 1), ("w3", "<|unk|>", "<|end|>"))
    assert (second["dropped"], second["tokens"]) == ("empty-message", [])
    assert [example["dropped"] for example in third["tokens"]] == ["control-token-in-text"]


def test_the_mask_of_a_conversation_and_a_prompt_by_hand(tmp_path: Path, model: str) -> None:
    turns = [("system", "w5"), ("user", "w0"), ("assistant", "w1 w2"), ("user", "w3"), ("assistant", "w4")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]}]
    told = entry(tmp_path, rows, format="instruction", converter="messages", label_kind=None)
    ((shown,),) = (example["sequences"] for example in show_tokens(told, tmp_path, 1, model)[0]["tokens"])
    assert shown["ids"] == (4, 11, 2, 6, 3, 7, 8, 1, 2, 9, 3, 10, 1)
    assert [int(mark) for mark in shown["trained"]] == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1]
    asked = entry(tmp_path, [{"prompt": "w0 w9"}], format="prompts", converter="prompts", label_kind=None)
    ((shown,),) = (example["sequences"] for example in show_tokens(asked, tmp_path, 1, model)[0]["tokens"])
    assert (shown["name"], shown["ids"], shown["text"]) == ("prompt", (2, 6, 15, 3), "<|user|> w0 w9 <|assistant|> ")
    assert not any(shown["trained"])


def test_without_colours_trained_tokens_are_in_brackets(tmp_path: Path, model: str) -> None:
    rows = show_tokens(preference(tmp_path), tmp_path, 3, model)
    identity = [row["tokens"][0]["id"] for row in rows if row["tokens"]]
    assert plain(rows) == (
        "Tokens in [brackets] are trained; no limit of length is applied.\n"
        "\nrows.jsonl, row 1\n"
        f"  {identity[0]}\n"
        "  prompt: 4 tokens, 0 trained\n"
        "    | <|user|> w0 w1 <|assistant|> \n"
        "    <|user|> w0 w1 <|assistant|>\n"
        "    2        6  7  3\n"
        "  chosen: 2 tokens, 2 trained\n"
        "    | w2 <|end|>\n"
        "    [w2] [<|end|>]\n"
        "    8    1\n"
        "  rejected: 3 tokens, 3 trained\n"
        "    | w3 other <|end|>\n"
        "    [w3] [<|unk|>] [<|end|>]\n"
        "    9    5         1\n"
        "\nrows.jsonl, row 2\n"
        "  dropped: empty-message\n"
        "\nrows.jsonl, row 3\n"
        f"  {identity[1]}: dropped: control-token-in-text\n"
    )
    narrow = plain(rows, 20)
    assert "    <|user|> w0 w1\n    2        6  7\n    <|assistant|>\n    3\n" in narrow


def test_with_colours_they_are_coloured(tmp_path: Path, model: str) -> None:
    rows = show_tokens(preference(tmp_path), tmp_path, 1, model)
    coloured = plain(rows, colour=True)
    assert "\x1b[1;32mw2 \x1b[0m" in coloured and "[w2]" not in coloured and "Tokens in colour" in coloured
    assert Text.from_ansi(coloured).plain.count("w0 w1") == 2


def test_control_characters_of_a_row_do_not_reach_the_terminal(tmp_path: Path, model: str) -> None:
    sly = entry(tmp_path, [{"prompt": "w0 \x1b[31m\x07", "chosen": "w1", "rejected": "w2"}])
    shown = plain(show_tokens(sly, tmp_path, 1, model))
    assert "\x1b" not in shown and "\x07" not in shown and "| <|user|> w0 \\x1b[31m\\x07 <|assistant|>" in shown


def run(work: Any, folder: Path, config: dict[str, Any], **inputs: Path) -> Path:
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    work(StageContext("k", config, inputs, folder / "output", folder / "work", EventLog(folder / "events.jsonl")))
    return folder / "output"


@pytest.mark.parametrize("name", ["pocket-nectar", "pocket-instructions"])
def test_they_are_the_tokens_of_training(tmp_path: Path, name: str) -> None:
    """The stages of an experiment, run one by one, store what is shown."""
    catalog, recipe = datasets()[name], models()["pocket-small"]
    rows = run(pocket_stage.run, tmp_path / "rows", {**(catalog.pocket_config() or {}), "n": 5}) / "data"
    data = run(dataset_stage.run, tmp_path / "data", catalog.stage_config(), source=rows)
    corpus = run(pocket_stage.run, tmp_path / "corpus", {"what": "corpus", "n": 50}) / "data"
    made = run(tokenizers.run, tmp_path / "tokenizer", recipe.tokenizer_config(), corpus=corpus) / "tokenizer"
    assert tokenizer_fingerprint(load_tokenizer(made)) == tokenizer_fingerprint(tokenizer_of("pocket-small", None))
    file, kind = (
        ("conversations.jsonl", "conversations") if catalog.format == "instruction" else ("pairs.jsonl", "pairs")
    )
    stored = run(tokenise.run, tmp_path / "tokens", {"format": kind}, data=data / file, tokenizer=made)
    expected = pq.read_table(stored / "tokens.parquet").to_pylist()
    shown = show_tokens(catalog, None, 5, "pocket-small")
    examples = [example for row in shown for example in row["tokens"]]
    assert len(examples) == len(expected) >= 4
    for example, row in zip(examples, expected, strict=True):
        assert example["id"] == row["id"]
        if kind == "pairs":
            found = [list(sequence["ids"]) for sequence in example["sequences"]]
            assert found == [row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]]
        else:
            (sequence,) = example["sequences"]
            assert (list(sequence["ids"]), list(sequence["trained"])) == (row["input_ids"], row["loss_mask"])


def test_models_by_name(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = tmp_path / "store/stages/tokenizer-1"
    (stage / "output").mkdir(parents=True)
    (tmp_path / "model").rename(stage / "output/tokenizer")
    monkeypatch.chdir(tmp_path)
    assert len(tokenizer_of("./store/stages/tokenizer-1", None)) == len(tokenizer_of(str(stage / "output"), None)) == 16
    with pytest.raises(DataError, match=r"store has no tokenizer: .*tokenizer_config"):
        tokenizer_of("./store", None)
    with pytest.raises(UnknownNameError, match=r"unknown model 'pocket-smal'\n  did you mean 'pocket-small'"):
        tokenizer_of("pocket-smal", None)
    with pytest.raises(DataError, match=r"allenai/tulu-2-7b has no pinned revision\n  name it allenai/tulu-2-7b@"):
        tokenizer_of("allenai/tulu-2-7b", None)
    with pytest.raises(DataError, match=r"(?s)can't load some/model: .*hf download"):
        tokenizer_of(f"some/model@{'0' * 40}", None)
    with pytest.raises(DataError, match="needs the file"):
        tokenizer_of("byte-bpe-tiny", tmp_path)
    with pytest.raises(UsageError, match="'pocket-corpus' holds documents"):
        show_tokens(datasets()["pocket-corpus"], None, 1, "pocket-small")


@pytest.mark.data
def test_a_tokenizer_is_trained_on_its_corpus(data_root: Path) -> None:
    (row,) = show_tokens(datasets()["ultrafeedback-small"], data_root, 1, "byte-bpe-tiny")
    prompt, chosen, _ = row["tokens"][0]["sequences"]
    # Byte-level pairs: the pieces put together are the template's text, the line after the end's aside.
    spelled = "".join(prompt["pieces"]).replace("Ġ", " ").replace("Ċ", "\n")
    assert spelled == prompt["text"] and prompt["text"].startswith("<|user|>\n")
    assert chosen["pieces"][-1] == "<|end|>" and len(chosen["ids"]) == 618
