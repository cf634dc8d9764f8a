"""Low-rank adapters: the arithmetic by hand, against peft, in every trainer, resumed, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file

from ablate.algorithms.dpo import DPOParameters
from ablate.errors import StageError
from ablate.models import quantisation
from ablate.models.loading import load_policy, load_reward_model, load_tokenizer
from ablate.training import logprobs, on_policy, policy_gradient, preference, reward, sft
from ablate.training.checkpoints import Cadence, latest_checkpoint
from ablate.training.lora import FrozenBase, adapter_off, publish, trained_weights, with_adapter
from ablate.training.offline import OfflineTrainer
from ablate.training.placement import sampled_from

RANK, ALPHA = 4, 6
LORA = {"lora_rank": RANK, "lora_alpha": ALPHA}
IDS = torch.tensor([[6, 7, 8, 9, 10], [11, 12, 13, 14, 15]])


def load(folder: Path, kind: str):
    return load_policy(folder) if kind == "policy" else load_reward_model(folder, head_seed=0)


def moved(model):
    """Change what is trained, so that the adapter does something."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in trained_weights(model).values():
            value += 0.1 * torch.randn(value.shape, generator=generator)
    return model


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # in peft
@pytest.mark.parametrize("kind", ["policy", "reward model"])
def test_an_adapter_is_off_the_frozen_model_and_merged_the_model_it_was(policy_folder, tmp_path, kind):
    base = load(policy_folder, kind)
    before = base(IDS).logits
    model = with_adapter(load(policy_folder, kind), DPOParameters(**LORA), seed=1)
    assert torch.equal(model(IDS).logits, before)  # a new adapter is zero
    adapted = moved(model)(IDS).logits
    assert (adapted - before).abs().max() > 0.1
    with adapter_off(model):
        assert torch.equal(model(IDS).logits, before)
    assert torch.equal(FrozenBase(model)(input_ids=IDS).logits, before)
    with sampled_from(FrozenBase(model)) as lent:
        assert lent is model and torch.equal(model(IDS).logits, before)
    assert torch.equal(model(IDS).logits, adapted)
    publish(model, load_tokenizer(policy_folder), tmp_path / "model")
    merged = load_policy(tmp_path / "model") if kind == "policy" else load_reward_model(tmp_path / "model")
    torch.testing.assert_close(merged(IDS).logits, adapted, rtol=0, atol=1e-5)
    assert merged.config.to_dict().keys() == base.config.to_dict().keys()
    theirs = PeftModel.from_pretrained(load(policy_folder, kind), str(tmp_path / "adapter"))
    torch.testing.assert_close(theirs(IDS).logits, adapted, rtol=0, atol=1e-6)


