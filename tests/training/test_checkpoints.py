"""Checkpoints count only when whole; the training curve and the seeds survive them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablate.context import EventLog, read_json
from ablate.errors import StageError
from ablate.training import checkpoints
from ablate.training.checkpoints import (
    Cadence,
    CheckpointClock,
    checkpoint_step,
    complete_checkpoints,
    latest_checkpoint,
    save_checkpoint,
)
from ablate.training.history import History
from ablate.training.seeding import derive_seed


def write_step(step: int, size: int = 10):
    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "state.json").write_text(json.dumps([step] * size))

    return write


def test_a_saved_checkpoint_is_found_and_older_ones_go(tmp_path):
    for step in (5, 10, 100):
        path = save_checkpoint(tmp_path, step, write_step(step), keep=2)
    assert latest_checkpoint([tmp_path]) == path
    assert [checkpoint_step(found) for found in complete_checkpoints(tmp_path)] == [100, 10]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100"]


def test_a_write_that_fails_leaves_the_older_checkpoint_in_force(tmp_path):
    save_checkpoint(tmp_path, 5, write_step(5))

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path, 10, fail)
    found = latest_checkpoint([tmp_path])
    assert found is not None and checkpoint_step(found) == 5


def test_a_checkpoint_of_the_same_step_is_replaced_and_never_missed(tmp_path, monkeypatch):
    """A write that fails, and a kill between any two renames, leave the old one or the new one in force."""
    save_checkpoint(tmp_path, 5, write_step(5))

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ValueError("no number")

    with pytest.raises(ValueError, match="no number"):
        save_checkpoint(tmp_path, 5, fail)
    assert read_json(tmp_path / "checkpoint-5" / "deep" / "state.json") == [5] * 10

    class Killed(BaseException):
        pass

    replace, write_marker = os.replace, checkpoints.write_json
    for last in range(4):
        left = iter(range(last))

        def until(work, *arguments, left=left):
            if next(left, None) is None:
                raise Killed
            work(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *arguments, until=until: until(replace, *arguments))
            patch.setattr(checkpoints, "write_json", lambda *arguments, until=until: until(write_marker, *arguments))
            with contextlib.suppress(Killed):
                save_checkpoint(tmp_path, 5, write_step(6 + last))
        found = latest_checkpoint([tmp_path])
        assert found is not None and checkpoint_step(found) == 5
        assert read_json(found / "deep" / "state.json")[0] in (5, 6 + last)
    save_checkpoint(tmp_path, 5, write_step(20))
    assert read_json(tmp_path / "checkpoint-5" / "deep" / "state.json") == [20] * 10
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == [tmp_path / "checkpoint-5"]


def test_a_folder_without_marker_is_ignored_and_written_anew(tmp_path):
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "half").write_text("half")
    assert latest_checkpoint([tmp_path]) is None
    path = save_checkpoint(tmp_path, 7, write_step(7))
    assert not (path / "half").exists()
    assert read_json(path / "deep" / "state.json") == [7] * 10


def test_the_highest_step_wins_over_attempts_and_missing_folders(tmp_path):
    now, before = tmp_path / "now", tmp_path / "before"
    save_checkpoint(before, 20, write_step(20))
    save_checkpoint(now, 10, write_step(10))
    assert latest_checkpoint([now, before, tmp_path / "absent"]) == before / "checkpoint-20"
    assert latest_checkpoint([tmp_path / "absent"]) is None


WRITER = """
import sys
from pathlib import Path
from ablate.training.checkpoints import save_checkpoint
def write(step):
    def inner(folder):
        for index in range(20):
            (folder / f"part-{index}").write_text(str(step) * 5000)
    return inner
step = 0
print("ready", flush=True)
while True:
    step += 1
    save_checkpoint(Path(sys.argv[1]), step, write(step))
"""


def test_whatever_moment_the_writer_is_killed_the_newest_marked_checkpoint_is_whole(tmp_path):
    for attempt in range(4):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.037 * attempt)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        found = latest_checkpoint([tmp_path])
        if found is None:
            continue
        step = checkpoint_step(found)
        assert {(found / f"part-{index}").read_text() for index in range(20)} == {str(step) * 5000}


def test_listing_while_another_process_saves_and_removes_never_fails(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        steps = []
        deadline = time.monotonic() + 60
        while (not steps or steps[-1] < 100) and time.monotonic() < deadline:
            found = latest_checkpoint([tmp_path])
            steps += [checkpoint_step(found)] if found is not None else []
    finally:
        child.kill()
        child.communicate()
    assert steps == sorted(steps)
    assert steps[-1] >= 100


def test_checkpoints_are_due_by_the_clock_or_the_step_and_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def slow(folder: Path) -> None:
        nonlocal now
        now += 3.0  # seconds of writing

    clock = CheckpointClock(Cadence(seconds=30.0, steps=7))
    assert [step for step in range(1, 22) if clock.due(step, 21)] == [7, 14], "not after the last one"
    now += 30.0
    assert clock.due(1, 2) and not clock.due(2, 2)
    clock.save(tmp_path, 1, slow)
    assert checkpoint_step(complete_checkpoints(tmp_path)[0]) == 1
    now += 59.9
    assert not clock.due(2, 9)
    now += 0.1  # 3 s are 5 % of 60 s
    assert clock.due(2, 9)
    always = CheckpointClock(Cadence(seconds=0.0))
    always.save(tmp_path, 2, slow)
    assert always.due(3, 9)


def test_a_marked_folder_of_another_name_is_refused(tmp_path):
    (tmp_path / "checkpoint-final").mkdir()
    (tmp_path / "checkpoint-final" / "complete.json").write_text("{}")
    with pytest.raises(StageError, match="checkpoint-final is not named checkpoint-<step>"):
        latest_checkpoint([tmp_path])


def test_history_resumed_from_a_checkpoint_equals_an_unbroken_one(tmp_path):
    def train(history: History, start: int, end: int) -> None:
        for step in range(start, end):
            history.add(3, loss=1.0 / (step + 1))
            history.add(1, loss=0.5, grad_norm=step)
            if step % 3 == 2:
                history.log(step + 1, **history.means())

    unbroken, first, resumed = History(), History(), History()
    train(unbroken, 0, 9)
    train(first, 0, 4)  # between two logged steps: the sums so far must travel
    first.save(tmp_path)
    resumed.load(tmp_path)
    train(resumed, 4, 9)
    assert resumed.records == unbroken.records


def test_history_means_are_weighted_and_files_hold_no_nan(tmp_path):
    history = History(EventLog(tmp_path / "events.jsonl"), total_steps=4)
    history.add(3, loss=1.0)
    history.add(1, loss=5.0)
    history.log(2, **history.means(), ratio=math.inf)
    history.write(tmp_path / "history.jsonl")
    assert json.loads((tmp_path / "history.jsonl").read_text()) == {"step": 2, "loss": 2.0, "ratio": None}
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event.get("loss") for event in events] == [2.0, None]
    assert (events[1]["progress"], events[1]["total"]) == (2, 4)
    assert history.means() == {}


def test_derived_seeds_are_fixed_and_independent():
    # known answer of `printf '[0,"order",1]' | sha256sum`
    assert derive_seed(0, "order", 1) == int(KNOWN_DIGEST, 16)
    assert len({derive_seed(seed, part) for seed in range(50) for part in ("a", "b")}) == 100
    assert derive_seed(1, "2") != derive_seed("1", 2)


KNOWN_DIGEST = "33a27f56"
