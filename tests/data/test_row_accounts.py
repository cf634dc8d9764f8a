"""Groups of rows in the dataset stage, and the account of every real row that is at hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ablate.catalogs.datasets import DatasetEntry, data_files, datasets
from ablate.catalogs.digests import sha256_file
from ablate.context import EventLog, StageContext, read_json
from ablate.data.preview import preview
from ablate.data.stage import run
from ablate.errors import DataError


def account(folder: Path, entry: DatasetEntry, root: Path, **sampling: Any) -> tuple[dict[str, Any], list[Any]]:
    """Run the dataset stage of an entry; returns its report and the lines of its main output."""
    files = {name: sha256_file(path) for name, path in data_files(entry, root).items()}
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    context = StageContext(
        kind="dataset",
        config=entry.stage_config(files, **sampling),
        inputs={},
        output=folder / "output",
        work=folder / "work",
        events=EventLog(folder / "events.jsonl"),
        locations={"root": str(root)},
    )
    run(context)
    report = read_json(folder / "output" / "report.json")
    assert report["in"] == report["kept"] + sum(report["dropped"].values()) == sum(report["files"].values())
    name = {"preference": "pairs", "instruction": "conversations", "prompts": "prompts"}[entry.format]
    text = (folder / "output" / f"{name}.jsonl").read_text(encoding="utf-8")
    return report, [json.loads(line) for line in text.split("\n") if line]


def steer(prompt: Any, response: str, rating: Any) -> dict[str, Any]:
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {"prompt": prompt, "response": response, **dict.fromkeys(names, rating)}


STEER = [
    steer("p", "good", 4),  # row 1: of group p, kept
    steer("q", "only", 4),  # alone with its prompt
    steer("p", "bad", 1),  # kept
    steer("p", "", 3),  # left out of group p
    steer(None, "x", 1),  # no prompt
    steer("r", "one", 2),  # tied with the next
    steer("r", "two", 2),
    steer("r", "three", "N/A"),  # left out of group r
]


def helpsteer(root: Path, rows: list[Any], **change: Any) -> DatasetEntry:
    (root / "nvidia/HelpSteer").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "nvidia/HelpSteer/train.jsonl").write_text(text, encoding="utf-8")
    values = datasets()["helpsteer"].model_dump(mode="python")
    return DatasetEntry.model_validate({**values, "pairing": "best-vs-random", **change})


def test_every_row_of_a_group_is_accounted_for(tmp_path: Path) -> None:
    report, lines = account(tmp_path / "s", helpsteer(tmp_path / "root", STEER), tmp_path / "root")
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in lines] == [("good", "bad")]
    assert (report["in"], report["kept"]) == (8, 2)
    assert report["dropped"] == {
        "empty-message": 1,
        "fewer-than-two-responses": 1,
        "no-rating": 1,
        "not-text": 1,
        "tied": 2,
    }
    assert report["responses"] == {"in": 6, "left_out": {"empty-message": 1, "no-rating": 1}}


def test_groups_do_not_depend_on_the_order_of_rows_and_are_sampled_whole(tmp_path: Path) -> None:
    rows = [steer(f"p{index // 5}", f"r{index}", index % 5) for index in range(100)]
    entry, root = helpsteer(tmp_path / "root", rows), tmp_path / "root"
    report, lines = account(tmp_path / "a", entry, root, max_examples=7)
    # 20 groups of five rows with ratings 0 to 4; seven pairs keep their seven groups whole.
    assert (report["kept"], len(lines)) == (35, 7)
    helpsteer(root, rows[::-1])
    _, again = account(tmp_path / "b", entry, root, max_examples=7)
    assert {row["id"] for row in again} == {row["id"] for row in lines}
    # Drawn before filtering, as the study did: rows, and then what is left of the groups.
    before, _ = account(tmp_path / "c", entry, root, max_examples=50, cap="before-filter")
    assert before["dropped"]["not-sampled"] == 50


def test_an_error_in_a_group_names_the_row_of_the_group(tmp_path: Path) -> None:
    bad = {key: value for key, value in STEER[2].items() if key != "coherence"}
    entry = helpsteer(tmp_path / "root", [STEER[1], STEER[0], bad])
    with pytest.raises(DataError, match=r"train\.jsonl, row 2: .*lacks coherence"):
        account(tmp_path / "s", entry, tmp_path / "root")


def test_preview_shows_examples_and_reasons(tmp_path: Path) -> None:
    entry = helpsteer(tmp_path / "root", STEER)
    found = preview(entry, tmp_path / "root", 3)
    # The row without a prompt stands alone; groups come when the file has ended.
    assert [(item["row"], item["rows"], item.get("dropped")) for item in found] == [
        (5, 1, "not-text"),
        (1, 3, None),
        (2, 1, "fewer-than-two-responses"),
    ]
    assert found[1]["examples"][0]["margin"] == 3.0


REAL = {
    # name: rows in, rows kept, reasons, examples
    "hhh-alignment": (221, 221, {}, 221),
    "llmbar": (100, 100, {}, 100),
    "llmbar-adversarial": (319, 319, {}, 319),
    "llama-factory-demo": (300, 300, {}, 300),
    "fine-grained-rlhf": (500, 466, {"comparisons-contradict": 22, "tied": 12}, 2544),
    "gsm8k-prompts": (7473, 7473, {}, 7473),
}


@pytest.mark.parametrize("name", REAL)
def test_real_rows(data_root: Path, tmp_path: Path, name: str) -> None:
    report, lines = account(tmp_path / "s", datasets()[name], data_root)
    assert (report["in"], report["kept"], report["dropped"], len(lines)) == REAL[name]


def test_real_hhh_dialogues_have_their_turns(data_root: Path, tmp_path: Path) -> None:
    _, lines = account(tmp_path / "s", datasets()["hhh-alignment"], data_root)
    assert Counter(row["source"] for row in lines) == {
        "hhh_harmless": 58,
        "hhh_helpful": 59,
        "hhh_honest": 61,
        "hhh_other": 43,
    }
    assert all([turn["role"] for turn in row["prompt"]][::2][-1] == "user" for row in lines)
    assert sum(len(row["prompt"]) > 1 for row in lines) == 41
    assert not any("Human:" in turn["content"] for row in lines for turn in row["prompt"])


def test_real_hh_rlhf_by_the_rule_of_the_study(data_root: Path, tmp_path: Path) -> None:
    small = datasets()["hh-rlhf-harmless"].model_dump(mode="python")
    entry = DatasetEntry.model_validate({**small, "converter_options": {"parsing": "bare"}, "split": None})
    report, _ = account(tmp_path / "s", entry, data_root)
    # Cut anywhere, 44 dialogues lose a turn to the words inside one; 13 are dropped when markers begin a line.
    assert (report["in"], report["kept"]) == (2312, 2268)
    assert report["dropped"] == {"empty-message": 38, "last-turn-not-assistant": 6}
