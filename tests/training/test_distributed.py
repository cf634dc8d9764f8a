"""Two processes train what one does: shares of batches, and losses, curves and weights of every trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ablate.context import Resources, StageContext, import_function
from ablate.errors import StageError
from ablate.models.loading import load_reward_model, load_tokenizer, save_model
from ablate.training import batches, experience, logprobs, trainer
from ablate.training.batches import MicroBatches, batch_order
from ablate.training.experience import PassLimits
from ablate.training.rollouts import Episode

LENGTHS = np.random.default_rng(0).integers(2, 60, 48)


def as_rank(monkeypatch: pytest.MonkeyPatch, module: Any, rank: int, world: int) -> None:
    monkeypatch.setattr(module, "world", lambda: world, raising=False)
    monkeypatch.setattr(module, "share", lambda items: list(items[rank::world]), raising=False)


@pytest.mark.parametrize("examples", [45, 48, 41, 8, 1])
@pytest.mark.parametrize(("world", "size"), [(2, 1), (2, 2), (2, 4), (4, 1)])
def test_shares_are_the_batches_of_one_process_in_passes_of_equal_number(
    monkeypatch: pytest.MonkeyPatch, examples: int, world: int, size: int
) -> None:
    order = batch_order(LENGTHS[:examples], 8, seed=1, epoch=2)
    dealt = []
    for rank in range(world):
        as_rank(monkeypatch, batches, rank, world)
        sampler = MicroBatches(LENGTHS[:examples], batch_size=8, micro_batch=size, seed=1)
        sampler.set_epoch(2)
        dealt.append(list(sampler))
        assert len(dealt[-1]) == len(sampler)
    assert len({len(passes) for passes in dealt}) == 1
    passes = 8 // world // size
    for number, rows in enumerate(order):
        window = slice(number * passes, (number + 1) * passes)
        found = [row for own in dealt for micro in own[window] for row in micro if row >= 0]
        assert sorted(found) == sorted(rows)
        assert all(len(micro) == 1 for own in dealt for micro in own[window] if micro[0] < 0)
    idle = sum(micro[0] < 0 for own in dealt for micro in own)
    assert idle == 0 or examples % 8, "only a batch that is not whole leaves a process without a row"


def test_a_step_of_rollouts_is_shared_and_nothing_is_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = [Episode(str(i), [1] * (i % 5 + 1), [2] * (i % 3 + 1), True) for i in range(11)]
    limits, rows, found = PassLimits(torch.device("cpu"), 12, 2**20, rows=2), [9, 1, 4, 7, 0, 3, 10], []
    for rank in range(2):
        as_rank(monkeypatch, experience, rank, 2)
        found.append(limits.chunks(episodes, rows))
    assert sorted(row for chunks in found for chunk in chunks for row in chunk) == sorted(rows)
    assert sorted(row for chunk in found[0] for row in chunk) == sorted(rows[0::2])


def test_a_batch_that_cannot_be_shared_equally_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "world", lambda: 3)
    with pytest.raises(StageError, match="a batch of 8 examples can't be shared equally by 3 processes"):
        trainer._batch_share(8)


RANKS = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ablate.context import EventLog, Resources, StageContext, import_function
from ablate.execution.ranks import launch
from ablate.store import AttemptFolder
for stage in json.loads(sys.argv[1]):
    folder = Path(stage["folder"])
    context = StageContext(
        kind="train", config=stage["config"], inputs={role: Path(path) for role, path in stage["inputs"].items()},
        output=folder / "output", work=folder / "work", events=EventLog(folder / "events.jsonl"),
        previous_work=tuple(map(Path, stage["previous"])), resources=Resources(**stage["resources"]),
    )
    work = import_function(stage["entry"], "the work")
    assert launch(AttemptFolder(folder), 2, lambda rank: rank.run(work, context) and 0) == 0, stage["entry"]
"""


