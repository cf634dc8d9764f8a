"""run_stage: publishing, failing, being killed at any moment, being run twice at once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate import liveness
from ablate.context import Resources, StageContext, write_json
from ablate.errors import OutOfMemory, StageError
from ablate.execution import lease
from ablate.execution.runner import run_stage
from ablate.liveness import STALE_SECONDS
from ablate.plan.graph import Graph
from ablate.plan.stage import Ref, Stage
from ablate.store import AttemptFolder, StageFolder, Store

AddStage = Callable[[Stage], StageFolder]


def write_two_files(context: StageContext) -> dict[str, Any]:
    """Work of a test stage: two artifacts that must appear together."""
    (context.output / "a.txt").write_text("first")
    time.sleep(context.config.get("seconds", 0.0))
    (context.output / "b.txt").write_text("second")
    return {"files": 2}


def fail_with_a_message(context: StageContext) -> None:
    """Work of a test stage that fails the way a stage should."""
    (context.output / "half.txt").write_text("half")
    raise StageError("the loss is NaN at step 3")


def kill_itself(context: StageContext) -> None:
    """Work of a test stage that the kernel ends, as it does when memory runs out."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def needs_room(context: StageContext) -> None:
    """Work of a test stage that has room for two examples in a pass, and goes on from what it wrote before."""
    size = context.resources.micro_batch or 16
    sizes = context.work / "sizes.txt"
    with sizes.open("a") as handle:
        handle.write(f"{size} ")
    (context.output / "half.txt").write_text("half")
    if size > context.config["room"]:
        raise OutOfMemory("no memory", size)
    (context.output / "half.txt").rename(context.output / "sizes.txt")
    (context.output / "sizes.txt").write_text(sizes.read_text())


def meet(context: StageContext) -> dict[str, Any]:
    """Work of a test stage in several processes: each says who it is; one may fail or be killed while others wait."""
    from ablate.training.distributed import gathered, rank, world

    if rank() == context.config.get("fails"):
        raise StageError("rank 1 has no rows")
    if rank() == context.config.get("killed"):
        kill_itself(context)
    (context.output / "who.json").write_text(json.dumps(gathered([rank(), world(), context.output.name])))
    context.events.log(step=rank())
    return {"rank": rank()}


def overtaken(context: StageContext) -> None:
    """Work of a test stage during which another attempt takes over and publishes."""
    folder = StageFolder(context.output.parents[2])
    other = folder.attempt(2)
    other.folder.mkdir()
    folder.output.mkdir()
    (folder.output / "a.txt").write_text("the other's")
    write_json(folder.done_json, {"attempt": 2})
    raise StageError("stalled, and then failed")


def _stage(function: Any, **config: Any) -> Stage:
    return Graph().add("pocket", config, label=function.__name__, entry=f"{__name__}:{function.__name__}")


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "record.json":
            whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


def test_without_memory_a_pass_is_halved_until_it_has_room(add_stage: AddStage) -> None:
    folder = add_stage(_stage(needs_room, room=3))
    assert run_stage(folder.folder, Resources()).status == "done"
    assert (folder.output / "sizes.txt").read_text() == "16 8 4 2 "
    assert len(folder.attempts()) == 1
    events = folder.attempts()[0].events.read_text()
    assert "out of memory with 16 examples in a pass; now 8" in events


def test_without_memory_for_a_single_example_it_fails_with_advice(add_stage: AddStage) -> None:
    folder = add_stage(_stage(needs_room, room=0))
    outcome = run_stage(folder.folder, Resources(micro_batch=2))
    assert outcome.status == "failed"
    assert "a pass had one example: shorten max_length" in outcome.message


@pytest.mark.slow
def test_several_processes_meet_and_the_first_alone_publishes(add_stage: AddStage) -> None:
    folder = add_stage(_stage(meet))
    assert run_stage(folder.folder, Resources(processes=2)).status == "done"
    assert json.loads((folder.output / "who.json").read_text()) == [[0, 2, "output"], [1, 2, "rank-1"]]
    record = folder.read_done()
    assert record is not None and record["summary"] == {"rank": 0} and record["processes"] == 2
    assert folder.attempts()[0].events.read_text().count('"step"') == 1
    assert not (folder.attempts()[0].folder / "ranks").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"), [("fails", "rank 1 has no rows"), ("killed", r"rank 1 of 2 was killed by signal 9")]
)
def test_a_process_that_ends_ends_the_others(add_stage: AddStage, how: str, message: str) -> None:
    folder = add_stage(_stage(meet, **{how: 1}))
    begun = time.monotonic()
    outcome = run_stage(folder.folder, Resources(processes=2))
    assert outcome.status == "failed" and message in outcome.message
    assert time.monotonic() - begun < 60
    assert not folder.output.exists()


def test_output_appears_whole_and_the_marker_last(add_stage: AddStage) -> None:
    folder = add_stage(_stage(write_two_files))
    outcome = run_stage(folder.folder, Resources())
    assert outcome.status == "done"
    assert {path.name for path in folder.output.iterdir()} == {"a.txt", "b.txt", "record.json"}
    record = folder.read_done()
    assert record is not None
    assert record["summary"] == {"files": 2}
    assert record["attempt"] == 1
    assert not folder.attempt(1).work.exists()


def test_a_failure_keeps_the_reason_and_publishes_nothing(add_stage: AddStage) -> None:
    folder = add_stage(_stage(fail_with_a_message))
    outcome = run_stage(folder.folder, Resources())
    assert (outcome.status, outcome.message) == ("failed", "the loss is NaN at step 3")
    assert not folder.output.exists()
    assert not folder.is_done()
    assert "Traceback" in folder.attempt(1).log.read_text()
    assert run_stage(folder.folder, Resources()).status == "failed"
    assert folder.attempts()[-1].number == 2


