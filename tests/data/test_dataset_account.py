"""What the dataset stage says of lengths, and how one set is cut to the prompts of another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.datasets import datasets
from ablate.context import EventLog, StageContext, read_json
from ablate.data.stage import run
from ablate.errors import UnknownNameError


def make(folder: Path, rows: list[dict[str, Any]], config: dict[str, Any], **inputs: Path) -> Path:
    """Run the stage over ``rows``; returns its output folder."""
    for name in ("output", "work", "source"):
        (folder / name).mkdir(parents=True)
    (folder / "source/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = {"source": folder / "source", **inputs}
    run(StageContext("dataset", config, given, folder / "output", folder / "work", EventLog(folder / "events.jsonl")))
    return folder / "output"


def votes(question: str, better: str, worse: str) -> dict[str, Any]:
    return {"prompt": question, "chosen": better, "rejected": worse}


PAIRS = {"format": "preference", "converter": "columns", "pairing": {"policy": "best-vs-random"}}


def test_mean_words_of_pairs_by_hand(tmp_path: Path) -> None:
    rows = [votes("a b", "c\nd  e", "f"), votes("a b", "c", "g h"), votes("i j k l", "ä", "m"), votes("x", "", "y")]
    report = read_json(make(tmp_path / "s", rows, PAIRS) / "report.json")
    assert report["dropped"] == {"empty-message": 1}
    # prompts 2, 2, 4 (distinct: 2, 4); chosen 3, 1, 1; rejected 1, 2, 1
    assert report["mean_words"] == {"prompt": 8 / 3, "chosen": 5 / 3, "rejected": 4 / 3, "distinct_prompts": 3.0}


def test_mean_words_are_those_of_the_sample(tmp_path: Path) -> None:
    rows = [votes(f"q{index}", "w " * (index + 1), "one") for index in range(20)]
    output = make(tmp_path / "s", rows, {**PAIRS, "max_examples": 3})
    chosen = [json.loads(line)["chosen"][0]["content"] for line in (output / "pairs.jsonl").read_text().splitlines()]
    assert len(chosen) == 3
    means = read_json(output / "report.json")["mean_words"]
    assert means["chosen"] == sum(text.count("w") for text in chosen) / 3
    assert (means["prompt"], means["rejected"]) == (1.0, 1.0)


def test_mean_words_of_conversations_and_of_prompts(tmp_path: Path) -> None:
    turns = [("system", "be kind"), ("user", "a"), ("assistant", "b c"), ("user", "d"), ("assistant", "e f g")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]}]
    told = make(tmp_path / "c", rows, {"format": "instruction", "converter": "messages"})
    # before the last turn: 2 + 1 + 2 + 1 words
    assert read_json(told / "report.json")["mean_words"] == {"prompt": 6.0, "response": 3.0, "distinct_prompts": 6.0}
    asked = make(tmp_path / "p", [{"prompt": "a b"}, {"prompt": "c"}], {"format": "prompts", "converter": "prompts"})
    assert read_json(asked / "report.json")["mean_words"] == {"prompt": 1.5, "distinct_prompts": 1.5}


def test_a_set_is_cut_to_the_prompts_of_another(tmp_path: Path) -> None:
    other = make(tmp_path / "other", [votes("a", "x", "y"), votes(" c ", "x", "y")], PAIRS)
    rows = [votes(question, "1", "2") for question in ("a", "b", "c", "a", "A")]
    output = make(tmp_path / "cut", rows, PAIRS, only_prompts=other / "prompts.jsonl")
    report = read_json(output / "report.json")
    assert (report["in"], report["kept"], report["dropped"]) == (5, 3, {"prompt-not-in-other-set": 2})
    pairs = [json.loads(line) for line in (output / "pairs.jsonl").read_text().splitlines()]
    assert [pair["prompt"][0]["content"] for pair in pairs] == ["a", "c", "a"]


CUT = """\
whole:
  title: Whole
  format: preference
  source: {files: [a.jsonl]}
  converter: columns
  label_kind: human
  licence: MIT
cut:
  title: Cut
  format: preference
  source: {files: [b.jsonl]}
  converter: columns
  label_kind: human
  licence: MIT
  only_prompts_of: whole
"""


def test_the_set_that_another_is_cut_to_is_known_and_whole(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CUT)
    assert datasets(tmp_path)["cut"].only_prompts_of == "whole"
    for name in ("wole", "cut"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mine.yaml").write_text(CUT.replace("only_prompts_of: whole", f"only_prompts_of: {name}"))
        with pytest.raises(UnknownNameError, match=rf"mine\.yaml:15: cut\.only_prompts_of: unknown dataset '{name}'"):
            datasets(folder)


def test_the_released_overall_set_is_cut_to_the_fine_grained_one() -> None:
    cut, whole = (datasets()[name] for name in ("ultrafeedback-overall", "ultrafeedback-binarized"))
    assert (cut.only_prompts_of, whole.only_prompts_of, cut.study_rows) == ("ultrafeedback-fine-grained", None, 58933)
    assert cut.source == whole.source and cut.size["train_prefs"] == 61135