def write_conversations(path: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    ids = [random.integers(6, 46, random.integers(6, 24)).tolist() for _ in range(count)]
    masks = [[0, 0, *random.integers(0, 2, len(row) - 3).tolist(), 1] for row in ids]
    pq.write_table(pa.table({"id": [str(i) for i in range(count)], "input_ids": ids, "loss_mask": masks}), path)
    return path


@pytest.fixture
def stages(policy_folder: Path, write_pairs: Any, make_context: Any, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """A small stage of each trainer; the last batches are not whole, one leaves the second process without a row."""
    pairs = write_pairs(29)
    reference = make_context("reference", {"dtype": "float32"}, {"model": policy_folder, "data": pairs})
    logprobs.run(reference)
    others = make_context("mismatched", {"dtype": "float32", "completions": "mismatched"}, reference.inputs)
    logprobs.run(others)
    save_model(load_reward_model(policy_folder, head_seed=0), load_tokenizer(policy_folder), tmp_path / "judge")
    prompts = {"id": [f"p{i}" for i in range(12)], "prompt_ids": [[6 + i, 7 + i % 5][: 1 + i % 2] for i in range(12)]}
    pq.write_table(pa.table(prompts), tmp_path / "prompts.parquet")
    common = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 8}
    rollouts = {"prompts_per_step": 10, "mini_batch_size": 5, "max_response_length": 6, "missing_eos_reward": None}
    roles = {"policy": policy_folder, "reference": policy_folder, "reward_model": tmp_path / "judge"}
    sft = write_conversations(tmp_path / "conversations.parquet", 25)
    given = {
        "sft": ("ablate.training.sft:run", common, {"model": policy_folder, "data": sft}),
        "reward_model": ("ablate.training.reward:run", common, {"model": policy_folder, "data": pairs}),
        "dpo": (
            "ablate.training.preference:run",
            common,
            {"policy": policy_folder, "data": pairs, "reference_logprobs": reference.output / "logprobs.parquet"},
        ),
        "dpo_lora": (
            "ablate.training.preference:run",
            {**common, "lora_rank": 4},
            {"policy": policy_folder, "data": pairs, "reference_logprobs": reference.output / "logprobs.parquet"},
        ),
        "kto": (
            "ablate.training.preference:run",
            common,
            {
                "policy": policy_folder,
                "data": pairs,
                "reference_logprobs": reference.output / "logprobs.parquet",
                "mismatched_logprobs": others.output / "logprobs.parquet",
            },
        ),
        "bco": (
            "ablate.training.preference:run",
            common,
            {"policy": policy_folder, "data": pairs, "reference_logprobs": reference.output / "logprobs.parquet"},
        ),
        "ppo": (
            "ablate.training.policy_gradient:run",
            {"learning_rate": 1e-3, "steps": 3, "inner_epochs": 2, **rollouts},
            {**roles, "prompts": tmp_path / "prompts.parquet"},
        ),
        "grpo": (
            "ablate.training.policy_gradient:run",
            {"learning_rate": 1e-3, "steps": 3, "responses_per_prompt": 2, **rollouts},
            {**roles, "prompts": tmp_path / "prompts.parquet"},
        ),
    }
    return {
        name: {
            "entry": entry,
            "inputs": inputs,
            "config": {"algorithm": name.partition("_")[0], "parameters": parameters, "seed": 3},
        }
        for name, (entry, parameters, inputs) in given.items()
    }


def for_two_ranks(stage: dict[str, Any], context: StageContext, **resources: Any) -> dict[str, Any]:
    """A stage with its folders and how it runs; it writes a checkpoint after every step."""
    named = {"micro_batch": 2, "processes": 2, "checkpoint_seconds": 0.0, **resources}
    previous = list(context.previous_work)
    return {**stage, "folder": context.output.parent, "previous": previous, "resources": named}


def run_with_two_ranks(stages: list[dict[str, Any]]) -> None:
    root = Path(__file__).parents[2]
    text = json.dumps(stages, default=str)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ended = subprocess.run([sys.executable, "-c", RANKS, text], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]


def history(context: StageContext) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (context.output / "history.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_give_the_losses_and_weights_of_one(
    stages: dict[str, dict[str, Any]], make_context: Callable[..., StageContext]
) -> None:
    single, double, asked = {}, {}, []
    for name, stage in stages.items():
        resources = Resources(micro_batch=2)
        single[name] = make_context(f"{name}-1", stage["config"], stage["inputs"], resources=resources)
        import_function(stage["entry"], "the work")(single[name])
        double[name] = make_context(f"{name}-2", stage["config"], stage["inputs"])
        asked.append(for_two_ranks(stage, double[name]))
    run_with_two_ranks(asked)
    for name in stages:
        one, two = history(single[name]), history(double[name])
        assert [record["step"] for record in one] == [record["step"] for record in two]
        for expected, found in zip(one, two, strict=True):
            assert expected.keys() == found.keys()
            assert found["loss"] == pytest.approx(expected["loss"], abs=1e-4), name
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), name
        first, second = (load_file(c.output / "model" / "model.safetensors") for c in (single[name], double[name]))
        for key, tensor in first.items():
            torch.testing.assert_close(tensor, second[key], rtol=0, atol=2e-4, msg=lambda text, n=name: f"{n}: {text}")
        assert (double[name].output.parent / "events.jsonl").read_text().count('"loss"') == len(two)
        assert not (double[name].output.parent / "ranks").exists()
    texts = [(runs["ppo"].output / "samples.jsonl").read_text().splitlines() for runs in (single, double)]
    assert len({tuple(json.loads(line)["response"] for line in lines) for lines in texts}) == 1


@pytest.mark.slow
@pytest.mark.deepspeed
@pytest.mark.parametrize(
    ("sharding", "names"),
    [("zero2", ["sft", "reward_model", "dpo", "kto", "ppo"]), ("zero3", ["sft", "reward_model", "dpo"])],
)
def test_what_deepspeed_shares_out_trains_as_one_process_and_goes_on_from_its_checkpoints(
    sharding: str, names: list[str], stages: dict[str, dict[str, Any]], make_context: Callable[..., StageContext]
) -> None:
    single, shared, resumed = {}, {}, {}
    for name in names:
        stage = stages[name]
        given = stage["config"], stage["inputs"]
        single[name] = make_context(f"{name}-1", *given, resources=Resources(micro_batch=2))
        import_function(stage["entry"], "the work")(single[name])
        shared[name] = make_context(f"{name}-2", *given)
        resumed[name] = make_context(f"{name}-3", *given, previous_work=[shared[name].work])
    for contexts in (shared, resumed):
        run_with_two_ranks(
            [for_two_ranks(stages[name], context, sharding=sharding) for name, context in contexts.items()]
        )
    for name in names:
        for expected, found in zip(history(single[name]), history(shared[name]), strict=True):
            assert found["loss"] == pytest.approx(expected["loss"], abs=1e-4), name
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), name
        one, two, three = (load_file(c[name].output / "model" / "model.safetensors") for c in (single, shared, resumed))
        assert one.keys() == two.keys() == three.keys()
        for key, tensor in one.items():
            torch.testing.assert_close(tensor, two[key], rtol=0, atol=2e-4, msg=lambda text, n=name: f"{n}: {text}")
            assert torch.equal(two[key], three[key]), f"{name}: {key}"
        assert history(shared[name]) == history(resumed[name])
        assert len((resumed[name].output.parent / "events.jsonl").read_text().split('"loss"')) == 2, "one step was left"
