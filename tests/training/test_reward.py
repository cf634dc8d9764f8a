"""The reward model: where the score is read, its loss against TRL's, training and resuming."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ablate.models.loading import load_reward_model, load_tokenizer
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairCollator, PairTokens, pad_sequences
from ablate.training.offline import OfflineTrainer
from ablate.training.reward import run, train_reward_model
from ablate.training.reward_objectives import PairObjective
from ablate.training.score_head import sequence_scores

PARAMETERS = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "min_learning_rate": 3e-4}


def reward_config(**changes: Any) -> dict[str, Any]:
    return {"parameters": {**PARAMETERS, **changes}, "seed": 5}


@pytest.fixture
def reward_model(policy_folder):
    return load_reward_model(policy_folder, head_seed=0).eval()


def sequences(count: int) -> tuple[list, list]:
    random = np.random.default_rng(2)
    prompts = [random.integers(0, 46, random.integers(1, 12)) for _ in range(count)]
    completions = [random.integers(0, 46, random.integers(1, 12)) for _ in range(count)]
    return prompts, completions


def test_score_is_the_head_at_the_last_real_token(reward_model, more_padding):
    prompts, completions = sequences(10)
    batch = more_padding(pad_sequences(prompts, completions, pad_id=0), 0, right=3)
    found = sequence_scores(reward_model, batch["input_ids"], batch["attention_mask"])
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids = torch.tensor([[*prompt, *completion]])
        hidden = reward_model.model(input_ids=ids).last_hidden_state[0, -1].tolist()
        score = sum(weight * value for weight, value in zip(reward_model.score.weight[0].tolist(), hidden, strict=True))
        assert found[row].item() == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("pad_id", [0, 1, 9])
@pytest.mark.parametrize("side", ["left", "right"])
def test_side_amount_and_id_of_padding_and_the_batch_change_no_score(reward_model, more_padding, side, pad_id):
    prompts, completions = sequences(8)
    alone = []
    for prompt, completion in zip(prompts, completions, strict=True):
        batch = pad_sequences([prompt], [completion], pad_id=0)
        alone.append(sequence_scores(reward_model, batch["input_ids"], batch["attention_mask"])[0])
    batch = more_padding(pad_sequences(prompts, completions, pad_id=pad_id, side=side), pad_id, **{side: 6})
    together = sequence_scores(reward_model, batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_equal_the_forward_of_transformers_where_texts_do_not_end_with_pad(reward_model, more_padding, side):
    pad_id = reward_model.config.pad_token_id
    prompts, completions = sequences(8)
    completions = [np.where(completion == pad_id, 7, completion) for completion in completions]
    prompts = [np.where(prompt == pad_id, 7, prompt) for prompt in prompts]
    batch = more_padding(pad_sequences(prompts, completions, pad_id=pad_id, side=side), pad_id, **{side: 2})
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    theirs = reward_model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], position_ids=positions
    ).logits.squeeze(-1)
    ours = sequence_scores(reward_model, batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_text_that_ends_with_the_pad_id_is_still_scored_at_its_end(reward_model, more_padding):
    """A tokenizer whose pad is its end of sequence: transformers' own forward reads one token early there."""
    pad_id = reward_model.config.pad_token_id
    batch = more_padding(pad_sequences([np.array([5])], [np.array([8, pad_id])], pad_id=pad_id), pad_id, right=1)
    found = sequence_scores(reward_model, batch["input_ids"], batch["attention_mask"])
    hidden = reward_model.model(input_ids=torch.tensor([[5, 8, pad_id]])).last_hidden_state[0]
    torch.testing.assert_close(found, reward_model.score(hidden[-1]))
    theirs = reward_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0]
    torch.testing.assert_close(theirs, reward_model.score(hidden[1]))


