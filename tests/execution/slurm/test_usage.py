"""What a study took of a cluster, by hand from sacct's lines."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from ablate.context import write_json
from ablate.execution.slurm import commands
from ablate.execution.slurm.arrays import Array
from ablate.execution.slurm.ledger import new_submission
from ablate.execution.slurm.shapes import Shape
from ablate.execution.slurm.usage import total, usage
from ablate.store import Store


def test_hours_of_all_tries_waiting_and_use(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = new_submission(store, experiment="small", profile="cluster.yaml")
    names = {}
    for key, job in (("00-train", "70"), ("01-evaluate", "71")):
        record = submission.array(key)
        shape = Shape(key[3:], 60, 1, 1)
        record.write_intent(Array(key, shape, {0: ("a",), 1: ("b",)}, ()), submission.job_name(key), {}, {})
        record.write_job(job)
        names[job] = record.name
    day = "2026-01-01T10"
    lines = [
        f"70_0|{names['70']}|3600|{day}:00:00|{day}:00:30|billing=8,cpu=8,gres/gpu=2,gres/gpu:a100=2,mem=1G,node=1|01:00:00",
        f"70_0|{names['70']}|1800|{day}:00:00|{day}:01:30|cpu=8,gres/gpu:a100=2|0-02:00:00",  # begun again
        "70_0.batch|batch|1800||||0-02:00:00",
        f"70_1|{names['70']}|0|{day}:00:00|Unknown||00:00:00",  # never started
        f"71_0|{names['71']}|900|{day}:00:00|{day}:00:01|cpu=1|07:30.500",
        f"71_1|somebody.else|900|{day}:00:00|{day}:00:01|cpu=1,gres/gpu=8|07:30",
    ]
    calls = []

    def call(command: Sequence[str], *, retry: bool = True) -> str:
        calls.append(command)
        return "\n".join(lines)

    monkeypatch.setattr(commands, "call", call)
    store.experiment("small").folder.mkdir(parents=True)
    write_json(store.experiment("small").plan_json, {"stages": {}})
    train, evaluate = usage(store, "small")
    assert (train.tries, train.hours, train.gpu_hours, train.core_hours, train.wait_seconds) == (
        2,
        1.5,
        3.0,
        12.0,
        60.0,
    )
    assert train.cpu_share == pytest.approx(3 * 3600 / (12 * 3600))
    assert (evaluate.gpu_hours, evaluate.cpu_share) == (0.0, pytest.approx(450.5 / 900))
    assert total([train, evaluate])["core_hours"] == 12.25
    assert len(calls) == 1
    kept = json.loads(store.experiment("small").usage_json.read_text())
    assert [line["kind"] for line in kept["kinds"]] == ["train", "evaluate"]
