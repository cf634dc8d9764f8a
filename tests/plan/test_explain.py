"""What a plan says of time: the medians of what a store has done, of every kind, however many stages it holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.plan.explain import SAMPLED, explain, timing_key
from ablate.plan.plan import Plan
from ablate.plan.stage import Stage
from ablate.store import Store

SECONDS = {"dataset": 1.0, "sft": 20.0, "train (dpo)": 30.0, "train (ppo)": 40.0}


@pytest.fixture
def small(plan: Callable[..., Plan]) -> Callable[[int], Plan]:
    """A study of six trainings of two methods; no two seeds share one."""

    def make(seed: int) -> Plan:
        return plan(
            f"""
            name: small
            policy: pocket-small
            sft: {{dataset: pocket-instructions}}
            ppo: {{max_prompt_length: 128, max_response_length: 64}}
            grid: [{{dataset: pocket-hh, algorithm: [dpo, ppo], seed: [{seed}, {seed + 1}, {seed + 2}]}}]
            """
        )

    return make


def finish(store: Store, stage: Stage, seconds: float, name: str | None = None) -> None:
    """Record a stage as done, under another id if one is given."""
    folder = store.stage(name or stage.id)
    folder.folder.mkdir(parents=True, exist_ok=True)
    folder.stage_json.write_text(json.dumps(stage.as_json()))
    folder.done_json.write_text(json.dumps({"stage": folder.id, "seconds": seconds}))


def finish_plan(store: Store, plan: Plan) -> None:
    for stage in plan.stages.values():
        finish(store, stage, SECONDS.get(timing_key(stage), 2.0))


def test_the_estimate_is_the_sum_of_the_medians_of_what_would_run(small: Callable[[int], Plan], tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    assert explain(small(0), store).seconds is None, "nothing has run yet"
    finish_plan(store, small(0))
    slow = next(stage for stage in small(0).stages.values() if timing_key(stage) == "train (ppo)")
    finish(store, slow, 4000.0)  # one that was held up does not move a median of three
    explanation = explain(small(10), store)
    assert [stage.kind for stage, _ in explanation.to_run].count("train") == 6
    kinds = {item.kind: item for item in explanation.kinds}
    assert kinds["train (dpo)"].seconds == 30.0
    assert kinds["train (ppo)"].seconds == 40.0
    assert kinds["reward_model"].to_run == 3
    assert explanation.seconds == 3 * 30.0 + 3 * 40.0 + 3 * 2.0
    assert explanation.as_json()["estimated_worker_seconds"] == explanation.seconds


def test_many_done_stages_of_one_kind_hide_no_other(small: Callable[[int], Plan], tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    finish_plan(store, small(0))
    dataset = next(stage for stage in small(0).stages.values() if stage.kind == "dataset")
    for number in range(SAMPLED + 1600):  # all before `sft` and `train` in the order of names
        finish(store, dataset, 1.0, f"dataset-{number:016x}")
    kinds = {item.kind: item.seconds for item in explain(small(10), store).kinds}
    assert all(kinds[name] == seconds for name, seconds in SECONDS.items())
    assert sum(folder.kind == "dataset" for folder in store.done_stages(SAMPLED)) == SAMPLED
