"""A real-shaped model trained with DPO and PPO in bfloat16: seconds a step and memory.

    python benchmarks/gpu.py [--shape 0.5b|1b|3b|8b|tiny] [--lora 16] [--steps 4] [--store DIR]

A Llama with random weights and a vocabulary of 32,000 is written to a folder, and `ablate run` trains it as it would
any other: reference log-probabilities, reward model, DPO, PPO, generation. Measured is the machine, not learning.
Steps are timed by the stages' own events, so that loading is no part of them; memory is the most that nvidia-smi saw.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ablate.context import read_json
from ablate.data.json_lines import read_json_lines
from ablate.store import StageFolder, Store

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "layers": 2, "heads": 2, "ffn_size": 128},
    "0.5b": {"hidden_size": 896, "layers": 24, "heads": 14, "ffn_size": 4864},
    "1b": {"hidden_size": 2048, "layers": 16, "heads": 32, "ffn_size": 8192},
    "3b": {"hidden_size": 3072, "layers": 28, "heads": 24, "ffn_size": 8192},
    "8b": {"hidden_size": 4096, "layers": 32, "heads": 32, "ffn_size": 14336},
}
VOCABULARY = 32_000
POSITIONS = 2048
KINDS = ("reference_logprobs", "reward_model", "train", "generate")


@dataclass
class Memory:
    """Watches the memory of the first GPU, in MiB, while it is open; 0 where there is none."""

    most: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Memory:
        """Begin to watch."""
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._ended.set()

    def _watch(self) -> None:
        if shutil.which("nvidia-smi") is None:
            return
        ask = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not self._ended.wait(0.5):
            used = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split()
            self.most = max([self.most, *map(int, used[:1])])


def write_model(folder: Path, shape: str) -> None:
    """Write a Llama of that shape with random weights, and a byte-level tokenizer of the usual vocabulary size."""
    from ablate.models.loading import new_policy, save_model
    from ablate.models.tokenizers import byte_tokenizer

    tokenizer = byte_tokenizer("tulu")
    tokenizer.add_tokens([f"<|unused {number}|>" for number in range(VOCABULARY - len(tokenizer))])
    model = new_policy({**SHAPES[shape], "max_positions": POSITIONS}, tokenizer, seed=0, dtype="bfloat16")
    save_model(model, tokenizer, folder)
    print(f"{shape}: {sum(weight.numel() for weight in model.parameters()) / 1e9:.2f} billion weights", flush=True)


def specification(model: Path, steps: int, lora: int | None) -> dict[str, Any]:
    """Return the experiment: a few steps of everything that trains, at lengths of a few hundred tokens."""
    how = {"dtype": "bfloat16", "lora_rank": lora}
    lengths = {"max_prompt_length": 512, "max_response_length": 256}
    return {
        "name": "gpu",
        "policy": str(model),
        "sft": None,
        "data": {"max_examples": 32 * steps},
        "reward_model": {**how, "batch_size": 32, "max_length": 1024},
        "dpo": {**how, "epochs": 1, "batch_size": 32, "max_length": 1024},
        "ppo": {**how, "steps": steps, "prompts_per_step": 32, "mini_batch_size": 16, **lengths},
        "grid": [{"dataset": "pocket-ultrafeedback", "algorithm": ["dpo", "ppo"]}],
        "baselines": ["base"],
        "evaluate": {"policy": ["pocket-gold"], "reward_model": ["pocket-pairs"]},
    }


def seconds_a_step(stage: StageFolder) -> float | None:
    """Return the mean seconds between the stage's first and its last step; null with fewer than two."""
    events = read_json_lines(stage.attempts()[-1].events)
    times = {event["step"]: event["time"] for event in events if event["step"] is not None}
    if len(times) < 2:
        return None
    first, last = min(times), max(times)
    return float(times[last] - times[first]) / (last - first)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="0.5b")
    parser.add_argument("--lora", type=int, default=None, help="rank of an adapter; default: all weights are trained")
    parser.add_argument("--steps", type=int, default=4, help="steps of each training")
    parser.add_argument("--store", type=Path, default=None, help="keep the store; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder / "model", given.shape)
        (folder / "gpu.yaml").write_text(yaml.safe_dump(specification(folder / "model", given.steps, given.lora)))
        store = Store(given.store or folder / "store")
        command = [sys.executable, "-m", "ablate", "run", str(folder / "gpu.yaml"), "--store", str(store.root)]
        with Memory() as memory:
            subprocess.run([*command, "--jobs", "1"], check=True)
        print(f"\n{'stage':<45}{'seconds':>9}{'s / step':>10}")
        for name, facts in store.experiment("gpu").read_plan()["stages"].items():
            stage = store.stage(name)
            if facts["kind"] in KINDS:
                step = seconds_a_step(stage)
                shown = "" if step is None else f"{step:.2f}"
                print(f"{facts['label'][:44]:<45}{read_json(stage.done_json)['seconds']:>9.1f}{shown:>10}")
        print(f"most memory of the first GPU: {memory.most} MiB" if memory.most else "no GPU")


if __name__ == "__main__":
    main()
