"""Every training killed with SIGKILL at random moments and run again ends with the same weights and the same curve."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.execution.local import run_local
from ablate.execution.record import record_plan
from ablate.execution.slots import Machine
from ablate.execution.study import make_plan
from ablate.plan.stage import Stage
from ablate.store import StageFolder, Store

SPECIFICATION = """
name: killed
policy: pocket-small
pretrain: {steps: 40}
data: {max_examples: 240}
sft: {dataset: pocket-instructions, max_examples: 200, learning_rate: 1e-3, epochs: 12, batch_size: 16, max_length: 128}
reward_model: {learning_rate: 1.0e-3, epochs: 10, batch_size: 16, max_length: 128}
dpo: {learning_rate: 1.0e-4, epochs: 10, batch_size: 16, max_length: 128}
ppo:
  {learning_rate: 1e-4, steps: 12,
   prompts_per_step: 48, mini_batch_size: 16, max_prompt_length: 96, max_response_length: 24}
grid: [{dataset: pocket-hh, algorithm: [dpo, ppo]}]
"""


class _Silent:
    def started(self, stage: Stage) -> None: ...
    def waiting(self, stage: Stage) -> None: ...
    def ended(self, stage: Stage, outcome: object) -> None: ...
    def tick(self) -> None: ...


def _worker(folder: Path, checkpoint_seconds: float = 0.2) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ablate.worker", str(folder), "--checkpoint-seconds", str(checkpoint_seconds)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _checkpoints(stage: StageFolder) -> set[str]:
    return {path.parent.name for path in stage.attempts_folder.glob("*/work/**/complete.json")}


def _logged(stage: StageFolder) -> set[str]:
    """Every event of every attempt, but for what is said before the first step."""
    lines = (line for path in stage.attempts_folder.glob("*/events.jsonl") for line in path.read_text().splitlines())
    return {line for line in lines if '"micro_batch"' not in line}


def _wait_for_another(found: Callable[[StageFolder], set[str]], stage: StageFolder, known: set[str]) -> None:
    deadline = time.monotonic() + 120
    while found(stage) <= known:
        assert time.monotonic() < deadline, "nothing happened within two minutes"
        assert not stage.is_done(), "it ended before it could be killed"
        time.sleep(0.01)


def _kill_near_a_checkpoint(stage: StageFolder, moments: random.Random) -> None:
    """Kill an attempt soon after its first checkpoint, perhaps amid the next: it went further than those before."""
    known = _checkpoints(stage)
    victim = _worker(stage.folder)
    _wait_for_another(_checkpoints, stage, known)
    _kill(victim, moments)


def _kill_far_from_a_checkpoint(stage: StageFolder, moments: random.Random) -> None:
    """Kill an attempt that has made steps and no checkpoint: those steps are lost."""
    known = _checkpoints(stage)
    victim = _worker(stage.folder, checkpoint_seconds=600)
    _wait_for_another(_logged, stage, _logged(stage))
    _kill(victim, moments)
    assert _checkpoints(stage) == known


def _ask_for_a_checkpoint(stage: StageFolder, moments: random.Random) -> None:
    """Ask an attempt that has made steps to stop, as a cluster does: it writes a checkpoint first."""
    known = _checkpoints(stage)
    victim = _worker(stage.folder, checkpoint_seconds=600)
    _wait_for_another(_logged, stage, _logged(stage))
    victim.send_signal(signal.SIGUSR1)
    assert victim.wait(timeout=120) == 130
    assert len(_checkpoints(stage)) > len(known) and stage.last_failure() is None


def _kill(victim: subprocess.Popen[bytes], moments: random.Random) -> None:
    time.sleep(moments.uniform(0.0, 0.3))
    victim.kill()
    assert victim.wait() == -signal.SIGKILL


KILLS = (*(_kill_far_from_a_checkpoint, _kill_near_a_checkpoint) * 2, _ask_for_a_checkpoint)
"""Before the first checkpoint, near one, between two, near one, at one that was asked for."""


def _result(stage: StageFolder) -> dict[str, str]:
    names = ("model/model.safetensors", "history.jsonl")
    return {name: hashlib.sha256((stage.output / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
def test_every_training_survives_kills(tmp_path: Path) -> None:
    spec = tmp_path / "killed.yaml"
    spec.write_text(SPECIFICATION)
    store = Store(tmp_path / "store").open()
    plan = make_plan(str(spec), [], store)
    record_plan(store, plan)
    shared = [stage.id for stage in plan.stages.values() if stage.kind != "train"]
    trained = [stage for stage in plan.stages.values() if stage.kind in ("sft", "reward_model", "train")]
    assert len(trained) == 4
    made = run_local(store, plan.stages, shared, Machine(jobs=2, threads=1, gpus=()), _Silent())
    assert made.count("done") == len(shared)
    moments = random.Random(0)
    for stage in trained:
        folder = store.stage(stage.id)
        assert _worker(folder.folder).wait(timeout=300) == 0
        reference = _result(folder)
        folder.done_json.unlink()
        shutil.rmtree(folder.output)
        shutil.rmtree(folder.attempts_folder)
        for kill in KILLS:
            kill(folder, moments)
        assert len(_checkpoints(folder)) >= len(KILLS) - KILLS.count(_kill_far_from_a_checkpoint)
        assert _worker(folder.folder).wait(timeout=300) == 0
        assert _result(folder) == reference