def test_a_killed_computation_is_a_failure_that_says_so(add_stage: AddStage) -> None:
    folder = add_stage(_stage(kill_itself))
    outcome = run_stage(folder.folder, Resources())
    assert outcome.status == "failed"
    assert "signal 9 (out of memory?)" in outcome.message


def test_a_stage_waits_for_its_inputs(add_stage: AddStage) -> None:
    graph = Graph()
    parent = graph.add("pocket", {}, label="parent", entry=f"{__name__}:write_two_files")
    inputs = {"source": Ref(parent.id, "a.txt")}
    child = graph.add("dataset", {}, inputs, label="child", entry=f"{__name__}:write_two_files")
    add_stage(parent)
    folder = add_stage(child)
    outcome = run_stage(folder.folder, Resources())
    assert outcome.status == "blocked"
    assert parent.id in outcome.message
    assert folder.attempts() == []


def test_an_interrupted_publication_is_finished_not_repeated(add_stage: AddStage) -> None:
    folder = add_stage(_stage(write_two_files))
    run_stage(folder.folder, Resources())
    first = folder.read_done()
    folder.done_json.unlink()  # as if the machine had stopped between the rename and the marker
    outcome = run_stage(folder.folder, Resources())
    assert outcome.status == "done"
    assert folder.read_done() == first


def test_a_live_owner_keeps_others_out_and_a_dead_one_does_not(add_stage: AddStage) -> None:
    folder = add_stage(_stage(write_two_files))
    attempt = lease.claim(folder)
    assert attempt is not None
    assert run_stage(folder.folder, Resources()).status == "busy"
    owner = json.loads(attempt.owner_json.read_text())
    write_json(attempt.owner_json, owner | {"started": "1"})  # same number, another process
    assert run_stage(folder.folder, Resources()).status == "done"
    record = folder.read_done()
    assert record is not None
    assert record["attempt"] == 2


def test_an_owner_on_another_host_lives_by_its_heartbeat(add_stage: AddStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "WATCHED_SECONDS", 0.5)
    folder = add_stage(_stage(write_two_files))
    attempt = lease.claim(folder)
    assert attempt is not None
    owner = json.loads(attempt.owner_json.read_text())
    write_json(attempt.owner_json, owner | {"host": "elsewhere"})
    assert run_stage(folder.folder, Resources()).status == "busy"
    old = time.time() - 2 * STALE_SECONDS
    os.utime(attempt.heartbeat, (old, old))
    assert run_stage(folder.folder, Resources()).status == "done"


def test_whoever_was_taken_over_publishes_nothing(add_stage: AddStage) -> None:
    folder = add_stage(_stage(write_two_files))
    attempt = lease.claim(folder)
    assert attempt is not None
    (folder.attempts_folder / "2").mkdir()
    with pytest.raises(lease.LeaseLost):
        lease.require_lease(folder, attempt)


def test_a_stalled_owner_that_was_overtaken_reports_the_published_result(add_stage: AddStage) -> None:
    folder = add_stage(_stage(overtaken))
    outcome = run_stage(folder.folder, Resources())
    assert outcome.status == "done"
    assert (folder.output / "a.txt").read_text() == "the other's"
    record = folder.read_done()
    assert record is not None
    assert record["attempt"] == 2


def test_a_stage_published_between_the_look_and_the_claim_is_not_tried_again(
    add_stage: AddStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = add_stage(_stage(write_two_files))
    claim = lease.claim

    def claim_late(stage: StageFolder) -> AttemptFolder | None:
        monkeypatch.setattr(lease, "claim", claim)
        assert run_stage(stage.folder, Resources()).status == "done"
        return claim(stage)

    monkeypatch.setattr(lease, "claim", claim_late)
    assert run_stage(folder.folder, Resources()).status == "done"
    assert len(folder.attempts()) == 1


def test_two_workers_at_once_run_a_stage_once(add_stage: AddStage, worker: Any) -> None:
    folder = add_stage(_stage(write_two_files, seconds=1.0))
    workers = [worker(folder.folder) for _ in range(4)]
    codes = sorted(item.wait() for item in workers)
    assert codes.count(0) >= 1
    assert set(codes) <= {0, 4}
    assert len(folder.attempts()) == 1


def test_killed_at_random_moments_a_stage_still_ends_with_the_same_result(
    store: Store, pocket_stage: StageFolder, worker: Any
) -> None:
    reference = StageFolder(store.root / "reference" / "stages" / pocket_stage.id)
    reference.folder.mkdir(parents=True)
    reference.stage_json.write_bytes(pocket_stage.stage_json.read_bytes())
    begun = time.monotonic()
    assert worker(reference.folder).wait() == 0
    whole = time.monotonic() - begun
    moments = random.Random(0)
    for _ in range(45):
        victim = worker(pocket_stage.folder)
        time.sleep(moments.uniform(0.0, 1.1 * whole))
        victim.kill()
        if pocket_stage.is_done():
            assert _digest(pocket_stage.output) == _digest(reference.output)
            _forget(pocket_stage)
    assert worker(pocket_stage.folder).wait() == 0
    assert _digest(pocket_stage.output) == _digest(reference.output)


def _forget(stage: StageFolder) -> None:
    import shutil

    stage.done_json.unlink()
    shutil.rmtree(stage.output)
