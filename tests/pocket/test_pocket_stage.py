"""Generated data sets: schemas, noise, determinism, the closed vocabulary and the stage itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ablate.context import EventLog, StageContext
from ablate.errors import UnknownNameError, UsageError
from ablate.pocket.draws import Draw
from ablate.pocket.language import SKILLS, draw_item, gold_reward
from ablate.pocket.preferences import preference_names, preference_rows
from ablate.pocket.preferences.noise import NOISE_LEVELS, clean_pair
from ablate.pocket.stage import read_config, rows, run
from ablate.pocket.vocabulary import vocabulary

LANGUAGE_DIGEST = "8eaf7f38795168be1f28618261fd1965e162c5bd0f214c1f4a121a229d2f2491"
SAMPLES_DIGEST = "9c7986dda545b8cc37d0486ffec8a37255a3e4182429a44bb35cd689aeab1287"
FIRST_SETS = ("hh", "uf", "nectar", "shp", *NOISE_LEVELS)
CONFIGS: list[dict[str, Any]] = [
    {"what": "corpus", "n": 4000},
    {"what": "instructions", "n": 1500},
    {"what": "instructions", "n": 300, "split": "validation"},
    {"what": "instructions", "n": 300, "curtness": 0.85},
    {"what": "items", "name": "all", "n": 300, "split": "test"},
    {"what": "items", "name": "code", "n": 50, "split": "validation"},
    {"what": "pairs", "name": "all", "n": 60, "split": "validation"},
    *({"what": "preferences", "name": name, "n": 300} for name in FIRST_SETS),
]
SAMPLES: list[dict[str, Any]] = [
    {"what": "preferences", "name": name, "n": 300} for name in preference_names() if name not in FIRST_SETS
]
TEXT_KEYS = (
    "text", "content", "chosen", "rejected", "instruction", "response", "answer", "history", "human_ref_A",
    "human_ref_B", "input", "output", "output_1", "output_2", "question", "problem", "response_1", "response_2",
    "response_j", "response_k", "system", "pre_generated_steps", "post", "extract", "full_text", "answer_0",
    "answer_1",
)  # fmt: skip
NOT_ALWAYS = ("input", "system")


def made(**config: Any) -> list[dict[str, Any]]:
    return list(rows(read_config(config)))


def texts(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, str) and key in TEXT_KEYS:
        if value or key not in NOT_ALWAYS:
            yield value
    elif isinstance(value, list):
        for element in value:
            yield from texts(element, key)
    elif isinstance(value, dict):
        for name, element in value.items():
            yield from texts(element, name)


def context(folder: Path, config: dict[str, Any]) -> StageContext:
    output, work = folder / "output", folder / "work"
    output.mkdir(parents=True)
    work.mkdir()
    return StageContext("pocket", config, {}, output, work, EventLog(folder / "events.jsonl"))


@pytest.mark.parametrize("config", [*CONFIGS, *SAMPLES], ids=lambda config: f"{config['what']}-{config.get('name')}")
def test_every_word_is_in_the_vocabulary(config: dict[str, Any]) -> None:
    known = set(vocabulary())
    seen: Counter[str] = Counter()
    for row in made(**config):
        for text in texts(row):
            assert text
            seen.update(text.replace("\n\nHuman: ", " ").replace("\n\nAssistant: ", " ").split(" "))
    seen.pop("", None)
    assert not set(seen) - known


@pytest.mark.parametrize("config", [*CONFIGS, *SAMPLES], ids=lambda config: f"{config['what']}-{config.get('name')}")
def test_texts_are_words_between_single_spaces(config: dict[str, Any]) -> None:
    for row in made(**{**config, "n": 20}):
        for text in texts(row):
            plain = text.replace("\n\nHuman: ", "").replace("\n\nAssistant: ", "")
            assert plain == " ".join(plain.split())


@pytest.mark.parametrize(("configs", "pinned"), [(CONFIGS, LANGUAGE_DIGEST), (SAMPLES, SAMPLES_DIGEST)])
def test_rows_are_pinned_and_independent_of_the_hash_seed(
    tmp_path: Path, configs: list[dict[str, Any]], pinned: str
) -> None:
    script = (
        "import hashlib, json\n"
        "from ablate.pocket.stage import read_config, rows\n"
        f"configs = {configs!r}\n"
        "hasher = hashlib.sha256()\n"
        "for config in configs:\n"
        "    for row in rows(read_config({**config, 'n': 20, 'seed': 3})):\n"
        "        hasher.update(json.dumps(row).encode())\n"
        "print(hasher.hexdigest())\n"
    )
    for seed in ("0", "77"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert done.stdout.strip() == pinned


def test_rows_depend_on_their_index_and_seed_alone() -> None:
    for config in [*CONFIGS, *SAMPLES]:
        if config["what"] not in ("items", "pairs"):
            assert made(**{**config, "n": 5}) == made(**{**config, "n": 9})[:5]
        assert made(**{**config, "n": 5}) != made(**{**config, "n": 5, "seed": 1})


def test_forty_percent_of_the_corpus_are_questions() -> None:
    share = sum(row["text"].startswith("question : ") for row in made(what="corpus", n=4000)) / 4000
    assert abs(share - 0.4) < 0.03


def test_the_corpus_uses_every_word() -> None:
    seen = {word for row in made(what="corpus", n=30_000) for word in row["text"].split()}
    assert seen == set(vocabulary()), "a tokenizer made from the corpus must know every word"


def test_hh_rows_share_all_but_the_last_turn() -> None:
    dialogues = 0
    for row in made(what="preferences", name="hh", n=300):
        assert set(row) == {"chosen", "rejected"}
        prompts = [text.rpartition("\n\nAssistant: ")[0] for text in (row["chosen"], row["rejected"])]
        assert prompts[0] == prompts[1]
        assert prompts[0].startswith("\n\nHuman: ")
        assert row["chosen"] != row["rejected"]
        dialogues += prompts[0].count("\n\nHuman: ") == 2
    assert 45 <= dialogues <= 105


def test_uf_rows_have_the_schema_of_ultrafeedback() -> None:
    ratings: Counter[str] = Counter()
    for row in made(what="preferences", name="uf", n=300):
        assert set(row) == {"source", "instruction", "models", "completions", "correct_answers", "incorrect_answers"}
        assert [completion["model"] for completion in row["completions"]] == row["models"]
        assert len(set(row["models"])) == 4
        for completion in row["completions"]:
            known = [aspect["Rating"] for aspect in completion["annotations"].values()]
            assert set(completion["annotations"]) == {
                "helpfulness", "honesty", "instruction_following", "truthfulness",
            }  # fmt: skip
            ratings.update(known)
            assert 1.0 < completion["overall_score"] <= 10.0, "an overall score of 1 is recorded as 10"
            numbers = [int(rating) for rating in known if rating != "N/A"]
            assert completion["fine-grained_score"] == pytest.approx(sum(numbers) / len(numbers))
    assert set(ratings) == {"1", "2", "3", "4", "5", "N/A"}
    assert 0.01 < ratings["N/A"] / ratings.total() < 0.03


def test_nectar_rows_rank_seven_answers() -> None:
    for row in made(what="preferences", name="nectar", n=100):
        assert row["prompt"].startswith("\n\nHuman: ") and row["prompt"].endswith("\n\nAssistant: ")
        assert sorted(answer["rank"] for answer in row["answers"]) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
        assert len({answer["model"] for answer in row["answers"]}) == row["num_responses"] == 7


def test_shp_labels_follow_the_votes() -> None:
    for row in made(what="preferences", name="shp", n=300):
        assert row["labels"] == int(row["score_A"] > row["score_B"])
        assert row["score_A"] != row["score_B"]
        assert row["score_ratio"] >= 1.0
        assert abs(row["created_at_utc_A"] - row["created_at_utc_B"]) == row["seconds_difference"]
        assert "refuse" not in row["domain"] and not row["domain"].startswith("asksafety")


@pytest.mark.parametrize("name", NOISE_LEVELS)
def test_the_noise_family_differs_in_its_labels_alone(name: str) -> None:
    count = 1500
    clean = made(what="preferences", name="noise-00", n=count)
    noisy = made(what="preferences", name=name, n=count)
    flipped = [left != right for left, right in zip(clean, noisy, strict=True)]
    for left, right, flip in zip(clean, noisy, flipped, strict=True):
        if flip:
            assert (left["chosen"], left["rejected"]) == (right["rejected"], right["chosen"])
    assert sum(flipped) / count == pytest.approx(NOISE_LEVELS[name], abs=0.04)
    worst = made(what="preferences", name="noise-40", n=count)
    assert all(left != right for flip, left, right in zip(flipped, clean, worst, strict=True) if flip), (
        "flips are nested"
    )
    assert noisy == list(islice(preference_rows("noise", 0, "train", NOISE_LEVELS[name]), count))


def test_clean_pairs_are_clean() -> None:
    for skill in SKILLS.values():
        draw = Draw("clean", skill.name)
        for _ in range(100):
            item = draw_item(skill, "test", draw)
            better, worse = clean_pair(item, draw)
            assert gold_reward(item, better) >= gold_reward(item, worse) + 0.25


def test_items_and_pairs_come_in_equal_numbers() -> None:
    for what in ("items", "pairs"):
        made_rows = made(what=what, name="all", n=300, split="test")
        assert Counter(row.get("skill", row.get("subset")) for row in made_rows) == dict.fromkeys(SKILLS, 300)
        assert len({row["id"] for row in made_rows}) == 2100
    assert [row["skill"] for row in made(what="items", name="truth", n=3, split="test")] == ["truth"] * 3
    assert made(what="items", n=2, split="test") == made(what="items", name="all", n=2, split="test")


def test_the_stage_writes_rows_and_manifest(tmp_path: Path) -> None:
    config = {"what": "preferences", "name": "noise-25", "n": 40, "seed": 5, "split": "train", "noise": None}
    first, second = context(tmp_path / "a", config), context(tmp_path / "b", config)
    assert run(first) == run(second)
    manifest = json.loads((first.output / "manifest.json").read_text())
    assert (manifest["rows"], manifest["schema"], manifest["noise"]) == (40, "hh_rlhf", 0.25)
    written = (first.output / manifest["file"]).read_bytes()
    assert written == (second.output / "data" / "train.jsonl").read_bytes()
    assert [json.loads(line) for line in written.splitlines()] == made(**config)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"what": "corpse", "n": 1}, UnknownNameError, "corpus"),
        ({"what": "corpus"}, UsageError, "config of a pocket stage: n: 'n' is required"),
        ({"what": "corpus", "n": 0}, UsageError, "greater than 0"),
        ({"what": "corpus", "n": 1, "splt": "train"}, UsageError, "splt: unknown key 'splt'\n  did you mean 'split'"),
        ({"what": "corpus", "n": 1, "name": "uf"}, UsageError, "no name"),
        ({"what": "corpus", "n": 1, "split": "test"}, UsageError, "train"),
        ({"what": "items", "n": 1, "split": "dev"}, UnknownNameError, "validation"),
        ({"what": "items", "name": "maths", "n": 1}, UnknownNameError, "arithmetic"),
        ({"what": "preferences", "n": 1}, UnknownNameError, "nectar"),
        ({"what": "preferences", "name": "uff", "n": 1}, UnknownNameError, "did you mean 'uf'"),
        ({"what": "preferences", "name": "uf", "n": 1, "noise": 0.2}, UsageError, "name: noise"),
        ({"what": "preferences", "name": "noise", "n": 1, "noise": 2}, UsageError, "noise"),
        (
            {"what": "corpus", "n": 1, "curtness": 0.5},
            UsageError,
            "curtness is read by instructions alone, not by corpus",
        ),
        ({"what": "instructions", "n": 1, "curtness": 2}, UsageError, "curtness"),
    ],
)
def test_wrong_configs_are_named(config: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_config(config)


def test_too_many_items_are_refused() -> None:
    with pytest.raises(UsageError, match="distinct items of facts"):
        made(what="items", name="facts", n=5000, split="test")
