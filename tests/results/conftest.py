"""A store on disk with known numbers, written as the stages and the planner write it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ablate.store import Store


class StoreMaker:
    """Writes an experiment by hand: suites, then subjects with the per-example values of every suite."""

    def __init__(self, root: Path, name: str = "study") -> None:
        self.store = Store(root).open()
        self.plan: dict[str, Any] = {
            "version": 1, "name": name, "question": "Does PPO beat DPO?", "created": 0, "report": None,
            "axes": ["dataset", "algorithm", "seed"], "subjects": [], "suites": {}, "datasets": {}, "stages": {},
            "algorithms": {"dpo": "DPO", "ppo": "PPO"},
        }  # fmt: skip

    def suite(
        self, name: str, category: str, *, subject: str = "policy", unit: str = "proportion", **more: Any
    ) -> None:
        about = {
            "title": name, "category": category, "subject": subject, "primary": "accuracy", "unit": unit,
            "higher_is_better": True, "protocol": "p",
        }  # fmt: skip
        self.plan["suites"][name] = about | more

    def stage(self, stage: str, *, inputs: Mapping[str, str] | None = None, seconds: float | None = 1.0) -> Path:
        """Write a stage; done when ``seconds`` is given. Returns its output folder."""
        folder = self.store.stage(stage)
        folder.output.mkdir(parents=True, exist_ok=True)
        wired = {role: {"stage": other, "artifact": ""} for role, other in (inputs or {}).items()}
        folder.stage_json.write_text(json.dumps({"id": stage, "inputs": wired}))
        if seconds is not None:
            folder.done_json.write_text(json.dumps({"stage": stage, "seconds": seconds}))
        return folder.output

    def fail(self, stage: str, message: str) -> None:
        folder = self.store.stage(stage)
        folder.attempt(1).folder.mkdir(parents=True)
        folder.stage_json.write_text(json.dumps({"id": stage, "inputs": {}}))
        folder.attempt(1).failure_json.write_text(json.dumps({"type": "StageError", "message": message}))

    def evaluation(
        self,
        stage: str,
        values: Sequence[float | None],
        *,
        metric: str = "accuracy",
        clusters: Sequence[str] | None = None,
        score: float | str | None = "mean",
        protocol: Mapping[str, Any] | None = None,
        health: Mapping[str, Any] | None = None,
    ) -> None:
        output = self.stage(stage)
        defined = [value for value in values if value is not None]
        number = sum(defined) / len(defined) if score == "mean" else score
        entry = {"task": "t", "metric": metric, "value": number, "n": len(defined), "stderr": 0.1, "unit": "proportion"}
        result = {
            "score": number, "metrics": [entry], "protocol": protocol or {"decoding": "greedy"},
            "health": {"n": len(values), "mean_length": 12.0} | dict(health or {}),
        }  # fmt: skip
        (output / "metrics.json").write_text(json.dumps(result))
        count = len(values)
        pq.write_table(
            pa.table({
                "example": [f"e{i}" for i in range(count)], "sample": [0] * count, "task": ["t"] * count,
                "metric": [metric] * count, "value": pa.array(values, pa.float64()),
                "cluster": pa.array(clusters if clusters is not None else [None] * count, pa.string()),
                "response": pa.array([None] * count, pa.string()),
            }),
            output / "examples.parquet",
        )  # fmt: skip

    def subject(
        self,
        label: str,
        axes: Mapping[str, Any],
        scores: Mapping[str, Sequence[float | None] | None],
        *,
        role: str = "cell",
        subject: str = "policy",
        stage: str | None = None,
        inputs: Mapping[str, str | None] | None = None,
        evaluation: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Add a subject; ``scores`` maps a suite to its per-example values, or None where it has not run."""
        own = stage or f"train-{label.replace(' ', '_')}"
        self.stage(own)
        evaluations = {}
        for suite, values in scores.items():
            evaluations[suite] = f"evaluate-{suite}-{own}"
            if values is not None:
                self.evaluation(evaluations[suite], values, **(evaluation or {}).get(suite, {}))
        entry = {
            "subject": subject, "role": role, "label": label, "axes": dict(axes), "stage": own,
            "evaluations": evaluations, "inputs": dict(inputs or {}),
        }  # fmt: skip
        self.plan["subjects"].append(entry)
        return entry

    def write(self) -> Store:
        folder = self.store.experiment(self.plan["name"])
        folder.folder.mkdir(parents=True, exist_ok=True)
        folder.plan_json.write_text(json.dumps(self.plan))
        return self.store


@pytest.fixture
def maker(tmp_path: Path) -> StoreMaker:
    return StoreMaker(tmp_path / "store")


def bits(right: int, count: int) -> list[float]:
    """``count`` answers, the first ``right`` of them right."""
    return [1.0 if index < right else 0.0 for index in range(count)]


@pytest.fixture
def study(maker: StoreMaker) -> StoreMaker:
    """2 datasets x {dpo, ppo} x 3 seeds over SFT, three categories (one of two suites), gold, two reward models.

    SFT answers 40 of 100 everywhere; DPO on ``hh`` 40 + seed, on ``uf`` 60 + seed; PPO 10 more than DPO.
    """
    for name, category in (("facts", "factuality"), ("math", "reasoning"), ("chat", "chat"), ("rules", "chat")):
        maker.suite(name, category)
    maker.suite("gold", "gold", unit="reward")
    maker.suite("pairs", "reward", subject="reward_model")
    maker.plan["datasets"] = {
        "hh": {"title": "HH_50%", "label_kind": "human"},
        "uf": {"title": "UltraFeedback & co", "label_kind": "ai"},
    }
    empty = {"dataset": None, "algorithm": None, "seed": None}
    suites = ("facts", "math", "chat", "rules", "gold")
    maker.subject("base", empty, dict.fromkeys(suites, bits(10, 100)), role="baseline")
    maker.subject("sft", empty, dict.fromkeys(suites, bits(40, 100)), role="baseline")
    for dataset, level in (("hh", 40), ("uf", 60)):
        data = maker.stage(f"dataset-{dataset}")
        report = {"in": 1200, "kept": 1100, "dropped": {"long": 100}, "examples": {"made": 2500, "written": 2000}}
        (data / "report.json").write_text(json.dumps(report))
        for algorithm, extra in (("dpo", 0), ("ppo", 10)):
            for seed in range(3):
                maker.subject(
                    f"{dataset} {algorithm} {seed}",
                    {"dataset": dataset, "algorithm": algorithm, "seed": seed},
                    dict.fromkeys(suites, bits(level + extra + seed, 100)),
                    inputs={
                        "dataset": f"dataset-{dataset}", "sft": "sft-1",
                        "reward_model": f"reward_model-{dataset}-{seed}" if algorithm == "ppo" else None,
                    },
                )  # fmt: skip
        for seed in range(3):
            maker.subject(
                f"rm {dataset} {seed}", {"reward_model.init": "tiny", "reward_model.dataset": dataset, "seed": seed},
                {"pairs": bits(level + 10 + seed, 100)}, subject="reward_model", stage=f"reward_model-{dataset}-{seed}",
            )  # fmt: skip
    return maker


@pytest.fixture
def answers() -> Callable[[int, int], list[float]]:
    return bits
