"""The stage of online methods on folders: what it leaves, how it goes on after a kill, and its pairs as a set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.context import EventLog, Resources, StageContext
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.data.stage import run as make_set
from ablate.data.tokenise import run as tokenise
from ablate.models.loading import load_policy, load_reward_model, load_tokenizer, save_model
from ablate.training.collate import PairTokens
from ablate.training.logprobs import run as reference_pass
from ablate.training.online import run
from ablate.training.preference import run as offline
from tests.training.tiny import kill_after_a_checkpoint

ROUNDS = {"gold_every": 16, "gold_labels": 4, "discriminator": "sft"}


@pytest.fixture
def inputs(policy_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """The inputs of a stage: a policy that is its own reference, a reward model, twenty prompts as tokens and text."""
    tokenizer = load_tokenizer(policy_folder)
    save_model(load_reward_model(policy_folder, head_seed=3), tokenizer, tmp_path / "reward_model")
    texts = [f"w{index} w{index + 1}" for index in range(20)]
    rows = [
        {"id": f"p{row}", "prompt": [{"role": "user", "content": text}], "source": "s"}
        for row, text in enumerate(texts)
    ]
    write_json_lines(tmp_path / "prompts.jsonl", rows)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    pq.write_table(pa.table({"id": [row["id"] for row in rows], "prompt_ids": ids}), tmp_path / "tokens.parquet")
    return {
        "policy": policy_folder,
        "reference": policy_folder,
        "reward_model": tmp_path / "reward_model",
        "prompts": tmp_path / "tokens.parquet",
        "prompt_texts": tmp_path / "prompts.jsonl",
    }


def context(
    inputs: dict[str, Path], folder: Path, algorithm: str, previous: tuple[Path, ...] = (), **changes: Any
) -> StageContext:
    for name in ("output", "work"):
        (folder / name).mkdir(parents=True)
    values = {
        "learning_rate": 1e-3,
        "prompts_per_step": 8,
        "mini_batch_size": 4,
        "max_response_length": 24,
        "missing_eos_reward": None,
        "steps": 4,
        **changes,
    }
    return StageContext(
        kind="train",
        config={"algorithm": algorithm, "parameters": values, "seed": 3},
        inputs=inputs,
        output=folder / "output",
        work=folder / "work",
        events=EventLog(folder / "events.jsonl"),
        previous_work=previous,
        resources=Resources(threads=1),
    )


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("online_dpo", {"loss": "ipo"}), ("online_dpo", {"lora_rank": 4, "win_rate_every": 2}), ("d2po", ROUNDS)],
)
def test_the_stage_leaves_model_history_samples_and_pairs(
    algorithm: str, options: dict[str, Any], inputs: dict[str, Path], tmp_path: Path
) -> None:
    made = context(inputs, tmp_path / "run", algorithm, **options)
    summary = run(made)
    history = read_json_lines(made.output / "history.jsonl")
    assert [record["step"] for record in history] == [1, 2, 3, 4]
    logged = {"loss", "kl", "entropy", "score", "response_length", "pairs", "ties", "labels", "samples"}
    logged |= {"rewards/accuracy", "rewards/margin", "policy_grad_norm", "learning_rate", "missing_eos"}
    assert logged <= set(history[0])
    assert history[0]["kl"] == 0.0 and history[-1]["samples"] == 4 * 16
    rounds = [record["step"] for record in history if "discriminator_accuracy" in record]
    assert rounds == ([] if algorithm == "online_dpo" else [1, 3])
    measured = {record["step"]: record["win_rate"] for record in history if "win_rate" in record}
    assert list(measured) == ([1, 3] if "win_rate_every" in options else [])
    assert all(0.2 < rate < 0.8 for rate in measured.values())  # of a reward model that learnt nothing
    pairs = read_json_lines(made.output / "pairs.jsonl")
    assert len(pairs) == summary["pairs"] == sum(record["pairs"] for record in history)
    assert [row["step"] for row in pairs] == sorted(row["step"] for row in pairs)
    assert all(row["chosen_score"] > row["rejected_score"] and row["source"] == algorithm for row in pairs)
    assert {row["prompt"][0]["content"] for row in pairs} <= {f"w{index} w{index + 1}" for index in range(20)}
    assert not any("<" in row[side][0]["content"] for row in pairs for side in ("chosen", "rejected"))
    load_policy(made.output / "model")


@pytest.mark.parametrize(
    ("algorithm", "annotator", "responses", "labels"),
    [
        ("online_dpo", None, 3, [0, 0]),
        ("online_dpo", "nouns", 2, [8, 16]),
        ("online_dpo", "nouns", 3, [16, 32]),
        ("d2po", None, 2, [0, 0]),
        ("d2po", "nouns", 2, [4, 4]),
    ],
)
def test_what_a_reward_model_says_costs_no_label(
    algorithm: str, annotator: str | None, responses: int, labels: list[int], inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Its labels were spent on its own training, as for PPO; a formula is asked for comparisons."""
    rounds = ROUNDS if algorithm == "d2po" else {}
    made = context(inputs, tmp_path / "run", algorithm, responses_per_prompt=responses, steps=2, **rounds)
    run(made if annotator is None else replace(made, config={**made.config, "annotator": annotator}))
    history = read_json_lines(made.output / "history.jsonl")
    assert [record["labels"] for record in history] == labels
    if algorithm == "d2po":
        assert [(record["gold_labels"], record["silver_labels"]) for record in history] == [(4, 8), (4, 16)]


