"""What stages were estimated to take, beside what they took."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from ablate.cli import main
from ablate.context import write_json
from ablate.execution.estimate import Times, note_estimate, times
from ablate.plan.graph import Graph
from ablate.plan.stage import Stage
from ablate.store import StageFolder, Store

AddStage = Callable[[Stage], StageFolder]


def done(folder: StageFolder, seconds: float | None) -> None:
    write_json(folder.done_json, {} if seconds is None else {"seconds": seconds})


def test_the_first_estimate_stays_and_stands_beside_what_was_taken(
    store: Store, add_stage: AddStage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = Graph()
    before = graph.add("train", {"algorithm": "dpo", "seed": 9}, label="of another study", entry="x:y")
    done(add_stage(before), 1800.0)
    trained = [graph.add("train", {"algorithm": "dpo", "seed": n}, label=f"{n}", entry="x:y") for n in range(3)]
    adopted = graph.add("sft", {}, label="adopted")
    stages = [*trained, adopted]
    for stage in stages:
        add_stage(stage)
    store.experiment("small").folder.mkdir(parents=True)
    write_json(store.experiment("small").plan_json, {"stages": {stage.id: {} for stage in stages}})
    note_estimate(store, "small", stages)
    done(store.stage(trained[0].id), 3600.0)
    done(store.stage(trained[1].id), 7200.0)
    done(store.stage(adopted.id), None)
    note_estimate(store, "small", stages)  # a second run: the study's own stages are no prediction of it
    found = {line.kind: line for line in times(store, "small")}
    assert found == {"train (dpo)": Times("train (dpo)", 3, 2, 1.0, 3.0), "sft": Times("sft", 1, 0, None, 0.0)}
    monkeypatch.setattr(sys, "argv", ["ablate", "usage", "small", "--store", str(store.root)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code, "no accounting is asked where nothing was handed to a cluster"
    assert "2/3" in (shown := capsys.readouterr().out) and "60 min" in shown and "3.0 h" in shown
