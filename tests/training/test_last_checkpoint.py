"""A trainer that is asked to stop writes a checkpoint first, and goes on from it to the same result."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablate.context import STOP_ASKED
from ablate.errors import StopRequested
from ablate.training.checkpoints import Cadence, CheckpointClock, complete_checkpoints


@pytest.fixture(autouse=True)
def asked() -> Iterator[None]:
    previous = signal.getsignal(signal.SIGUSR1)
    yield
    STOP_ASKED.clear()
    signal.signal(signal.SIGUSR1, previous)


def write(folder: Path) -> None:
    (folder / "weights").write_text("4")


def test_a_signal_makes_the_next_step_the_last_one(tmp_path: Path) -> None:
    clock = CheckpointClock(Cadence(seconds=1e9))
    assert not clock.due(3, 10)
    signal.raise_signal(signal.SIGUSR1)
    assert clock.due(4, 10)
    assert not clock.due(10, 10), "after the last step the model itself follows"
    with pytest.raises(StopRequested):
        clock.save(tmp_path, 4, write)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["checkpoint-4"]


def test_a_clock_in_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    thread = threading.Thread(target=CheckpointClock, args=(Cadence(),))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGUSR1) is before