@pytest.mark.filterwarnings("ignore")
def test_loss_and_gradients_equal_those_of_trl(policy_folder, write_pairs, tmp_path):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    data = write_pairs(16)
    ours = load_reward_model(policy_folder, head_seed=0)
    loss_B, values = PairObjective()(ours, PairCollator(PairTokens.read(data), pad_id=0)(list(range(16))))
    loss_B.mean().backward()

    rows = [
        {f"{side}_ids": row["prompt_ids"] + row[f"{side}_ids"] for side in ("chosen", "rejected")}
        for row in pq.read_table(data).to_pylist()
    ]
    theirs = RewardTrainer(
        model=load_reward_model(policy_folder, head_seed=0),
        args=RewardConfig(
            output_dir=str(tmp_path / "trl"),
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
        ),
        processing_class=load_tokenizer(policy_folder),
        train_dataset=Dataset.from_list(rows),
    )
    theirs.model.train()
    expected = theirs.compute_loss(theirs.model, DataCollatorForPreference(pad_token_id=0)(rows))
    expected.backward()
    assert abs(expected.item() - math.log(2)) > 0.01
    assert loss_B.mean().item() == pytest.approx(expected.item(), abs=1e-5)
    assert values["accuracy"].mean().item() == pytest.approx(theirs._metrics["train"]["accuracy"][-1])
    for one, other in zip(ours.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def learnable_pairs(path: Path, count: int = 96) -> Path:
    """Pairs whose chosen completions hold only low ids and rejected ones only high ids."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {"id": [f"pair-{index}" for index in range(count)]}
    for name, low, high in (("prompt_ids", 6, 46), ("chosen_ids", 6, 26), ("rejected_ids", 26, 46)):
        rows = [random.integers(low, high, random.integers(2, 9)).tolist() for _ in range(count)]
        columns[name] = pa.array(rows, pa.list_(pa.int32()))
    pq.write_table(pa.table(columns), path)
    return path


def test_stage_learns_and_writes_an_ordinary_reward_model(policy_folder, make_context, tmp_path):
    inputs = {"model": policy_folder, "data": learnable_pairs(tmp_path / "tokens.parquet")}
    context = make_context("reward", reward_config(epochs=4), inputs)
    summary = run(context)
    assert summary["accuracy"] > 0.95
    history = [json.loads(line) for line in (context.output / "history.jsonl").read_text().splitlines()]
    assert history[0]["loss"] > 0.4 > history[-1]["loss"]
    # the rate of the last update, one step before the schedule's end, is near min_learning_rate
    assert PARAMETERS["min_learning_rate"] <= history[-1]["learning_rate"] < 0.15 * PARAMETERS["learning_rate"]
    model = load_reward_model(context.output / "model")
    assert model.config.num_labels == 1
    assert model.config.pad_token_id == load_tokenizer(context.output / "model").pad_token_id
    assert not [path for path in context.output.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_head_depends_on_the_seed_alone(policy_folder, make_context, tmp_path):
    inputs = {"model": policy_folder, "data": learnable_pairs(tmp_path / "tokens.parquet", 16)}
    heads = []
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        context = make_context(name, reward_config(epochs=1) | {"seed": seed}, inputs)
        torch.manual_seed(len(name))
        run(context)
        heads.append(load_file(context.output / "model" / "model.safetensors")["score.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_resuming_after_an_interruption_gives_the_same_weights_bitwise(
    policy_folder, write_pairs, make_context, monkeypatch
):
    inputs = {"model": policy_folder, "data": write_pairs(29)}
    whole, first = (make_context(name, reward_config(), inputs) for name in ("whole", "first"))
    train_reward_model(whole, Cadence())
    save = OfflineTrainer._save_checkpoint

    def save_and_stop(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(OfflineTrainer, "_save_checkpoint", save_and_stop)
        train_reward_model(first, Cadence(steps=5))
    again = make_context("again", reward_config(), inputs, previous_work=[first.work])
    train_reward_model(again, Cadence())
    one, other = (load_file(context.output / "model" / "model.safetensors") for context in (whole, again))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert (whole.output / "history.jsonl").read_text() == (again.output / "history.jsonl").read_text()
