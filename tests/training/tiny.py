"""Random models of a few thousand weights, and a training stage whose process is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from ablate.context import StageContext

PAD, EOS = 0, 1

_STAGE = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ablate.context import EventLog, Resources, StageContext, import_function
given = json.loads(sys.argv[1])
folder = Path(given["folder"])
import_function(given["entry"], "the stage's work")(
    StageContext(kind="train", config=given["config"], inputs={k: Path(v) for k, v in given["inputs"].items()},
        output=folder / "output", work=folder / "work", events=EventLog(folder / "events.jsonl"),
        resources=Resources(threads=1, checkpoint_seconds=0)))
"""


def llama(vocabulary: int, **changes: Any) -> LlamaConfig:
    """Return what a Llama of two layers is made from."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"pad_token_id": PAD, "eos_token_id": EOS, "tie_word_embeddings": True}
    return LlamaConfig(**{"vocab_size": vocabulary, "max_position_embeddings": 32, **shape, **special, **changes})


def kill_after_a_checkpoint(entry: str, killed: StageContext, inputs: Mapping[str, Path]) -> None:
    """Run a stage's work, ``module:function``, in a process of its own and kill that at its first checkpoint."""
    given = {
        "entry": entry,
        "folder": str(killed.output.parent),
        "config": killed.config,
        "inputs": {name: str(path) for name, path in inputs.items()},
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _STAGE, json.dumps(given)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=killed.output.parent,
    )
    try:
        while not list(killed.work.glob("checkpoint-*/complete.json")):
            assert process.poll() is None, "the run ended before its first checkpoint"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (killed.output / "model").exists(), "the run was over before it could be killed"
