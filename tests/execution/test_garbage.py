"""What may be deleted: never what runs, what is queued, what an experiment names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.context import Resources, write_json
from ablate.execution import lease
from ablate.execution.garbage import find_garbage, remove
from ablate.execution.runner import run_stage
from ablate.execution.slurm.arrays import Array
from ablate.execution.slurm.ledger import new_submission
from ablate.execution.slurm.shapes import Shape
from ablate.plan.graph import Graph
from ablate.plan.stage import Ref, Stage
from ablate.store import StageFolder, Store

AddStage = Callable[[Stage], StageFolder]


def made(add_stage: AddStage, label: str) -> StageFolder:
    folder = add_stage(Graph().add("dataset", {"label": label}, label=label, entry="light_work:write"))
    assert run_stage(folder.folder, Resources()).status == "done"
    return folder


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "helpers"))


def test_what_no_experiment_names_goes_and_nothing_else(store: Store, add_stage: AddStage) -> None:
    named, old, running, queued = (made(add_stage, label) for label in ("named", "old", "running", "queued"))
    store.experiment("small").folder.mkdir(parents=True)
    write_json(store.experiment("small").plan_json, {"stages": {named.id: {}}})
    running.done_json.unlink()
    assert lease.claim(running) is not None
    record = new_submission(store, experiment="small", profile="x").array("00-dataset")
    record.write_intent(Array("00-dataset", Shape("dataset", 1, 1, 1), {0: (queued.id,)}, ()), "n", {}, {})
    left = named.attempt(1).work
    left.mkdir()
    (left / "weights").write_bytes(b"0" * 1000)
    found = find_garbage(store)
    assert {item.folder for item in found} == {old.folder, left}
    assert next(item for item in found if item.folder == left).bytes == 1000
    remove(store, found)
    assert not old.folder.exists() and not left.exists()
    assert named.is_done() and (named.output / "made.txt").exists() and queued.is_done()
    assert find_garbage(store) == []


def test_what_a_run_needs_by_now_stays(store: Store, add_stage: AddStage) -> None:
    wanted, old = made(add_stage, "wanted"), made(add_stage, "old")
    found = find_garbage(store)
    assert {item.folder for item in found} == {wanted.folder, old.folder}
    store.experiment("small").folder.mkdir(parents=True)  # while the question was open
    write_json(store.experiment("small").plan_json, {"stages": {wanted.id: {}}})
    assert [item.folder for item in remove(store, found)] == [old.folder]
    assert wanted.is_done() and not old.folder.exists()


def test_what_a_queued_or_running_stage_is_made_from_stays(store: Store, add_stage: AddStage) -> None:
    """The plan that named them has been replaced by another since."""
    made_from = {}
    for label in ("queued", "running"):
        base, between = made(add_stage, f"base of {label}"), f"between {label} and its base"
        inner = Graph().add("dataset", {"label": between}, {"x": Ref(base.id, "")}, label=between, entry="a:b")
        outer = Graph().add("dataset", {"label": label}, {"x": Ref(inner.id, "")}, label=label, entry="a:b")
        add_stage(inner)
        made_from[label] = add_stage(outer)
    assert lease.claim(made_from["running"]) is not None
    record = new_submission(store, experiment="small", profile="x").array("00-dataset")
    shape = Shape("dataset", 1, 1, 1)
    record.write_intent(Array("00-dataset", shape, {0: (made_from["queued"].id,)}, ()), "n", {}, {})
    assert find_garbage(store) == []
    old = made(add_stage, "old")
    assert [item.folder for item in find_garbage(store)] == [old.folder]
