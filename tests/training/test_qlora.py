"""Frozen weights in four bits under an adapter, with bitsandbytes itself, on the CPU."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ablate.algorithms.dpo import DPOParameters
from ablate.models.loading import load_policy, load_reward_model, load_tokenizer, save_model
from ablate.models.quantisation import dense, is_quantised
from ablate.training import logprobs, policy_gradient, preference, reward
from ablate.training.lora import trained_weights, with_adapter

pytestmark = [
    pytest.mark.qlora,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # in peft
]

FOUR_BITS = {"lora_rank": 4, "lora_alpha": 8, "quantisation": "4bit"}
IDS = torch.tensor([[6, 7, 8, 9, 10], [11, 12, 13, 14, 15]])


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of an adapter that is not zero, after a pass in evaluation mode."""
    adapted = with_adapter(model, DPOParameters(**FOUR_BITS), seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in trained_weights(adapted).values():
            value += 0.05 * torch.randn(value.shape, generator=generator)
        adapted.eval()(IDS)
    adapted.train()(IDS, labels=IDS).loss.backward()
    return {name: value.grad for name, value in trained_weights(adapted).items()}


def test_gradients_are_those_of_the_weights_that_four_bits_stand_for(policy_folder: Path) -> None:
    quantised = load_policy(policy_folder, quantisation="4bit")
    assert is_quantised(quantised)
    found = gradients(quantised)
    expected = gradients(dense(load_policy(policy_folder, quantisation="4bit")))
    assert found.keys() == expected.keys() and {value.dtype for value in found.values()} == {torch.float32}
    for name, value in found.items():
        other = expected[name]
        assert torch.cosine_similarity(value.flatten(), other.flatten(), dim=0) > 0.999, name
        assert value.norm().item() == pytest.approx(other.norm().item(), rel=0.02), name


def history(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]


def test_dpo_starts_at_ln_2_learns_and_publishes_what_the_bits_stand_for(
    policy_folder: Path, write_pairs: Any, make_context: Any
) -> None:
    data = write_pairs(29)
    before = make_context(
        "reference", {"dtype": "float32", "quantisation": "4bit"}, {"model": policy_folder, "data": data}
    )
    logprobs.run(before)
    inputs = {"policy": policy_folder, "data": data, "reference_logprobs": before.output / "logprobs.parquet"}
    parameters = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, **FOUR_BITS}
    context = make_context("dpo", {"algorithm": "dpo", "seed": 3, "parameters": parameters}, inputs)
    preference.run(context)
    records = history(context.output)
    assert records[0]["loss"] == pytest.approx(math.log(2), abs=2e-2)  # multiplied in bfloat16
    assert records[-1]["rewards/accuracy"] > 0.9
    adapter = load_file(context.output / "adapter" / "adapter_model.safetensors")
    stood_for = dense(load_policy(policy_folder, quantisation="4bit"))
    for name, value in load_policy(context.output / "model").named_parameters():
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        expected = stood_for.get_parameter(name)
        if f"{layer}.lora_A.weight" in adapter:
            expected = expected + 2 * adapter[f"{layer}.lora_B.weight"] @ adapter[f"{layer}.lora_A.weight"]
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


def test_a_reward_model_learns(policy_folder: Path, write_pairs: Any, make_context: Any) -> None:
    parameters = {"epochs": 4, "batch_size": 8, "learning_rate": 1e-2, **FOUR_BITS}
    context = make_context(
        "rm", {"parameters": parameters, "seed": 5}, {"model": policy_folder, "data": write_pairs(32)}
    )
    reward.run(context)
    records = history(context.output)
    assert records[-1]["loss"] < min(records[0]["loss"], math.log(2) / 2)
    assert load_reward_model(context.output / "model").config.num_labels == 1


def test_ppo_starts_at_its_reference(policy_folder: Path, tmp_path: Path, make_context: Any) -> None:
    save_model(load_reward_model(policy_folder, head_seed=0), load_tokenizer(policy_folder), tmp_path / "judge")
    prompts = {"id": [f"p{i}" for i in range(12)], "prompt_ids": [[6 + i, 7 + i % 5] for i in range(12)]}
    pq.write_table(pa.table(prompts), tmp_path / "prompts.parquet")
    inputs = dict.fromkeys(("policy", "reference"), policy_folder)
    inputs |= {"reward_model": tmp_path / "judge", "prompts": tmp_path / "prompts.parquet"}
    parameters = {
        "learning_rate": 1e-2,
        "prompts_per_step": 8,
        "mini_batch_size": 4,
        "max_response_length": 6,
        "steps": 3,
        "missing_eos_reward": None,
        **FOUR_BITS,
    }
    context = make_context("ppo", {"algorithm": "ppo", "parameters": parameters, "seed": 3}, inputs)
    policy_gradient.run(context)
    records = history(context.output)
    assert abs(records[0]["kl"]) < 1e-2 < abs(records[-1]["kl"])
    assert not is_quantised(load_policy(context.output / "model"))
