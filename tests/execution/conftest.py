"""A store with one light stage, and the means to run it in a process that can be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.context import write_json
from ablate.plan.graph import Graph
from ablate.plan.stage import Stage
from ablate.store import StageFolder, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").open()


@pytest.fixture
def add_stage(store: Store) -> Callable[[Stage], StageFolder]:
    def add(stage: Stage) -> StageFolder:
        folder = store.stage(stage.id)
        folder.folder.mkdir(parents=True)
        write_json(folder.stage_json, stage.as_json())
        return folder

    return add


@pytest.fixture
def pocket_stage(add_stage: Callable[[Stage], StageFolder]) -> StageFolder:
    config = {"what": "preferences", "name": "hh", "n": 1500, "seed": 3, "split": "train"}
    return add_stage(Graph().add("pocket", config, label="rows"))


class Worker:
    """``python -m ablate.worker`` as a subprocess that can be killed with its children."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ablate.worker", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def wait(self) -> int:
        self.process.communicate(timeout=120)
        return self.process.returncode


@pytest.fixture
def worker() -> Callable[[Path], Worker]:
    return Worker
