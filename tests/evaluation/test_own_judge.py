"""The policy as its own judge: labels of its responses, with what it says nothing of counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.catalogs.judges import Judge, find_template, locations_of
from ablate.context import EventLog, StageContext, read_json
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.rewards import label


def labelled(policy: Path, folder: Path, *, samples: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    texts = ["it is 7 .", "it is 3 .", "sorry .", "hello ! " * 60]
    rows = [
        {
            "id": f"r{n}",
            "prompt": [{"role": "user", "content": f"what is {n} + 1 ?"}],
            "responses": [{"messages": [{"role": "assistant", "content": text}]} for text in texts],
            "source": "hand",
        }
        for n in range(6)
    ]
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    write_json_lines(folder / "records.jsonl", rows)
    judge = Judge(
        name="self", model="self", key="", template=find_template("pocket-rate"), temperature=1.0, samples=samples,
        max_tokens=40,
    )  # fmt: skip
    config = {"closed_form": None, "judge": judge.identity(), "chat": True}
    inputs = {"records": folder / "records.jsonl", "policy": policy}
    events = EventLog(folder / "events.jsonl")
    context = StageContext("label", config, inputs, folder / "output", folder / "work", events, locations_of([judge]))
    label.run(context)
    return read_json_lines(folder / "output" / "records.jsonl"), read_json(folder / "output" / "report.json")


def test_a_policy_rates_its_own_responses(pocket_policy: Path, tmp_path: Path) -> None:
    found, report = labelled(pocket_policy, tmp_path / "one", samples=3)
    again, _ = labelled(pocket_policy, tmp_path / "two", samples=3)
    scores = [response["score"] for row in found for response in row["responses"]]
    assert found == again and scores and all(0 <= score <= 38 for score in scores)
    judge = report["judge"]
    assert judge["answers"] == 6 * 4 * 3 and judge["unread"]["too_long"] == 6 * 3, "the long response does not fit"
    assert sum(judge["unread"].values()) < judge["answers"] and judge["model"] == "self"
    assert report["responses"]["unscored"] == report["responses"]["in"] - len(scores) - _dropped(report, found)


def _dropped(report: dict[str, Any], found: list[dict[str, Any]]) -> int:
    """Responses that can be read in records that are dropped, because the rest of them can't."""
    kept = sum(len(row["responses"]) for row in found)
    return int(report["responses"]["in"] - report["responses"]["unscored"] - kept)
