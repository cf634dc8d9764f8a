"""Which scored responses are kept for a policy to imitate."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from ablate.context import EventLog, StageContext, read_json
from ablate.data.best import best_of_each, run, top
from ablate.data.json_lines import read_json_lines, write_json_lines

SCORES = [[0.5, 2.0, 2.0], [-1.0, -3.0], [4.0, 1.0, 3.5]]


def keep(folder: Path, scores: list[list[float]], top_share: float | None) -> tuple[list[str], dict[str, Any]]:
    rows = [
        {
            "id": f"r{number}",
            "prompt": [{"role": "user", "content": f"q{number}"}],
            "responses": [
                {"messages": [{"role": "assistant", "content": f"a{number}{place}"}], "score": score}
                for place, score in enumerate(own)
            ],
            "source": "s",
        }
        for number, own in enumerate(scores)
    ]
    write_json_lines(folder / "records.jsonl", rows)
    output = folder / "output"
    output.mkdir()
    inputs = {"records": folder / "records.jsonl"}
    run(StageContext("best", {"top_share": top_share}, inputs, output, folder, EventLog(folder / "events.jsonl")))
    answers = read_json_lines(output / "answers.jsonl")
    assert all(row["prompt"][0]["content"][1] == row["chosen"][0]["content"][1] for row in answers)
    return [row["chosen"][0]["content"] for row in answers], read_json(output / "report.json")


def test_the_best_response_of_every_prompt_by_hand(tmp_path: Path) -> None:
    kept, report = keep(tmp_path, SCORES, None)
    assert kept == ["a01", "a10", "a20"], "of equal scores the first"
    assert report == {
        "in": 3,
        "prompts": 3,
        "responses": {"in": 8, "kept": 3},
        "mean_score": {"in": pytest.approx(9 / 8), "kept": pytest.approx(5 / 3)},
    }


def test_the_highest_share_of_all_responses_by_hand(tmp_path: Path) -> None:
    kept, report = keep(tmp_path, SCORES, 0.5)
    assert kept == ["a01", "a02", "a20", "a22"] and report["prompts"] == 2


@pytest.mark.parametrize("seed", range(5))
def test_against_plain_loops(seed: int) -> None:
    rng = random.Random(seed)
    scores = [[rng.choice([0.0, 1.0, rng.random()]) for _ in range(rng.randint(2, 5))] for _ in range(9)]
    for record, place in best_of_each(scores):
        assert scores[record][place] == max(scores[record])
    everything = sorted((score for own in scores for score in own), reverse=True)
    for share in (0.01, 0.3, 1.0):
        count = max(1, round(share * len(everything)))
        places = top(scores, share)
        assert len(set(places)) == count
        assert math.isclose(sum(scores[r][p] for r, p in places), sum(everything[:count]))