def test_the_pairs_are_a_set_that_an_offline_run_learns_from(
    inputs: dict[str, Path], make_context: Callable[..., StageContext], tmp_path: Path
) -> None:
    """Online run, rows, tokens, reference pass, DPO: what did not end is left out, and the kept order arrives."""
    online = context(inputs, tmp_path / "run", "online_dpo", steps=6)
    run(online)
    pairs = read_json_lines(online.output / "pairs.jsonl")
    unfinished = [row for row in pairs if not row["finished"]]
    assert unfinished and len(unfinished) < len(pairs)

    config = {"format": "preference", "converter": "online_pairs", "converter_options": {}, "files": {}, "split": None}
    config |= {"max_examples": None, "pairing": {"policy": "best-vs-random"}, "order": "kept"}
    made = make_context("set", config, {"source": online.output / "pairs.jsonl"})
    report = make_set(made)
    assert report["dropped"]["unfinished-response"] == len(unfinished)
    assert report["in"] == len(pairs) == report["kept"] + sum(report["dropped"].values())
    kept = read_json_lines(made.output / "pairs.jsonl")
    wanted = [row for row in pairs if row["finished"] and row["chosen"][0]["content"] and row["rejected"][0]["content"]]
    columns = ("prompt", "chosen", "rejected", "chosen_score", "rejected_score", "margin", "source")
    assert [{name: row[name] for name in columns} for row in kept] == [
        {name: row[name] for name in columns} for row in wanted
    ]

    tokens = make_context(
        "tokens",
        {"format": "pairs", "max_length": 100, "truncation": "drop", "order": "kept"},
        {"data": made.output / "pairs.jsonl", "tokenizer": inputs["policy"]},
    )
    tokenise(tokens)
    data = tokens.output / "tokens.parquet"
    read = PairTokens.read(data)
    assert read.kept_order and read.ids == [row["id"] for row in kept]
    logprobs = make_context("logprobs", {"dtype": "float32"}, {"model": inputs["policy"], "data": data})
    reference_pass(logprobs)
    trained = make_context(
        "offline",
        {"algorithm": "dpo", "parameters": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}, "seed": 0},
        {"policy": inputs["policy"], "data": data, "reference_logprobs": logprobs.output / "logprobs.parquet"},
    )
    assert offline(trained)["pairs"] == len(kept)


@pytest.mark.slow
def test_a_killed_process_is_continued_to_the_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    options = {**ROUNDS, "steps": 16, "gold_memory": "all", "label_budget": 11}
    unbroken = context(inputs, tmp_path / "unbroken", "d2po", **options)
    run(unbroken)
    killed = context(inputs, tmp_path / "killed", "d2po", **options)
    kill_after_a_checkpoint("ablate.training.online:run", killed, inputs)
    resumed = context(inputs, tmp_path / "resumed", "d2po", (killed.work,), **options)
    run(resumed)
    for name in ("model/model.safetensors", "history.jsonl", "samples.jsonl", "pairs.jsonl"):
        assert (resumed.output / name).read_bytes() == (unbroken.output / name).read_bytes(), name
