"""What a plan says of time: the medians of what a store has done, of every kind, however many stages it holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ablate.cli.plan import print_disk
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


def finish(store: Store, stage: Stage, seconds: float, name: str | None = None, **facts: int) -> None:
    """Record a stage as done, under another id if one is given."""
    folder = store.stage(name or stage.id)
    folder.folder.mkdir(parents=True, exist_ok=True)
    folder.stage_json.write_text(json.dumps(stage.as_json()))
    folder.done_json.write_text(json.dumps({"stage": folder.id, "seconds": seconds, **facts}))


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


def test_the_disk_is_what_stages_of_each_kind_left_before(small: Callable[[int], Plan], tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    left = {"train": 1000, "dataset": 70, "reward_model": 300}
    for stage in small(0).stages.values():
        if stage.kind in left:
            finish(store, stage, 1.0, bytes=left[stage.kind])
    explanation = explain(small(10), store)
    kinds = [stage.kind for stage, _ in explanation.to_run]
    assert kinds.count("train") == 6 and kinds.count("reward_model") == 3
    assert explanation.disk.bytes == 6 * 1000 + 3 * 300 + kinds.count("dataset") * 70
    assert set(explanation.disk.unknown) == set(kinds) - set(left) and explanation.disk.checkpoint == 0


BIG = """
    name: big
    policy: tulu-2-13b
    data: {embedded: true}
    grid: [{dataset: ultrafeedback-raw, algorithm: dpo, seed: [0, 1]}]
"""


def test_large_models_take_what_their_weights_do(
    plan: Callable[..., Plan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand: 13.016 billion parameters of two bytes as released, two policies of four, checkpoints with moments."""
    disk = explain(plan(BIG), Store(tmp_path / "store")).disk
    assert disk.bytes == pytest.approx((2 + 2 * 4) * 13.016e9, rel=1e-3)
    assert disk.checkpoint == pytest.approx(12 * 13.016e9, rel=1e-3)
    print_disk(replace(disk, bytes=1e20, unknown=("dataset",)), tmp_path / "not" / "there")
    shown = capsys.readouterr().out
    assert shown.startswith("about 100000000.0 TB of disk beside dataset, of which none has run here yet; a checkpoint")
    assert "takes 156.2 GB; " in shown and "warning: the disk of the store is too small" in shown
