"""Size of a report's page and time until it is open, beside a page that keeps every example.

    python benchmarks/page.py [--cells 300] [--suites 8] [--examples 300]

A store is written as stages write it: cells with training curves, suites with graded responses of about 400 letters.
Prints for ``ours`` (sampled examples) and ``naive`` (all of them, uncut): seconds to write the page, its MB, and
seconds until headless Chromium has it open, which is the time to print its document less that for an empty one (the
best of three; null above 50 MB). Goals for 300 cells: at most 10 MB, open in at most 2 s.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ablate.results.page import examples
from ablate.results.report import render_page
from ablate.store import Store

LARGEST = 50_000_000
"""Bytes of a page above which it is not opened: it takes minutes."""

WORDS = ("model", "answers", "the", "question", "of", "a", "user", "with", "words", "it", "has", "read", "before")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--suites", type=int, default=8)
    parser.add_argument("--examples", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store").open()
        write_store(store, options.cells, options.suites, options.examples)
        facts: dict[str, Any] = vars(options) | {"ours": measure(store, Path(folder) / "ours")}
        examples.MOST, examples.LETTERS, examples.LONGEST_RESPONSE = options.examples, 10**12, 10**6
        facts["naive"] = measure(store, Path(folder) / "naive")
    print(json.dumps(facts))


def measure(store: Store, out: Path) -> dict[str, float | None]:
    begun = time.perf_counter()
    (page,) = render_page(store, "large", None, out).files
    written = time.perf_counter() - begun
    blank = out / "blank.html"
    blank.write_text("<!doctype html><title>empty</title>")
    opened = None
    if shutil.which("chromium") and page.stat().st_size < LARGEST:
        opened = round(min(dumped(page) for _ in range(3)) - min(dumped(blank) for _ in range(3)), 2)
    return {"write_s": round(written, 1), "mb": round(page.stat().st_size / 1e6, 2), "open_s": opened}


def dumped(page: Path) -> float:
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=True)
    assert b'data-ready="true"' in done.stdout or page.name == "blank.html"
    return time.perf_counter() - begun


def write_store(store: Store, cells: int, suites: int, count: int) -> None:
    """Write an experiment ``large``: sets by seeds by two methods over an SFT baseline."""
    names = [f"suite-{index}" for index in range(suites)]
    chance = random.Random(0)
    subjects = []
    for cell in range(cells + 1):
        axes: dict[str, Any] = {
            "dataset": f"set {cell // 6}",
            "algorithm": ("dpo", "ppo")[cell // 3 % 2],
            "seed": cell % 3,
        }
        is_sft = cell == cells
        stages = {name: f"evaluate-{cell:08x}{index:04x}" for index, name in enumerate(names)}
        write_stage(store, f"train-{cell:08x}", "train", {"beta": 0.1, "seed": cell % 3}, {})
        records = [{"step": step, **{f"value{key}": chance.random() for key in range(12)}} for step in range(100)]
        history = "".join(json.dumps(record) + "\n" for record in records)
        store.stage(f"train-{cell:08x}").artifact("history.jsonl").write_text(history)
        items = [
            json.dumps({"id": f"{name}-{place}", "prompt": [{"role": "user", "content": text(chance, 40)}]})
            for name in names for place in range(count)
        ]  # fmt: skip
        write_stage(store, f"generate-{cell:08x}", "generate", {}, {"policy": f"train-{cell:08x}"})
        store.stage(f"generate-{cell:08x}").artifact("items.jsonl").write_text("\n".join(items) + "\n")
        for name, stage in stages.items():
            write_stage(store, stage, "evaluate", {"grader": "exact"}, {"responses": f"generate-{cell:08x}"})
            write_grades(store, stage, name, chance, count)
        subjects.append({
            "subject": "policy", "role": "baseline" if is_sft else "cell", "label": "sft" if is_sft else f"cell {cell}",
            "axes": dict.fromkeys(axes) if is_sft else axes, "stage": f"train-{cell:08x}", "evaluations": stages,
            "inputs": {},
        })  # fmt: skip
    about = {"subject": "policy", "primary": "accuracy", "unit": "proportion", "higher_is_better": True}
    plan = {
        "version": 1, "name": "large", "question": "How large?", "report": None, "subjects": subjects,
        "axes": ["dataset", "algorithm", "seed"],
        "suites": {name: {"title": name, "category": name} | about for name in names},
        "algorithms": {"dpo": "DPO", "ppo": "PPO"}, "datasets": {}, "data": [], "stages": {},
    }  # fmt: skip
    folder = store.experiment("large")
    folder.folder.mkdir()
    folder.plan_json.write_text(json.dumps(plan))


def text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def write_stage(store: Store, stage: str, kind: str, config: dict[str, Any], inputs: dict[str, str]) -> None:
    folder = store.stage(stage)
    folder.output.mkdir(parents=True)
    wired = {role: {"stage": other, "artifact": ""} for role, other in inputs.items()}
    written = {"id": stage, "kind": kind, "label": f"{kind} of {stage}", "config": config, "inputs": wired}
    folder.stage_json.write_text(json.dumps(written))
    folder.done_json.write_text(json.dumps({"stage": stage, "seconds": 2.5, "code": "0" * 16, "attempt": 1}))


def write_grades(store: Store, stage: str, suite: str, chance: random.Random, count: int) -> None:
    values = [float(chance.random() < 0.5) for _ in range(count)]
    score = sum(values) / count
    entry = {"task": "overall", "metric": "accuracy", "value": score, "n": count, "stderr": 0.01, "unit": "proportion"}
    health = {"n": count, "truncated": 0, "no_eos": 0, "empty": 0, "mean_length": 211.5, "extraction_failed": 3}
    result = {"score": score, "metrics": [entry], "health": health, "protocol": {"grader": "exact", "shots": 0}}
    store.stage(stage).artifact("metrics.json").write_text(json.dumps(result))
    columns: dict[str, Any] = {
        "example": [f"{suite}-{place}" for place in range(count)], "sample": [0] * count, "task": ["t"] * count,
        "metric": ["accuracy"] * count, "value": values, "cluster": pa.array([None] * count, pa.string()),
        "response": [text(chance, 80) for _ in range(count)],
    }  # fmt: skip
    pq.write_table(pa.table(columns), store.stage(stage).artifact("examples.parquet"))


if __name__ == "__main__":
    main()
