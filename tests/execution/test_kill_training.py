"""DPO and PPO killed with SIGKILL at random moments and run again end with the same weights and the same curve."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
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
sft: {dataset: pocket-instructions, max_examples: 200, learning_rate: 1e-3, epochs: 1, batch_size: 32, max_length: 128}
reward_model: {learning_rate: 1.0e-3, batch_size: 32, max_length: 128}
dpo: {learning_rate: 1.0e-4, epochs: 12, batch_size: 16, max_length: 128}
ppo:
  {learning_rate: 1e-4, steps: 16,
   prompts_per_step: 48, mini_batch_size: 16, max_prompt_length: 96, max_response_length: 24}
grid: [{dataset: pocket-hh, algorithm: [dpo, ppo]}]
"""


class _Silent:
    def started(self, stage: Stage) -> None: ...
    def waiting(self, stage: Stage) -> None: ...
    def ended(self, stage: Stage, outcome: object) -> None: ...
    def tick(self) -> None: ...


def _worker(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ablate.worker", str(folder), "--checkpoint-seconds", "0.2"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _checkpoints(stage: StageFolder) -> set[str]:
    return {path.parent.name for path in stage.attempts_folder.glob("*/work/**/complete.json")}


def _wait_for_another_checkpoint(stage: StageFolder, known: set[str]) -> None:
    deadline = time.monotonic() + 120
    while _checkpoints(stage) <= known:
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        assert not stage.is_done(), "it ended before it could be killed"
        time.sleep(0.01)


def _result(stage: StageFolder) -> dict[str, str]:
    names = ("model/model.safetensors", "history.jsonl")
    return {name: hashlib.sha256((stage.output / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
def test_dpo_and_ppo_survive_kills(tmp_path: Path) -> None:
    spec = tmp_path / "killed.yaml"
    spec.write_text(SPECIFICATION)
    store = Store(tmp_path / "store").open()
    plan = make_plan(str(spec), [], store)
    record_plan(store, plan)
    shared = [stage.id for stage in plan.stages.values() if stage.kind != "train"]
    made = run_local(store, plan.stages, shared, Machine(jobs=2, threads=1, gpus=()), _Silent())
    assert made.count("done") == len(shared)
    moments = random.Random(0)
    for stage, kills in zip([s for s in plan.stages.values() if s.kind == "train"], (3, 2), strict=True):
        folder = store.stage(stage.id)
        assert _worker(folder.folder).wait(timeout=300) == 0
        reference = _result(folder)
        folder.done_json.unlink()
        shutil.rmtree(folder.output)
        shutil.rmtree(folder.attempts_folder)
        for _ in range(kills):
            known = _checkpoints(folder)
            victim = _worker(folder.folder)
            _wait_for_another_checkpoint(folder, known)  # so that every attempt goes further than the one before
            time.sleep(moments.uniform(0.0, 0.3))
            victim.kill()
            assert victim.wait() == -signal.SIGKILL
        assert len(_checkpoints(folder)) >= kills
        assert _worker(folder.folder).wait(timeout=300) == 0
        assert _result(folder) == reference
