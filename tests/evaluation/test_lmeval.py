"""lm-eval as an engine: what was captured, replayed without a model, gives what lm-eval gives with the model."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.evaluation import evaluate, generate
from ablate.evaluation.items import read_likelihoods, read_responses

Run = Callable[..., Path]

QUESTIONS: list[dict[str, Any]] = [
    {
        "question": f"Which of these is number {n}?",
        "mc1_targets": {f"It is {n}.": 1, f"It is {n + 1}.": 0, "Nobody knows": 0},
        "mc2_targets": {f"It is {n}.": 1, f"Number {n}": 1, f"It is {n + 1}.": 0, "Nobody knows": 0},
    }
    for n in range(5)
]
PROMPTS: list[dict[str, Any]] = [
    {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    {
        "key": 2,
        "prompt": "Two sentences, and the word sea.",
        "instruction_id_list": ["length_constraints:number_sentences", "keywords:existence"],
        "kwargs": [{"num_sentences": 2, "relation": "at least"}, {"keywords": ["sea"]}],
    },
]
MC_TASKS = [{"include": f"truthfulqa/truthfulqa_{name}.yaml", "overrides": {}} for name in ("mc1", "mc2")]
MC = {"rows": "truthfulqa-mc", "tasks": MC_TASKS}
IFEVAL = {"rows": "as-is", "tasks": [{"include": "ifeval/ifeval.yaml", "overrides": {}}]}
DECODING = {"temperature": 0.0, "top_p": 1.0, "samples": 1, "max_new_tokens": 8, "stop": [], "seed": 0}


def write_data(folder: Path, name: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name).write_text(text, encoding="utf-8")
    return {name: hashlib.sha256(text.encode()).hexdigest()}


def config(files: dict[str, str], options: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    return {
        "engine": "lm-eval", "files": files, "prompts": {"name": "lm-eval", "options": options}, "chat": chat,
        "limit": None, "sample_seed": 0, "decoding": DECODING,
    }  # fmt: skip


def generated(run_stage: Run, policy: Path, root: Path, made: dict[str, Any]) -> Path:
    return run_stage("generate", generate.run, made, {"policy": policy}, root)


def grading(primary: str) -> dict[str, Any]:
    return {"grader": "lm-eval", "options": {"sentences": "regex"}, "primary": primary, "unit": "proportion"}


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def test_replayed_grades_equal_lm_eval_with_the_model(run_stage: Run, byte_policy: Path, tmp_path: Path) -> None:
    import lm_eval.evaluator
    from lm_eval.models.huggingface import HFLM

    from ablate.evaluation.items import read_items
    from ablate.evaluation.lmeval import load_tasks
    from ablate.models.loading import load_policy, load_tokenizer

    short = {"doc_to_text": "Q: {{question}}\nA:"}
    options = {**MC, "tasks": [{**task, "overrides": short} for task in MC_TASKS]}
    files = write_data(tmp_path / "data", "mc.json", QUESTIONS)
    made = run_stage(
        "generate", generate.run, config(files, options, chat=False), {"policy": byte_policy}, tmp_path / "data"
    )
    graded = report(run_stage("evaluate", evaluate.run, grading("truthfulqa_mc2/acc"), {"responses": made}))

    tasks = load_tasks(read_items(made), options, tmp_path)
    oracle = HFLM(pretrained=load_policy(byte_policy), tokenizer=load_tokenizer(byte_policy), device="cpu")
    expected = lm_eval.evaluator.evaluate(lm=oracle, task_dict=tasks, bootstrap_iters=0)["results"]
    ours = {row["task"]: row["value"] for row in graded["metrics"]}
    for task in ("truthfulqa_mc1", "truthfulqa_mc2"):
        assert ours[task] == pytest.approx(expected[task]["acc,none"], abs=1e-5)
    assert graded["score"] == ours["truthfulqa_mc2"]
    assert graded["protocol"]["lm_eval"] == lm_eval.__version__


def test_chat_puts_the_question_in_a_user_turn_and_the_prefix_in_the_assistants(
    run_stage: Run, byte_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablate.evaluation.policy import Policy

    seen: list[tuple[str, str]] = []
    ask = Policy.loglikelihoods
    monkeypatch.setattr(
        Policy, "loglikelihoods", lambda self, requests, **rest: seen.extend(requests) or ask(self, requests, **rest)
    )
    own = {"doc_to_text": "Q: {{question}}", "gen_prefix": "A:"}
    options = {**MC, "tasks": [{**MC_TASKS[0], "overrides": own}]}
    files = write_data(tmp_path / "data", "mc.json", QUESTIONS[:1])
    generated(run_stage, byte_policy, tmp_path / "data", config(files, options, chat=True))
    assert seen[0] == ("<|user|>\nQ: Which of these is number 0?\n<|assistant|>\nA:", " It is 0.")


def test_a_question_that_does_not_fit_is_wrong(run_stage: Run, byte_policy: Path, tmp_path: Path) -> None:
    # The first choice of MC1 is the true one: equal placeholders must not make it the answer.
    rows = [QUESTIONS[0], {**QUESTIONS[1], "question": "long " * 200}]
    files = write_data(tmp_path / "data", "mc.json", rows)
    options = {**MC, "tasks": [{**task, "overrides": {"doc_to_text": "{{question}}"}} for task in MC_TASKS]}
    made = run_stage(
        "generate", generate.run, config(files, options, chat=False), {"policy": byte_policy}, tmp_path / "data"
    )
    assert [row.logprobs is None for row in read_likelihoods(made)] == [False, True] * 2
    graded = report(run_stage("evaluate", evaluate.run, grading("truthfulqa_mc1/acc"), {"responses": made}))
    assert graded["health"]["too_long"] == 2
    assert {row["n"] for row in graded["metrics"]} == {2}
    assert all(row["value"] <= 0.5 for row in graded["metrics"])


def test_ifeval_is_graded_from_responses_with_the_named_splitter(
    run_stage: Run, byte_policy: Path, tmp_path: Path
) -> None:
    import nltk

    files = write_data(tmp_path / "data", "input.jsonl", PROMPTS)
    made = run_stage(
        "generate", generate.run, config(files, IFEVAL, chat=True), {"policy": byte_policy}, tmp_path / "data"
    )
    said = ["no commas here", "The sea is wide. It is blue."]
    rows = [json.loads(line) for line in (made / "responses.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [{**row, "response": text} for row, text in zip(rows, said, strict=True)]
    (made / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    before = nltk.word_tokenize
    graded = report(run_stage("evaluate", evaluate.run, grading("ifeval/prompt_level_loose_acc"), {"responses": made}))
    assert nltk.word_tokenize is before
    assert {row["metric"]: row["value"] for row in graded["metrics"]} == {
        "prompt_level_strict_acc": 1.0,
        "inst_level_strict_acc": 1.0,
        "prompt_level_loose_acc": 1.0,
        "inst_level_loose_acc": 1.0,
    }
    assert "substitute" in graded["protocol"]["sentences"]
    assert len(read_responses(made)) == 2


def test_nothing_is_written_outside_the_stage(byte_policy: Path, tmp_path: Path) -> None:
    """A fresh process with a home and a working folder of its own leaves both empty."""
    files = write_data(tmp_path / "data", "input.jsonl", PROMPTS)
    for name in ("home", "cwd", "output", "work"):
        (tmp_path / name).mkdir()
    program = f"""
from pathlib import Path
from ablate.context import EventLog, StageContext
from ablate.evaluation import generate
root = Path({str(tmp_path)!r})
generate.run(StageContext("generate", {config(files, IFEVAL, chat=True)!r}, {{"policy": Path({str(byte_policy)!r})}},
    root / "output", root / "work", EventLog(root / "events.jsonl"), {{"root": str(root / "data")}}))
"""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))},
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(generate.__file__).parents[2]),
    }
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path / "cwd", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "punkt" not in done.stdout
    assert not list((tmp_path / "home").rglob("*")) + list((tmp_path / "cwd").rglob("*"))
    assert (tmp_path / "output" / "responses.jsonl").is_file()
