"""How a stage stands, from waiting to done: what `ablate status` and reports say."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate import liveness
from ablate.context import Resources, StageContext, write_json
from ablate.errors import StageError
from ablate.execution import lease
from ablate.execution.runner import run_stage
from ablate.liveness import StageState, stage_state
from ablate.plan.graph import Graph
from ablate.plan.stage import Stage
from ablate.store import AttemptFolder, StageFolder


def fail_until_there(context: StageContext) -> None:
    """Work of a test stage that fails until a file is there."""
    if not Path(context.config["path"]).exists():
        raise StageError("not yet")


@pytest.fixture
def stage(add_stage: Callable[[Stage], StageFolder], tmp_path: Path) -> StageFolder:
    config = {"path": str(tmp_path / "there")}
    return add_stage(Graph().add("pocket", config, label="late", entry=f"{__name__}:fail_until_there"))


def claimed(stage: StageFolder) -> AttemptFolder:
    attempt = lease.claim(stage)
    assert attempt is not None
    return attempt


def die(attempt: AttemptFolder) -> None:
    """Let the owner of an attempt be a process that is gone."""
    write_json(attempt.owner_json, {"host": "", "boot": "", "pid": 1, "started": ""})
    attempt.heartbeat.unlink()


def test_a_stage_is_waiting_running_interrupted_failed_and_done(stage: StageFolder, tmp_path: Path) -> None:
    assert stage_state(stage) == StageState("waiting")
    attempt = claimed(stage)
    assert stage_state(stage) == StageState("running", 1)
    die(attempt)
    assert stage_state(stage) == StageState("interrupted", 1)
    assert run_stage(stage.folder, Resources()).status == "failed"
    assert stage_state(stage) == StageState("failed", 2, "not yet")
    lease.end(claimed(stage), "interrupted")
    assert stage_state(stage) == StageState("interrupted", 3), "a later attempt that was stopped did not fail"
    (tmp_path / "there").touch()
    assert run_stage(stage.folder, Resources()).status == "done"
    assert stage_state(stage) == StageState("done")


@pytest.mark.parametrize("skew", [-3600.0, 3600.0], ids=["an hour behind", "an hour ahead"])
def test_a_node_with_a_wrong_clock_keeps_what_it_runs_and_loses_what_it_ran(
    stage: StageFolder, skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "WATCHED_SECONDS", 3.0)
    attempt = claimed(stage)
    write_json(attempt.owner_json, {"host": "n7", "boot": "another", "pid": 1, "started": "1"})
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.1):
            os.utime(attempt.heartbeat, (time.time() + skew,) * 2)

    node = threading.Thread(target=beat)
    node.start()
    try:
        time.sleep(0.3)
        assert lease.claim(stage) is None, "it is alive, whatever time it thinks it is"
    finally:
        over.set()
        node.join()
    assert claimed(stage).number == 2, "and gone when its heartbeat stands still"


def test_a_stage_published_between_two_looks_is_done(stage: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    lease.end(claimed(stage), "done")

    def publish_meanwhile(self: AttemptFolder) -> None:
        write_json(stage.done_json, {"seconds": 1.0})

    monkeypatch.setattr(AttemptFolder, "read_failure", publish_meanwhile)
    assert stage_state(stage) == StageState("done")
