"""The mirror in MLflow holds what the store holds, and mirroring again changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from ablate.store import Store
from ablate.tracking.interface import tracking_uri, ui_command
from ablate.tracking.mirror import mirror

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


REWARD_MODEL = "reward_model.init=pocket-small reward_model.dataset=hh seed=0"


def write_stage(store: Store, stage: str, **files: str) -> None:
    folder = store.stage(stage)
    folder.output.mkdir(parents=True)
    for name, text in files.items():
        (folder.output / name.replace("__", ".")).write_text(text)
    folder.done_json.write_text(json.dumps({"stage": stage, "seconds": 2.0, "ended": 1700000000.0, "host": "h"}))


def metrics_json(score: float | None) -> str:
    entry = {"task": "t one", "metric": "accuracy@1", "value": score, "n": 4, "stderr": 0.1, "unit": "proportion"}
    return json.dumps({"score": score, "metrics": [entry], "health": {}, "protocol": {}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A policy with a curve and one of two suites done, an SFT baseline, a reward model, and a cell not run."""
    store = Store(tmp_path / "store").open()
    curve = "".join(json.dumps({"step": step, "loss": 1.0 / step, "note": "x"}) + "\n" for step in (1, 2, 5))
    write_stage(store, "train-1", history__jsonl=curve)
    write_stage(store, "sft-1")
    write_stage(store, "reward_model-1")
    write_stage(store, "evaluate-1", metrics__json=metrics_json(0.25))
    write_stage(store, "evaluate-3", metrics__json=metrics_json(0.75))

    def subject(name: str, role: str, label: str, axes: dict[str, Any], stage: str, **done: str) -> dict[str, Any]:
        return {"subject": name, "role": role, "label": label, "axes": axes, "stage": stage, "evaluations": done}

    cell = {"dataset": "hh", "algorithm": "dpo", "seed": 0, "reward_model.init": None}
    reward_axes = {"reward_model.init": "pocket-small", "reward_model.dataset": "hh", "seed": 0}
    plan = {
        "version": 1, "name": "study", "question": "Why?", "suites": {}, "datasets": {}, "stages": {},
        "subjects": [
            subject("policy", "cell", "dataset=hh seed=0", cell, "train-1", facts="evaluate-1", math="evaluate-2"),
            subject("policy", "baseline", "sft", {"dataset": None}, "sft-1"),
            subject("reward_model", "cell", REWARD_MODEL, reward_axes, "reward_model-1", pairs="evaluate-3"),
            subject("policy", "cell", "not run", cell, "train-2", facts="evaluate-9"),
        ],
    }  # fmt: skip
    folder = store.experiment("study")
    folder.folder.mkdir(parents=True)
    folder.plan_json.write_text(json.dumps(plan))
    return store


def runs(store: Store) -> dict[str, Any]:
    client = MlflowClient(tracking_uri=tracking_uri(store))
    experiment = client.get_experiment_by_name("study")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def history(store: Store, run: Any, name: str) -> list[tuple[int, float]]:
    client = MlflowClient(tracking_uri=tracking_uri(store))
    return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))


def test_mirror_holds_what_the_store_holds_and_is_idempotent(store: Store) -> None:
    done = mirror(store, "study")
    assert (done.created, done.updated, done.unchanged) == (3, 0, 0)
    assert str(done) == "3 runs created in MLflow, 0 updated, 0 unchanged"
    found = runs(store)
    assert set(found) == {"dataset=hh seed=0", "sft", REWARD_MODEL}
    cell = found["dataset=hh seed=0"]
    assert cell.data.params == {"dataset": "hh", "algorithm": "dpo", "seed": "0"}
    assert cell.data.tags["ablate.stage"] == "train-1" and cell.data.tags["ablate.role"] == "cell"
    assert cell.data.metrics["facts"] == 0.25 and cell.data.metrics["facts.t one.accuracy_1"] == 0.25
    assert history(store, cell, "train/loss") == [(1, 1.0), (2, 0.5), (5, 0.2)]
    assert (
        found[REWARD_MODEL].data.metrics["pairs"] == 0.75
        and found[REWARD_MODEL].data.tags["ablate.subject"] == "reward_model"
    )
    assert cell.info.status == "FINISHED"

    again = mirror(store, "study")
    assert (again.created, again.updated, again.unchanged) == (0, 0, 3)
    assert history(store, cell, "train/loss") == [(1, 1.0), (2, 0.5), (5, 0.2)]
    assert history(store, cell, "facts") == [(0, 0.25)]

    # what has been finished since is added; the rest stays
    write_stage(store, "evaluate-2", metrics__json=metrics_json(0.5))
    write_stage(store, "train-2")
    later = mirror(store, "study")
    assert (later.created, later.updated, later.unchanged) == (1, 1, 2)
    found = runs(store)
    assert found["dataset=hh seed=0"].data.metrics["math"] == 0.5 and len(found) == 4
    assert history(store, found["dataset=hh seed=0"], "train/loss") == [(1, 1.0), (2, 0.5), (5, 0.2)]


def test_ui_command_opens_the_stores_own_database(store: Store) -> None:
    command = ui_command(store, port=5123)
    assert command[1:4] == ["-m", "mlflow", "ui"]
    assert f"sqlite:///{store.root}/cache/mlflow.db" in command and command[-1] == "5123"