def test_a_merged_layer_is_w_plus_alpha_over_r_times_b_a_and_others_are_as_they_were(policy_folder, tmp_path):
    parameters = DPOParameters(**LORA, lora_targets="q_proj, down_proj")
    model = moved(with_adapter(load_policy(policy_folder), parameters, seed=1))
    trained = {name: value.detach().clone() for name, value in trained_weights(model).items()}
    assert {name.split(".")[4] for name in trained} == {"q_proj", "down_proj"}
    publish(model, load_tokenizer(policy_folder), tmp_path / "model")
    before, after = (load_file(folder / "model.safetensors") for folder in (policy_folder, tmp_path / "model"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        layer = name.removesuffix(".weight")
        expected = weight.double()
        if layer.endswith(("q_proj", "down_proj")):
            a, b = (trained[f"{layer}.lora_{factor}.default.weight"].double() for factor in "AB")
            for row in range(len(weight)):
                for column in range(weight.shape[1]):
                    update = sum(b[row, k] * a[k, column] for k in range(RANK))
                    expected[row, column] += ALPHA / RANK * update
        torch.testing.assert_close(after[name].double(), expected, rtol=0, atol=1e-6)


def test_the_first_factor_depends_on_the_seed_alone(policy_folder):
    first, again, other = (
        trained_weights(with_adapter(load_policy(policy_folder), DPOParameters(**LORA), seed)) for seed in (1, 1, 2)
    )
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


@pytest.fixture
def inputs(policy_folder, write_pairs, make_context) -> dict[str, Path]:
    data = write_pairs(29)
    context = make_context("reference", {"dtype": "float32"}, {"model": policy_folder, "data": data})
    logprobs.run(context)
    return {"policy": policy_folder, "data": data, "reference_logprobs": context.output / "logprobs.parquet"}


def dpo_config(**changes: Any) -> dict[str, Any]:
    values = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, **LORA, **changes}
    return {"algorithm": "dpo", "seed": 3, "parameters": values}


def history(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]


def test_dpo_starts_at_ln_2_learns_and_resumes_bitwise(inputs, make_context, monkeypatch):
    whole = make_context("whole", dpo_config(), inputs)
    preference.train_preference(whole, Cadence())
    records = history(whole.output)
    assert records[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert records[-1]["rewards/accuracy"] > 0.9
    before, after = (load_file(f / "model.safetensors") for f in (inputs["policy"], whole.output / "model"))
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

    save = OfflineTrainer._save_checkpoint

    def save_and_stop(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    first = make_context("first", dpo_config(), inputs)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(OfflineTrainer, "_save_checkpoint", save_and_stop)
        preference.train_preference(first, Cadence(steps=5))
    checkpoint = latest_checkpoint([first.work])
    assert checkpoint is not None
    saved = load_file(checkpoint / "checkpoint-5" / "trained.safetensors")
    assert saved and all("lora_" in name for name in saved)
    assert not list(checkpoint.rglob("model.safetensors"))
    again = make_context("again", dpo_config(), inputs, previous_work=[first.work])
    preference.train_preference(again, Cadence())
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors", "history.jsonl"):
        assert (whole.output / name).read_bytes() == (again.output / name).read_bytes(), name


def test_a_reward_model_trains_its_head_whole(policy_folder, write_pairs, make_context):
    parameters = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, **LORA}
    context = make_context(
        "rm", {"parameters": parameters, "seed": 5}, {"model": policy_folder, "data": write_pairs(16)}
    )
    reward.run(context)
    before = load_file(policy_folder / "model.safetensors")
    after = load_file(context.output / "model" / "model.safetensors")
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
    assert load_reward_model(context.output / "model").config.num_labels == 1
    assert "base_model.model.score.weight" in load_file(context.output / "adapter" / "adapter_model.safetensors")


def test_sft_with_an_adapter_learns(policy_folder, tmp_path, make_context):
    rows = [[6 + i, 7 + i, 8 + i, 9 + i] for i in range(16)]
    table = {"id": [str(i) for i in range(16)], "input_ids": rows, "loss_mask": [[0, 1, 1, 1]] * 16}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    parameters = {"epochs": 10, "batch_size": 8, "learning_rate": 2e-2, **LORA}
    context = make_context(
        "sft", {"parameters": parameters, "seed": 0}, {"model": policy_folder, "data": tmp_path / "t.parquet"}
    )
    sft.run(context)
    records = history(context.output)
    assert records[-1]["loss"] < records[0]["loss"] - 0.3
    assert (context.output / "adapter" / "adapter_config.json").is_file()


@pytest.fixture
def rollout_inputs(policy_folder, tmp_path) -> dict[str, Path]:
    judge = load_reward_model(policy_folder, head_seed=0)
    publish(judge, load_tokenizer(policy_folder), tmp_path / "judge")
    prompts = {"id": [f"p{i}" for i in range(12)], "prompt_ids": [[6 + i, 7 + i % 5][: 1 + i % 2] for i in range(12)]}
    pq.write_table(pa.table(prompts), tmp_path / "prompts.parquet")
    roles = {"policy": policy_folder, "reference": policy_folder, "reward_model": tmp_path / "judge"}
    return {**roles, "prompts": tmp_path / "prompts.parquet"}


def ppo_config(**changes: Any) -> dict[str, Any]:
    values = {
        "learning_rate": 1e-2,
        "prompts_per_step": 8,
        "mini_batch_size": 4,
        "max_response_length": 6,
        "steps": 3,
        "missing_eos_reward": None,
        **LORA,
    }
    return {"algorithm": "ppo", "parameters": {**values, **changes}, "seed": 3}


def test_ppo_shares_the_frozen_models_with_those_it_trains(rollout_inputs, make_context, tmp_path, monkeypatch):
    """A reference that is the policy with its adapter off gives what a copy of it gives; so does the reward model."""
    shared = make_context("shared", ppo_config(), rollout_inputs)
    policy_gradient.run(shared)
    copy = tmp_path / "copy"
    shutil.copytree(rollout_inputs["reference"], copy)
    score = on_policy.frozen_score
    monkeypatch.setattr(on_policy, "frozen_score", lambda path, value, *rest: score(path, None, *rest))
    apart = make_context("apart", ppo_config(), {**rollout_inputs, "reference": copy})
    policy_gradient.run(apart)
    records = history(shared.output)
    assert records[0]["kl"] == 0.0 and records[-1]["kl"] != 0.0 and records[-1]["score"] != records[0]["score"]
    for one, other in zip(records, history(apart.output), strict=True):  # rounding may differ: other memory
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)
    assert (shared.output / "samples.jsonl").read_text() == (apart.output / "samples.jsonl").read_text()


def test_ppo_with_an_adapter_resumes_bitwise(rollout_inputs, make_context, monkeypatch):
    whole = make_context("whole", ppo_config(), rollout_inputs)
    policy_gradient.run(whole)
    save = on_policy.OnPolicyTrainer.save

    def save_and_stop(self, folder):
        save(self, folder)
        if self.done == 2:
            raise KeyboardInterrupt

    first = make_context("first", ppo_config(), rollout_inputs)
    monkeypatch.setattr(on_policy, "Cadence", lambda seconds: Cadence(seconds=0))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(on_policy.OnPolicyTrainer, "save", save_and_stop)
        policy_gradient.run(first)
    checkpoint = latest_checkpoint([first.work])
    assert checkpoint is not None and checkpoint.name == "checkpoint-1"
    assert all("lora_" in name for name in load_file(checkpoint / "policy.safetensors"))
    again = make_context("again", ppo_config(), rollout_inputs, previous_work=[first.work])
    policy_gradient.run(again)
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors", "history.jsonl"):
        assert (whole.output / name).read_bytes() == (again.output / name).read_bytes(), name


def test_what_an_adapter_can_not_be_is_refused(inputs, make_context, monkeypatch):
    with pytest.raises(ValidationError, match="quantisation needs lora_rank"):
        DPOParameters(quantisation="4bit")
    with pytest.raises(StageError, match=r"no linear layer 'qproj'\n  did you mean 'q_proj'"):
        preference.run(make_context("targets", dpo_config(lora_targets="qproj"), inputs))
    monkeypatch.setattr(quantisation, "find_spec", lambda name: None)
    with pytest.raises(StageError, match=r"needs the package bitsandbytes, which is not installed\n  pip install"):
        preference.run(make_context("bits", dpo_config(quantisation="4bit"), inputs))
