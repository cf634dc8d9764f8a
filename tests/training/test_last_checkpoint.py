"""A trainer that is asked to stop writes a checkpoint first, and goes on from it to the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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


RANKS = """
import os, sys
from pathlib import Path
from ablate.context import STOP_ASKED
from ablate.errors import StopRequested
from ablate.execution.ranks import launch
from ablate.store import AttemptFolder
from ablate.training.checkpoints import Cadence, CheckpointClock
from ablate.training.distributed import join, leave
folder = Path(sys.argv[1])
def run(rank):
    join(rank.rendezvous, rank.number, rank.world, rank.local)
    clock = CheckpointClock(Cadence(seconds=1e9))
    clock.save(folder, 3, lambda made: (made / f"part-{rank.number}").touch())
    if rank.number == 0:
        STOP_ASKED.set()
    try:
        clock.save(folder, 4, lambda made: (made / f"part-{rank.number}").touch())
    except StopRequested:
        (folder / f"stopped-{rank.number}").touch()
    leave()
    return 0
assert launch(AttemptFolder(folder), 2, run) == 0
"""


def test_all_processes_write_their_part_and_stop_when_the_first_is_asked(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", RANKS, str(tmp_path)], env=environment, timeout=300, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-4", "stopped-0", "stopped-1"}
    assert {path.name for path in (tmp_path / "checkpoint-4").iterdir()} == {"complete.json", "part-0", "part-1"}


def test_a_clock_in_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    thread = threading.Thread(target=CheckpointClock, args=(Cadence(),))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGUSR1) is before
