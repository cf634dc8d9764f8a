"""Responses of a policy and labels given anew, as stages on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.context import read_json
from ablate.data import stage as dataset
from ablate.data.examples import prompt_id
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.errors import StageError
from ablate.evaluation import respond
from ablate.models.loading import load_reward_model, load_tokenizer
from ablate.pocket.language import count_nouns
from ablate.rewards import label
from ablate.rewards.reward_model import RewardModel

Run = Callable[..., Path]
RESPONSES = {"n": 60, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 40, "seed": 0, "chat": True}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    questions = ("what is 3 + 4 then - 2 ?", "describe the cat to a friend : its color and size .", "name a metal")
    rows = [
        {"id": str(index), "prompt": [{"role": "user", "content": text}], "source": "pocket"}
        for index, text in enumerate(questions)
    ]
    write_json_lines(path, rows)
    return path


def records(scores: list[list[float | None]]) -> list[dict[str, Any]]:
    return [
        {
            "id": str(index),
            "prompt": [{"role": "user", "content": f"what is {index} ?"}],
            "responses": [
                {"messages": [{"role": "assistant", "content": f"{'the cat ' * place} is {place}"}], "score": score}
                for place, score in enumerate(own)
            ],
            "source": "hand",
        }
        for index, own in enumerate(scores)
    ]


def test_finished_responses_become_records_and_the_rest_is_counted(
    run_stage: Run, pocket_policy: Path, prompts: Path
) -> None:
    inputs = {"policy": pocket_policy, "prompts": prompts}
    made = run_stage("respond", respond.run, RESPONSES, inputs)
    report, rows = read_json(made / "report.json"), read_json_lines(made / "records.jsonl")
    assert report["responses"]["in"] == sum(report["responses"]["ended"].values()) == 180
    assert sum(len(row["responses"]) for row in rows) <= report["responses"]["ended"]["eos"]
    assert report["in"] == report["kept"] + sum(report["dropped"].values()) == 3
    assert {row["id"] for row in rows} <= {"0", "1", "2"} and all(len(row["responses"]) >= 2 for row in rows)
    again = run_stage("again", respond.run, RESPONSES, inputs)
    assert (again / "records.jsonl").read_bytes() == (made / "records.jsonl").read_bytes()
    other = run_stage("other", respond.run, {**RESPONSES, "seed": 1}, inputs)
    assert (other / "records.jsonl").read_bytes() != (made / "records.jsonl").read_bytes()


def test_the_parts_of_the_prompts_are_all_of_them(run_stage: Run, pocket_policy: Path, prompts: Path) -> None:
    inputs = {"policy": pocket_policy, "prompts": prompts}
    parts = [run_stage(f"part-{n}", respond.run, {**RESPONSES, "part": n, "parts": 2}, inputs) for n in range(2)]
    assert sorted(read_json(part / "report.json")["in"] for part in parts) == [1, 2]
    own = [{row["id"] for row in read_json_lines(part / "records.jsonl")} for part in parts]
    assert own[0] and own[1] and not own[0] & own[1]
    with pytest.raises(StageError, match="3 prompts can't be drawn into 4 parts"):
        run_stage("none", respond.run, {**RESPONSES, "part": 3, "parts": 4}, inputs)


def test_a_set_s_own_response_joins_the_policy_s(
    run_stage: Run, pocket_policy: Path, prompts: Path, tmp_path: Path
) -> None:
    rows = read_json_lines(prompts)
    for row in rows:
        row["id"] = prompt_id(row["prompt"])
    write_json_lines(prompts, rows)
    gold = [{"role": "assistant", "content": "the cat"}]
    pairs = [{"id": "p", "prompt": rows[1]["prompt"], "chosen": gold, "rejected": gold[:0]}]
    write_json_lines(tmp_path / "pairs.jsonl", pairs)
    inputs = {"policy": pocket_policy, "prompts": prompts}
    without = read_json_lines(run_stage("respond", respond.run, RESPONSES, inputs) / "records.jsonl")
    inputs["gold"] = tmp_path / "pairs.jsonl"
    made = read_json_lines(run_stage("gold", respond.run, RESPONSES, inputs) / "records.jsonl")
    for row, plain in zip(made, without, strict=True):
        own = [response for response in row["responses"] if response["model"] == "gold"]
        assert [response["messages"] for response in own] == ([gold] if row["id"] == rows[1]["id"] else [])
        assert row["responses"][: len(plain["responses"])] == plain["responses"]


def test_a_policy_that_never_ends_its_turns_is_said_to(run_stage: Run, pocket_policy: Path, prompts: Path) -> None:
    with pytest.raises(StageError, match="no prompt of 3 has two finished responses"):
        run_stage(
            "respond", respond.run, {**RESPONSES, "max_new_tokens": 1}, {"policy": pocket_policy, "prompts": prompts}
        )


def test_labels_are_the_reward_models_scores(run_stage: Run, reward_folder: Path, tmp_path: Path) -> None:
    rows = records([[1.0, 2.0, 3.0], [None, None]])
    write_json_lines(tmp_path / "records.jsonl", rows)
    inputs = {"records": tmp_path / "records.jsonl", "reward_model": reward_folder}
    made = run_stage("label", label.run, {"closed_form": None}, inputs)
    reward = RewardModel(load_reward_model(reward_folder), load_tokenizer(reward_folder))
    labelled = read_json_lines(made / "records.jsonl")
    for row, new in zip(rows, labelled, strict=True):
        texts = [response["messages"][0]["content"] for response in row["responses"]]
        expected = [reward.score([row["prompt"]], [text])[0] for text in texts]
        assert [response["score"] for response in new["responses"]] == pytest.approx(expected, abs=1e-5)
        assert all(response["rank"] is None for response in new["responses"])
    # Only the first record had labels, and they rose: a pair is ordered alike where the new score rises too.
    one, two, three = (response["score"] for response in labelled[0]["responses"])
    alike = (one < two) + (two < three) + (one < three)
    assert read_json(made / "report.json")["agreement"] == {"pairs": 3, "alike": alike, "share": alike / 3}


def test_a_formula_labels_without_a_model_and_pairs_follow_it(run_stage: Run, tmp_path: Path) -> None:
    write_json_lines(tmp_path / "records.jsonl", records([[9.0, 5.0, 1.0], [0.0, 0.0]]))
    made = run_stage("label", label.run, {"closed_form": "nouns"}, {"records": tmp_path / "records.jsonl"})
    first = read_json_lines(made / "records.jsonl")[0]
    scores = [count_nouns(response["messages"][0]["content"]) for response in first["responses"]]
    assert [response["score"] for response in first["responses"]] == scores == sorted(scores)
    assert read_json(made / "report.json")["agreement"] == {"pairs": 3, "alike": 0, "share": 0.0}
    config = {
        "format": "preference", "converter": "records", "converter_options": {}, "files": {}, "split": None,
        "max_examples": None, "pairing": {"policy": "best-vs-worst"},
    }  # fmt: skip
    paired = run_stage("pairs", dataset.run, config, {"source": made / "records.jsonl"})
    pairs = [json.loads(line) for line in (paired / "pairs.jsonl").read_text().splitlines()]
    assert (pairs[0]["chosen_score"], pairs[0]["rejected_score"]) == (scores[-1], scores[0])


def test_turns_that_do_not_alternate_are_labelled_as_they_were_released(run_stage: Run, tmp_path: Path) -> None:
    """The study's released sets have some; a set labelled anew has the rows of its source."""
    turns = [{"role": "user", "content": "name a metal"}, {"role": "user", "content": "quick"}]
    sides = {
        name: [*turns, {"role": "assistant", "content": text}]
        for name, text in {"chosen": "a cat", "rejected": "the cat and the dog"}.items()
    }
    (tmp_path / "source").mkdir()
    write_json_lines(tmp_path / "source" / "rows.jsonl", [sides])
    config = {"format": "records", "converter": "tulu_2_5"}
    made = run_stage("records", dataset.run, config, {"source": tmp_path / "source"})
    labelled = run_stage("label", label.run, {"closed_form": "nouns"}, {"records": made / "records.jsonl"})
    config = {"format": "preference", "converter": "records", "pairing": {"policy": "best-vs-worst"}}
    paired = run_stage("pairs", dataset.run, config, {"source": labelled / "records.jsonl"})
    (pair,) = read_json_lines(paired / "pairs.jsonl")
    assert pair["prompt"] == turns and pair["chosen"][0]["content"] == "the cat and the dog"
