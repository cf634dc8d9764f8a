"""Judges as annotators and as rewards: a scripted API, the policy itself; what can't be read is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.catalogs.judges import Judge, Template, find_template, locations_of
from ablate.context import EventLog, Resources, StageContext
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.models.loading import load_reward_model, load_tokenizer, save_model
from ablate.models.reward_heads import mark_pairwise
from ablate.rewards.reward_model import ComparisonModel
from ablate.training.judged import JudgedEpisodes, neutral
from ablate.training.online import run
from ablate.training.online_pairs import best_and_worst
from ablate.training.policy_gradient import run as train
from ablate.training.rollouts import Episode

NUMBERED = Template(name="n", kind="single", user="{prompt} {response}", answer="number", lowest=0, highest=39)
"""The words of the tiny policies are w0 to w39: the last one it says is its rating."""


def test_what_is_missing_is_neither_best_nor_worst() -> None:
    assert neutral([1.0, None, 4.0]) == [1.0, 2.5, 4.0]
    assert neutral([None, 0.1, 0.1, 0.1]) == [0.1] * 4, "a tie stays one, without rounding"
    assert neutral([None, 3.0]) == [3.0, 3.0] and neutral([None, None]) == [0.0, 0.0]


def test_scores_of_a_step_by_hand() -> None:
    episodes = [Episode(f"p{n // 3}", [1], [n], True) for n in range(6)]
    said = iter([[5.0, None, 2.0, None, None, 1.0]])
    judged = JudgedEpisodes(lambda prompts, texts: next(said), {"p0": (), "p1": ()}, str, 3)
    scores_N = judged(episodes)
    assert scores_N.tolist() == [5.0, 3.5, 2.0, 1.0, 1.0, 1.0]
    first, second = best_and_worst(episodes, scores_N, 3)
    assert first is not None and (first.chosen.response_ids, first.rejected.response_ids) == ([0], [2])
    assert second is None, "one response alone can be read: there is nothing to compare"
    assert judged.statistics() == {"judged": 6, "judge_unread": 3}


def context(
    policy: Path, folder: Path, judge: Judge, algorithm: str = "online_dpo", axis: str = "annotator", **changes: Any
) -> StageContext:
    tokenizer = load_tokenizer(policy)
    texts = [f"w{index} w{index + 1}" for index in range(20)]
    prompts = [{"id": f"p{n}", "prompt": [{"role": "user", "content": text}]} for n, text in enumerate(texts)]
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    write_json_lines(folder / "prompts.jsonl", prompts)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    pq.write_table(pa.table({"id": [row["id"] for row in prompts], "prompt_ids": ids}), folder / "tokens.parquet")
    parameters = {
        "learning_rate": 1e-3, "prompts_per_step": 8, "mini_batch_size": 4, "max_response_length": 12,
        "missing_eos_reward": None, "steps": 2, "responses_per_prompt": 3, **changes,
    }  # fmt: skip
    inputs = {"policy": policy, "reference": policy, "prompts": folder / "tokens.parquet"}
    return StageContext(
        kind="train",
        config={"algorithm": algorithm, "parameters": parameters, "seed": 3, axis: {"judge": judge.identity()}},
        inputs={**inputs, "prompt_texts": folder / "prompts.jsonl"},
        output=folder / "output",
        work=folder / "work",
        events=EventLog(folder / "events.jsonl"),
        locations={**locations_of([judge]), "answers": str(folder / "answers")},
        resources=Resources(threads=1),
    )


@pytest.mark.parametrize("template", ["rate", "compare"])
def test_a_judge_orders_the_policys_own_pairs(
    judge_server: Any, policy_folder: Path, tmp_path: Path, template: str
) -> None:
    """It likes long responses, and says nothing of those with w1 in them: they are in no pair."""

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        if template == "rate":
            response = text.split("Response to rate: ")[1].split("\n")[0]
            return "hm" if "w1 " in f"{response} " else str(min(10, len(response.split())))
        one, other = (text.split(f"[Response {name}]\n")[1].split("\n[End")[0] for name in "AB")
        return "[[A]]" if len(one) > len(other) else "[[B]]" if len(other) > len(one) else "[[C]]"

    judge_server.reply = reply
    judge = Judge(name="j", model="j", url=judge_server.url, key="", template=find_template(template))
    made = context(policy_folder, tmp_path / "run", judge)
    run(made)
    history = read_json_lines(made.output / "history.jsonl")
    assert [record["judged"] for record in history] == [24, 48] and history[0]["labels"] > 0
    unread = history[-1]["judge_unread"]
    assert (unread > 0) is (template == "rate")
    pairs = read_json_lines(made.output / "pairs.jsonl")
    sides = [row[side][0]["content"] for row in pairs for side in ("chosen", "rejected")]
    assert pairs
    if template == "compare":
        assert all(len(row["chosen"][0]["content"]) >= len(row["rejected"][0]["content"]) for row in pairs)
    if template == "rate":
        assert not any("w1" in text.split() for text in sides)


@pytest.mark.parametrize(("algorithm", "responses"), [("ppo", 1), ("grpo", 3)])
def test_a_judge_s_ratings_are_the_reward(
    judge_server: Any, policy_folder: Path, tmp_path: Path, algorithm: str, responses: int
) -> None:
    """It rates by the number of words and says nothing of responses with w1, which get the mean of the others."""

    def reply(body: dict[str, Any]) -> str:
        response = body["messages"][-1]["content"].split("Response to rate: ")[1].split("\n")[0]
        return "hm" if "w1 " in f"{response} " else str(min(10, len(response.split())))

    judge_server.reply = reply
    judge = Judge(name="j", model="j", url=judge_server.url, key="", template=find_template("rate"))
    settings: dict[str, Any] = {"responses_per_prompt": responses, "kl_coefficient": 0.0}
    if algorithm == "ppo":
        settings["value_clip_range"] = 10.0
    made = context(policy_folder, tmp_path / "run", judge, algorithm, "reward", **settings)
    train(made)
    history, step = read_json_lines(made.output / "history.jsonl"), 8 * responses
    assert [record["judged"] for record in history] == [record["labels"] for record in history] == [step, 2 * step]
    assert 0 < history[-1]["judge_unread"] < step
    samples = read_json_lines(made.output / "samples.jsonl")
    for row in samples:
        words = row["response"].replace("<|end|>", "").split()
        if "w1" not in words and row["finished"] and algorithm == "ppo":
            assert abs(row["score"] - min(10, len(words))) <= 1, "special tokens are not shown to the judge"


def test_counts_of_a_judge_that_is_the_reward_survive_a_checkpoint() -> None:
    judged = JudgedEpisodes(lambda prompts, texts: [None] * len(texts), {"p": ()}, str, 2)
    judged([Episode("p", [1], [1], True)] * 2)
    kept = {**judged.counts}
    judged([Episode("p", [1], [1], True)] * 2)
    judged.counts = kept
    assert judged.statistics() == {"judged": 2, "judge_unread": 2}


def test_a_model_that_compares_annotates_online_pairs(policy_folder: Path, tmp_path: Path) -> None:
    """Its shares of wins order the responses to a prompt, as its own comparisons do, and cost no label."""
    model = load_reward_model(policy_folder, head_seed=5)
    mark_pairwise(model.config)
    tokenizer = load_tokenizer(policy_folder)
    save_model(model, tokenizer, tmp_path / "compares")
    given = context(policy_folder, tmp_path / "run", Judge(name="j", model="j", key="", template=NUMBERED))
    config = {key: value for key, value in given.config.items() if key != "annotator"}
    made = replace(given, config=config, inputs={**given.inputs, "reward_model": tmp_path / "compares"})
    run(made)
    history = read_json_lines(made.output / "history.jsonl")
    assert [record["labels"] for record in history] == [0, 0] and history[-1]["judged"] == 48
    judge = ComparisonModel(load_reward_model(tmp_path / "compares", pairwise=True), tokenizer)
    pairs = read_json_lines(made.output / "pairs.jsonl")
    assert pairs
    for row in pairs:
        assert 1 >= row["chosen_score"] > row["rejected_score"] >= 0
    sure = [row for row in pairs if row["chosen_score"] - row["rejected_score"] > 0.02]
    sides = [[row[side][0]["content"] for row in sure] for side in ("chosen", "rejected")]
    odds = judge.compare([tuple(row["prompt"]) for row in sure], *sides)
    assert sure and sum(value is not None and value > 0 for value in odds) >= 0.9 * len(sure)


def test_a_policy_annotates_its_own_samples(policy_folder: Path, tmp_path: Path) -> None:
    judge = Judge(
        name="self", model="self", key="", template=NUMBERED, samples=3, temperature=1.0, max_tokens=6, seed=5
    )  # fmt: skip
    made, again = (context(policy_folder, tmp_path / name, judge) for name in ("one", "two"))
    run(made)
    history = read_json_lines(made.output / "history.jsonl")
    assert history[-1]["judged"] == 48 and 0 <= history[-1]["judge_unread"] < 48
    pairs = read_json_lines(made.output / "pairs.jsonl")
    assert pairs and all(0 <= row["rejected_score"] < row["chosen_score"] <= 39 for row in pairs)
    run(again)
    assert read_json_lines(again.output / "pairs.jsonl") == pairs, "its judgement is seeded"
