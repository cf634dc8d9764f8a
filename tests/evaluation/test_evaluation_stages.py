"""Stages end to end on disk: generate, score, select, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ablate.catalogs.suites import load_suites
from ablate.data.json_lines import read_json_lines
from ablate.errors import DataError, StageError
from ablate.evaluation import evaluate, generate, policy, select
from ablate.evaluation.items import Response, read_items, read_responses
from ablate.evaluation.select import select_best, selection_report
from ablate.pocket import stage as pocket
from ablate.pocket.vocabulary import NOUNS
from ablate.rewards import implicit
from ablate.rewards import stage as score
from ablate.shipped import shipped_folder

Run = Callable[..., Path]
DECODING = {"temperature": 0.0, "top_p": 1.0, "samples": 1, "max_new_tokens": 6, "stop": [], "seed": 0}


def generation(**changes: Any) -> dict[str, Any]:
    config = {
        "engine": "items", "files": {}, "prompts": {"name": "pocket", "options": {}}, "chat": True, "limit": 2,
        "sample_seed": 0, "decoding": DECODING,
    }  # fmt: skip
    return {**config, **changes}


@pytest.fixture
def items(run_stage: Run) -> Path:
    config = {"what": "items", "name": "all", "n": 4, "split": "test", "seed": 0}
    return run_stage("items", pocket.run, config, {}) / "data"


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def test_a_suite_runs_from_items_to_metrics(
    run_stage: Run, items: Path, pocket_policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {"policy": pocket_policy, "items": items}
    made = run_stage("generate", generate.run, generation(), inputs)
    assert len(read_items(made)) == len(read_responses(made)) == 14
    monkeypatch.setattr(policy, "SAMPLE_TOKENS", 1)
    again = run_stage("again", generate.run, generation(), inputs)
    assert (again / "responses.jsonl").read_bytes() == (made / "responses.jsonl").read_bytes()
    for name in ("pocket-gold", "pocket-reasoning"):
        suite = load_suites([shipped_folder("evals")])[name]
        graded = run_stage(name, evaluate.run, suite.grading_config(), {"responses": made})
        report = metrics(graded)
        examples = pq.read_table(graded / "examples.parquet").to_pylist()
        primary = [row["value"] for row in examples if row["metric"] == suite.primary]
        assert report["score"] == pytest.approx(sum(primary) / len(primary))
        assert report["health"]["n"] == len(primary) == (14 if name == "pocket-gold" else 2)
        assert report["protocol"]["made"]["decoding"]["max_new_tokens"] == 6
        assert report["health"]["truncated"] + 0 == report["health"]["no_eos"]


def test_a_closed_form_grades_the_responses_that_the_other_pocket_suites_read(
    run_stage: Run, items: Path, pocket_policy: Path
) -> None:
    suites = load_suites([shipped_folder("evals")])
    suite = suites["pocket-nouns"]
    assert suite.generation_config() == suites["pocket-gold"].generation_config()
    made = run_stage("generate", generate.run, generation(), {"policy": pocket_policy, "items": items})
    graded = run_stage("nouns", evaluate.run, suite.grading_config(), {"responses": made})
    expected = [float(sum(word in NOUNS for word in row.response.split())) for row in read_responses(made)]
    examples = pq.read_table(graded / "examples.parquet").to_pylist()
    assert [row["value"] for row in examples] == expected and len(set(expected)) > 1
    assert {row["metric"] for row in examples} == {"nouns"}
    report = metrics(graded)
    assert report["score"] == pytest.approx(sum(expected) / 14)
    assert {row["unit"] for row in report["metrics"]} == {suite.unit} == {"count"}


def test_best_of_n_picks_the_best_scored_sample(
    run_stage: Run, items: Path, pocket_policy: Path, reward_folder: Path
) -> None:
    decoding = {**DECODING, "temperature": 0.7, "samples": 4}
    made = run_stage("generate", generate.run, generation(decoding=decoding), {"policy": pocket_policy, "items": items})
    assert len({row.response for row in read_responses(made)}) > 14
    inputs = {"reward_model": reward_folder, "responses": made / "responses.jsonl"}
    scored = run_stage("score", score.run, {"what": "responses"}, inputs)
    scores = {(row["id"], row["sample"]): row["score"] for row in read_json_lines(scored / "scores.jsonl")}
    selection = {"responses": made / "responses.jsonl", "scores": scored / "scores.jsonl"}
    picked = run_stage("select", select.run, {"rule": "best", "seed": 0}, selection)
    for row in read_responses(picked):
        assert scores[row.id, row.sample] == max(scores[row.id, sample] for sample in range(4))
    suite = load_suites([shipped_folder("evals")])["best-of-16"]
    graded = run_stage("evaluate", evaluate.run, suite.grading_config(), {"responses": picked, "candidates": made})
    assert metrics(graded)["health"]["n"] == 14
    assert metrics(graded)["protocol"]["selected"] == {"rule": "best", "seed": 0}
    alone = run_stage("all", evaluate.run, suite.grading_config(), {"responses": made})
    rows = pq.read_table(alone / "examples.parquet").to_pylist()
    gold: dict[str, list[float]] = {}
    for row in rows:
        if row["metric"] == "gold":
            gold.setdefault(row["example"], []).append(row["value"])
    assert {len(values) for values in gold.values()} == {4}
    found = {row["metric"]: row for row in metrics(graded)["metrics"] if row["task"] == "overall"}
    assert set(found) == set(suite.metrics or ())
    assert found["random"]["value"] == pytest.approx(sum(sum(values) / 4 for values in gold.values()) / 14)
    assert found["oracle"]["value"] == pytest.approx(sum(max(values) for values in gold.values()) / 14)
    assert found["oracle"]["unit"] == found["gold"]["unit"] == "reward"
    assert found["oracle"]["value"] >= found["gold"]["value"]


def test_pairs_are_scored_by_the_model(run_stage: Run, reward_folder: Path) -> None:
    config = {"what": "pairs", "name": "all", "n": 3, "split": "test", "seed": 0}
    folder = run_stage("pairs", pocket.run, config, {}) / "data"
    suite = load_suites([shipped_folder("evals")])["pocket-pairs"]
    inputs = {"reward_model": reward_folder, "items": folder}
    scored = run_stage("score", score.run, suite.score_config(), inputs)
    graded = run_stage("evaluate", evaluate.run, suite.grading_config(), {"scores": scored / "scores.jsonl"})
    names = {(row["task"], row["metric"]) for row in metrics(graded)["metrics"]}
    assert {("overall", name) for name in ("accuracy", "random", "longest", "shortest")} <= names
    assert {task for task, _ in names} >= {"overall", "facts", "safety"}


def test_a_policy_classifies_pairs_by_its_implicit_reward(run_stage: Run, pocket_policy: Path, tmp_path: Path) -> None:
    """Of the same policy with and without its reference; a baseline has none, which is no score of 0."""
    from ablate.models.loading import load_policy, load_tokenizer, save_model

    reference = load_policy(pocket_policy)
    reference.lm_head.weight.data.mul_(0.9)
    save_model(reference, load_tokenizer(pocket_policy), tmp_path / "reference")
    pairs = run_stage("pairs", pocket.run, {"what": "pairs", "name": "all", "n": 3, "split": "test", "seed": 0}, {})
    suites = load_suites([shipped_folder("evals")])
    suite, alone = suites["pocket-pairs-implicit"], suites["pocket-pairs-likelihood"]
    assert suite.likelihoods_config() == alone.likelihoods_config(), "one pass serves both"
    made = {
        name: run_stage(name, implicit.run, suite.likelihoods_config(), {"policy": folder, "items": pairs / "data"})
        for name, folder in {"own": pocket_policy, "others": tmp_path / "reference"}.items()
    }
    both = {"likelihoods": made["own"], "reference_likelihoods": made["others"]}
    graded = run_stage("with", evaluate.run, suite.grading_config(), both)
    names = {(row["task"], row["metric"]) for row in metrics(graded)["metrics"]}
    assert {("overall", name) for name in ("accuracy", "random", "longest", "shortest")} <= names
    assert {task for task, _ in names} >= {"overall", "facts", "safety"}
    rows = {name: read_json_lines(folder / "likelihoods.jsonl") for name, folder in made.items()}
    won = [
        own["chosen"]["logprob"] - other["chosen"]["logprob"]
        > own["rejected"]["logprob"] - other["rejected"]["logprob"]
        for own, other in zip(rows["own"], rows["others"], strict=True)
    ]
    assert metrics(graded)["score"] == pytest.approx(sum(won) / 21)
    found = run_stage("without", evaluate.run, alone.grading_config(), {"likelihoods": made["own"]})
    likelier = [
        row["chosen"]["logprob"] / row["chosen"]["tokens"] > row["rejected"]["logprob"] / row["rejected"]["tokens"]
        for row in rows["own"]
    ]
    assert metrics(found)["score"] == pytest.approx(sum(likelier) / 21)
    baseline = metrics(run_stage("baseline", evaluate.run, suite.grading_config(), {"likelihoods": made["own"]}))
    assert (baseline["score"], baseline["metrics"]) == (None, [])
    assert "no reference" in baseline["health"]["reason"]
    lines = (made["others"] / "likelihoods.jsonl").read_text().splitlines(keepends=True)
    (made["others"] / "likelihoods.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(StageError, match="1 pairs have no likelihoods under the reference"):
        run_stage("torn", evaluate.run, suite.grading_config(), both)


def test_ties_are_broken_by_the_seed_and_unscored_responses_are_last() -> None:
    rows = [Response("a", "t", sample, "", str(sample), "eos", 1) for sample in range(3)]
    rows += [Response("b", "t", sample, "", "", "eos", 1) for sample in range(2)]
    scores = {("a", 0): None, ("a", 1): 1.0, ("a", 2): 1.0, ("b", 0): None, ("b", 1): None}
    picks = {select_best(rows, scores, seed=seed)[0].sample for seed in range(20)}
    assert picks == {1, 2}
    assert select_best(rows, scores, seed=3) == select_best(rows, scores, seed=3)
    report = selection_report(rows, scores, select_best(rows, scores, seed=0))
    assert (report["unscored"], report["unscored_picks"], report["mean_score"]) == (3, 1, 1.0)
    with pytest.raises(StageError, match="1 responses were not scored, the first is sample 1 of b"):
        select_best(rows, {key: value for key, value in scores.items() if key != ("b", 1)}, seed=0)


def test_a_prompt_that_does_not_fit_is_wrong_and_counted(run_stage: Run, byte_policy: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    rows = [{"question": "x" * size, "answer": "#### 5"} for size in (20, 2000)]
    (root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    import hashlib

    digest = hashlib.sha256((root / "test.jsonl").read_bytes()).hexdigest()
    config = generation(files={"test.jsonl": digest}, prompts={"name": "gsm8k", "options": {"shots": 0}}, limit=None)
    made = run_stage("generate", generate.run, config, {"policy": byte_policy}, root)
    assert [row.finish == "too_long" for row in read_responses(made)] == [False, True]
    grading = {"grader": "gsm8k", "options": {}, "primary": "exact_match", "unit": "proportion"}
    report = metrics(run_stage("evaluate", evaluate.run, grading, {"responses": made}))
    assert (report["health"]["n"], report["health"]["too_long"]) == (2, 1)
    (root / "test.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="sha256"):
        run_stage("changed", generate.run, config, {"policy": byte_policy}, root)


def test_the_stages_say_what_is_missing(run_stage: Run, pocket_policy: Path, items: Path) -> None:
    with pytest.raises(StageError, match="data files or an input 'items'"):
        run_stage("one", generate.run, generation(), {"policy": pocket_policy})
    with pytest.raises(StageError, match="unknown engine 'item'"):
        run_stage("two", generate.run, generation(engine="item"), {"policy": pocket_policy, "items": items})
    with pytest.raises(StageError, match="responses, likelihoods or scores"):
        run_stage("three", evaluate.run, {"grader": "gsm8k"}, {})
    with pytest.raises(StageError, match="reward_model"):
        run_stage("four", score.run, {"what": "responses"}, {})
