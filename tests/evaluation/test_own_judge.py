"""The policy as its own judge: labels of its responses, with what it says nothing of counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.judges import Judge, Template, locations_of
from ablate.context import EventLog, StageContext, read_json
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.errors import StageError
from ablate.rewards import label

NUMBERED = Template(name="n", kind="single", user="{prompt} {response}", answer="number", lowest=0, highest=39)
"""The words of the policy are w0 to w39: the last one that it says is its rating."""
TEXTS = ["w1 w2", "w3", "w4 w5 w6", "w7 " * 200]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy over forty words, which ends an answer after some thirty of them."""
    from ablate.models.loading import new_policy, save_model
    from ablate.models.tokenizers import word_tokenizer

    shape = {"hidden_size": 32, "layers": 2, "heads": 2, "ffn_size": 64, "max_positions": 128, "tie_embeddings": True}
    folder = tmp_path_factory.mktemp("policy") / "model"
    tokenizer = word_tokenizer([f"w{index}" for index in range(40)], "tulu")
    save_model(new_policy(shape, tokenizer, seed=1), tokenizer, folder)
    return folder


def labelled(policy: Path, folder: Path, **judge: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows = [
        {
            "id": f"r{n}",
            "prompt": [{"role": "user", "content": f"w{n}"}],
            "responses": [{"messages": [{"role": "assistant", "content": text}]} for text in TEXTS],
            "source": "hand",
        }
        for n in range(6)
    ]
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    write_json_lines(folder / "records.jsonl", rows)
    asked = Judge(name="self", model="self", key="", template=NUMBERED, temperature=1.0, **judge)
    config = {"closed_form": None, "judge": asked.identity(), "chat": True}
    inputs = {"records": folder / "records.jsonl", "policy": policy}
    events = EventLog(folder / "events.jsonl")
    context = StageContext("label", config, inputs, folder / "output", folder / "work", events, locations_of([asked]))
    label.run(context)
    return read_json_lines(folder / "output" / "records.jsonl"), read_json(folder / "output" / "report.json")


def test_a_policy_rates_its_own_responses(policy: Path, tmp_path: Path) -> None:
    found, report = labelled(policy, tmp_path / "one", samples=3, max_tokens=60)
    again, _ = labelled(policy, tmp_path / "two", samples=3, max_tokens=60)
    scores = [response["score"] for row in found for response in row["responses"]]
    assert found == again and scores and all(0 <= score <= 39 for score in scores)
    assert any(score != int(score) for score in scores), "means of several answers"
    judge = report["judge"]
    assert judge["answers"] == 6 * 4 * 3 and judge["unread"]["too_long"] == 6 * 3, "the long response does not fit"
    assert sum(judge["unread"].values()) < judge["answers"] and judge["model"] == "self"
    assert not any(len(row["responses"]) == len(TEXTS) for row in found)


def test_a_policy_that_can_not_judge_says_so(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"of 24 answers, \d+ cut, .*6 too_long"):
        labelled(policy, tmp_path / "one", samples=1, max_tokens=1)
