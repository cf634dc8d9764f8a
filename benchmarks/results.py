"""Time of an experiment's results: 10,000 cells with 12 metrics each are collected, kept, loaded again, and reported.

    python benchmarks/results.py [--cells 10000] [--suites 1]

A store is written as stages write it, ``--suites`` evaluate stages a cell that share the 12 metrics. Prints seconds of
the wall clock and of the processor: ``collect`` reads every stage, ``load_cold`` does so and keeps the long table,
``load_warm`` finds it kept (the best of three), ``load_after_one`` is after one stage was published anew; the ratio is
of processor seconds. ``table`` builds the default tables (1,000 rows of ten seeds), ``page`` writes them as a page.
Goal: ``load_warm`` at most 1 s.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ablate
from ablate.results.long import collect
from ablate.results.report import build_report, render_page
from ablate.store import Store

METRICS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--suites", type=int, default=1, choices=(1, 2, 3, 4, 6, 12))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store").open()
        write_store(store, options.cells, options.suites)
        facts: dict[str, Any] = {"cells": options.cells, "suites": options.suites}
        facts |= load(store) | report(store, Path(folder) / "report")
    print(json.dumps(facts))


def write_store(store: Store, cells: int, suites: int) -> None:
    """Write an experiment ``large``: a grid of two datasets, two methods, ten seeds and values of a parameter."""
    names = [f"suite-{index}" for index in range(suites)]
    subjects = []
    for cell in range(cells):
        axes = {
            "dataset": ("hh", "ultrafeedback")[cell % 2], "algorithm": ("dpo", "ppo")[cell // 2 % 2],
            "seed": cell // 4 % 10, "dpo.beta": round(0.01 + 0.001 * (cell // 40), 6),
        }  # fmt: skip
        stages = {name: f"evaluate-{cell:08x}{index:04x}" for index, name in enumerate(names)}
        for stage in stages.values():
            write_stage(store, stage, metrics(cell, METRICS // suites))
        write_stage(store, f"train-{cell:08x}", None)
        subjects.append({
            "subject": "policy", "role": "cell", "label": " ".join(f"{key}={value}" for key, value in axes.items()),
            "axes": axes, "stage": f"train-{cell:08x}", "evaluations": stages, "inputs": {},
        })  # fmt: skip
    about = {"category": "chat", "subject": "policy", "primary": "m0", "unit": "proportion", "higher_is_better": True}
    plan = {
        "version": 1, "name": "large", "question": "How long?", "report": None, "axes": list(subjects[0]["axes"]),
        "subjects": subjects, "suites": {name: {"title": name} | about for name in names}, "datasets": {},
        "algorithms": {"dpo": "DPO", "ppo": "PPO"}, "data": [], "stages": {},
    }  # fmt: skip
    folder = store.experiment("large")
    folder.folder.mkdir()
    folder.plan_json.write_text(json.dumps(plan))


def write_stage(store: Store, stage: str, result: dict[str, Any] | None) -> None:
    folder = store.stage(stage)
    folder.output.mkdir(parents=True)
    if result is not None:
        folder.artifact("metrics.json").write_text(json.dumps(result))
    done = {"stage": stage, "seconds": 2.5, "cpu_seconds": 2.0, "gpus": [0], "host": "h", "ended": 1.7e9}
    folder.done_json.write_text(json.dumps(done))


def metrics(cell: int, count: int) -> dict[str, Any]:
    """Return a metrics.json; the suite's score is one of the ``count`` numbers it brings to the long table."""
    names = [f"m{index}" for index in range(count)]
    entries = [
        {"task": "all", "metric": name, "value": (cell + index) % 997 / 997, "n": 500, "stderr": 0.01}
        for index, name in enumerate(names)
    ]
    health = {"n": 500, "truncated": 0.0, "no_eos": 0.0, "mean_length": 211.5}
    protocol = {"decoding": {"temperature": 0.0, "max_new_tokens": 512}, "grader": "exact", "data": "0" * 40}
    return {"score": entries[0]["value"], "metrics": entries[1:], "health": health, "protocol": protocol}


def load(store: Store) -> dict[str, Any]:
    def loaded() -> object:
        return ablate.load("large", store.root)

    times = {"collect": measured(lambda: collect(store, "large").table()), "load_cold": measured(loaded)}
    times["load_warm"] = min(measured(loaded) for _ in range(3))
    os.utime(store.stage("train-00000000").done_json, ns=(1, 1))
    times["load_after_one"] = measured(loaded)
    ratio = times["collect"][1] / times["load_warm"][1]
    return {"rows": len(ablate.load("large", store.root)), **times, "warm_is_faster": round(ratio, 1)}


def report(store: Store, out: Path) -> dict[str, Any]:
    times = {"table": measured(lambda: build_report(store, "large"))}
    times["page"] = measured(lambda: render_page(store, "large", None, out))
    return {**times, "page_mb": round((out / "report.html").stat().st_size / 1e6, 1)}


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return round(time.perf_counter() - wall, 3), round(time.process_time() - processor, 3)


if __name__ == "__main__":
    main()
