"""Judges as annotators of online DPO: a scripted API, and the policy itself; what can't be read is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.catalogs.judges import Judge, Template, find_template, locations_of
from ablate.context import EventLog, Resources, StageContext
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.models.loading import load_tokenizer
from ablate.training.judged import JudgedEpisodes, neutral
from ablate.training.online import run
from ablate.training.online_pairs import best_and_worst
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


def context(policy: Path, folder: Path, judge: Judge, algorithm: str = "online_dpo", **changes: Any) -> StageContext:
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
        config={"algorithm": algorithm, "parameters": parameters, "seed": 3, "annotator": {"judge": judge.identity()}},
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
