"""What a plan writes into the store."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from ablate.context import write_json
from ablate.errors import StoreError
from ablate.execution import record
from ablate.execution.record import record_stages
from ablate.plan.graph import Graph
from ablate.store import Store


def test_stages_are_written_many_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph()
    stages = [graph.add("pocket", {"n": number}, label=f"{number}") for number in range(6)]
    together = threading.Barrier(2, timeout=20)

    def write(path: Path, value: Any) -> None:
        together.wait()
        write_json(path, value)

    monkeypatch.setattr(record, "write_json", write)
    record_stages(store, stages)
    assert [store.stage(stage.id).read_stage()["label"] for stage in stages] == [f"{number}" for number in range(6)]


def test_another_stage_under_the_same_id_is_an_error(store: Store) -> None:
    graph = Graph()
    stages = [graph.add("pocket", {"n": number}, label=f"{number}") for number in range(3)]
    record_stages(store, stages)
    place = store.stage(stages[1].id)
    write_json(place.stage_json, place.read_stage() | {"config": {"n": 7}})
    with pytest.raises(StoreError, match="holds another stage under the same id"):
        record_stages(store, stages)
