"""Rankings in token ids: ranks and ties, what is left out of them, and the account of rows and responses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ablate.context import EventLog, StageContext, read_json
from ablate.data.tokenise import run
from ablate.errors import DataError
from ablate.models.tokenizers import word_tokenizer

WORDS = [f"w{index}" for index in range(10)]


def record(name: str, *responses: tuple[str, float | None, int | None], prompt: str = "w0", **more: Any) -> dict:
    return {
        "id": name,
        "prompt": [{"role": "user", "content": prompt}],
        "responses": [
            {"messages": [{"role": "assistant", "content": text}], "score": score, "rank": rank, **more}
            for text, score, rank in responses
        ],
        "source": "hand",
    }


def tokenise(folder: Path, rows: list[dict[str, Any]], **config: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    word_tokenizer(WORDS, "pocket").save_pretrained(folder / "tokenizer")
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "output").mkdir()
    inputs = {"data": folder / "records.jsonl", "tokenizer": folder / "tokenizer"}
    run(StageContext("tokenise", config, inputs, folder / "output", folder, EventLog(folder / "events.jsonl")))
    report = read_json(folder / "output" / "report.json")
    kept = pq.read_table(folder / "output" / "tokens.parquet").to_pylist()
    assert report["in"] == len(rows) == report["kept"] + sum(report["dropped"].values())
    left_out = sum(report["responses"]["left_out"].values())
    in_dropped = report["responses"]["in"] - left_out - sum(len(row["ranks"]) for row in kept)
    assert in_dropped >= 0
    return kept, report


# ids of the word tokenizer: 0 pad, 1 end, 2 user, 3 assistant, 4 system, 5 unknown, 6 … the words w0 …


def test_ranking_by_hand_best_first_with_ties(tmp_path: Path) -> None:
    responses = [("w1", 2.0, None), ("w2 w3", 5.0, None), ("w4", 2.0, None), ("w5", -1.0, None)]
    kept, report = tokenise(
        tmp_path, [record("r", *responses, aspects={"helpfulness": 3.0})], format="rankings", max_length=20
    )
    assert kept == [
        {
            "id": "r",
            "prompt_ids": [2, 6, 3],
            "completion_ids": [[8, 9, 1], [7, 1], [10, 1], [11, 1]],
            "ranks": [1, 2, 2, 3],
            "scores": [5.0, 2.0, 2.0, -1.0],
            "aspects": [[("helpfulness", 3.0)]] * 4,
        }
    ]
    assert (report["longest"], report["truncated"]) == (6, 0)


def test_ranks_of_the_source_count_before_scores(tmp_path: Path) -> None:
    kept, _ = tokenise(tmp_path, [record("r", ("w1", 9.0, 7), ("w2", 1.0, 2))], format="rankings", max_length=20)
    assert (kept[0]["completion_ids"], kept[0]["ranks"], kept[0]["scores"]) == ([[8, 1], [7, 1]], [1, 2], [1.0, 9.0])


def test_what_a_ranking_leaves_out_is_counted(tmp_path: Path) -> None:
    long = " ".join(WORDS)
    rows = [
        record("kept", ("w1", 3.0, None), (long, 2.0, None), ("w1", 1.0, None), ("w2", 0.0, None)),
        record("one-left", ("w1", 3.0, None), (long, 2.0, None)),
        record("tied", ("w1", 1.0, None), ("w2", 1.0, None)),
        record("control", ("w1", 1.0, None), ("w2 <|end|>", 2.0, None), ("w3", 3.0, None)),
        record("long-prompt", ("w1", 1.0, None), ("w2", 2.0, None), prompt=long),
    ]
    for name, config in (("drop", {"truncation": "drop"}), ("keep", {"truncation": "keep-start"})):
        (tmp_path / name).mkdir()
        kept, report = tokenise(tmp_path / name, rows, format="rankings", max_length=8, **config)
        if name == "drop":
            assert {row["id"]: row["ranks"] for row in kept} == {"kept": [1, 2], "control": [1, 2]}
            assert report["dropped"] == {"fewer-than-two-responses": 2, "tied": 1}
            assert report["responses"] == {
                "in": 13,
                "left_out": {"too-long": 4, "equal-completions": 1, "control-token-in-text": 1},
            }
        else:
            assert {row["id"]: row["ranks"] for row in kept} == {
                "kept": [1, 2, 3],
                "one-left": [1, 2],
                "control": [1, 2],
            }
            assert report["dropped"] == {"prompt-too-long": 1, "tied": 1}
            assert report["truncated"] == 2 and report["longest"] == 8


def test_ratings_are_kept_whether_or_not_they_order_responses(tmp_path: Path) -> None:
    tied = record("tied", ("w1", 1.0, None), ("w2", 1.0, None), aspects={"verbosity": 2.0})
    kept, report = tokenise(tmp_path, [tied], format="rated", max_length=20)
    assert kept[0]["ranks"] == [1, 1] and report["dropped"] == {}
    (tmp_path / "ranked").mkdir()
    with pytest.raises(DataError, match=r"no row of .* was kept"):
        tokenise(tmp_path / "ranked", [tied], format="rankings", max_length=20)


def test_a_response_without_any_label_is_an_error_that_names_the_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has a response with neither rank nor score"):
        tokenise(tmp_path, [record("r", ("w1", None, None), ("w2", 1.0, None))], format="rankings", max_length=20)


def test_a_file_of_pairs_is_no_file_of_rankings(tmp_path: Path) -> None:
    pair = {"id": "p", "prompt": [], "chosen": [], "rejected": []}
    with pytest.raises(DataError, match="a row of rankings has id, prompt, responses"):
        tokenise(tmp_path, [pair], format="rankings", max_length=20)
