"""Training of a model that reads both responses: its sequences, what fits, what it learns, and resuming."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ablate.errors import DataError
from ablate.models.loading import compares_responses, load_reward_model, load_tokenizer
from ablate.rewards.reward_model import ComparisonModel
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairTokens
from ablate.training.comparisons import ComparedPairs, ComparisonCollator
from ablate.training.offline import OfflineTrainer
from ablate.training.reward import train_reward_model
from ablate.training.reward_objectives import ComparisonObjective
from ablate.training.score_head import sequence_scores

CONFIG = {
    "parameters": {
        "loss": "pairwise",
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "min_learning_rate": 3e-4,
    },
    "seed": 5,
}


def test_both_orders_of_a_pair_are_sequences_of_two_conversations(policy_folder, write_pairs):
    pairs = ComparedPairs.within(PairTokens.read(write_pairs(6)), None)
    batch = ComparisonCollator(pairs, pad_id=0)([4, 1])
    found = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    parts = [[pairs.prompts[row].tolist(), pairs.chosen[row].tolist(), pairs.rejected[row].tolist()] for row in (4, 1)]
    assert found == [p + c + p + r for p, c, r in parts] + [p + r + p + c for p, c, r in parts]
    assert pairs.lengths_N[[4, 1]].tolist() == [len(ids) for ids in found[:2]]
    model = load_reward_model(policy_folder, head_seed=0).eval()
    loss_B, values = ComparisonObjective()(model, batch)
    odds = [sequence_scores(model, torch.tensor([ids]), torch.ones(1, len(ids)).long()).item() for ids in found]
    expected = [-(np.log(1 / (1 + np.exp(-odds[i]))) + np.log(1 / (1 + np.exp(odds[i + 2])))) / 2 for i in range(2)]
    assert loss_B.tolist() == pytest.approx(expected, abs=1e-5)
    assert values["margin"].tolist() == pytest.approx([(odds[i] - odds[i + 2]) / 2 for i in range(2)], abs=1e-5)


def test_pairs_that_do_not_fit_are_left_out_and_counted(policy_folder, write_pairs, make_context):
    every = PairTokens.read(write_pairs(12))
    lengths = 2 * every.prompts.lengths + every.chosen.lengths + every.rejected.lengths
    limit = int(np.sort(lengths)[7])
    kept = ComparedPairs.within(every, limit)
    assert kept.ids == [name for name, length in zip(every.ids, lengths, strict=True) if length <= limit]
    row = every.ids.index(kept.ids[-1])
    assert kept.rejected[len(kept) - 1].tolist() == every.rejected[row].tolist()
    with pytest.raises(DataError, match=r"no pair fits: .* have at least"):
        ComparedPairs.within(every, int(lengths.min()) - 1)
    data = write_pairs(12, lengths=(20, 60), name="long.parquet")  # the model has 128 positions
    summary = train_reward_model(make_context("long", CONFIG, {"model": policy_folder, "data": data}), Cadence())
    assert summary["too_long"] > 0 and summary["pairs"] + summary["too_long"] == 12


def test_pairs_in_a_kept_order_are_read_in_that_order(write_pairs):
    """Those of an online run, by which a replay is compared with it."""
    table = pq.read_table(write_pairs(12))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"order": "kept"}), sink)
    kept = PairTokens.read(pa.BufferReader(sink.getvalue()))
    limit = int(ComparedPairs.within(kept, None).lengths_N.max())
    assert [ComparedPairs.within(kept, most).kept_order for most in (None, limit, limit - 1)] == [True] * 3
    assert not ComparedPairs.within(PairTokens.read(write_pairs(12)), None).kept_order


def test_training_resumes_bitwise_and_ends_as_a_model_that_compares(
    policy_folder, write_pairs, make_context, monkeypatch
):
    inputs = {"model": policy_folder, "data": write_pairs(29)}
    whole, first = (make_context(name, CONFIG, inputs) for name in ("whole", "first"))
    train_reward_model(whole, Cadence())
    save = OfflineTrainer._save_checkpoint

    def save_and_stop(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(OfflineTrainer, "_save_checkpoint", save_and_stop)
        train_reward_model(first, Cadence(steps=5))
    again = make_context("again", CONFIG, inputs, previous_work=[first.work])
    train_reward_model(again, Cadence())
    one, other = (load_file(context.output / "model" / "model.safetensors") for context in (whole, again))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    folder = whole.output / "model"
    assert compares_responses(folder)
    judge = ComparisonModel(load_reward_model(folder, pairwise=True), load_tokenizer(folder))
    prompt = ({"role": "user", "content": "w1 w2"},)
    (odds,), (back,) = judge.compare([prompt], ["w3"], ["w4 w5"]), judge.compare([prompt], ["w4 w5"], ["w3"])
    assert odds == pytest.approx(-back, abs=1e-6)


def test_it_learns_which_response_is_better(policy_folder, make_context, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    columns = {"id": [f"pair-{index}" for index in range(96)]}
    for name, low, high in (("prompt_ids", 6, 46), ("chosen_ids", 6, 26), ("rejected_ids", 26, 46)):
        rows = [random.integers(low, high, random.integers(2, 9)).tolist() for _ in range(96)]
        columns[name] = pa.array(rows, pa.list_(pa.int32()))
    pq.write_table(pa.table(columns), tmp_path / "tokens.parquet")
    config = {**CONFIG, "parameters": {**CONFIG["parameters"], "epochs": 6}}
    context = make_context("learns", config, {"model": policy_folder, "data": tmp_path / "tokens.parquet"})
    assert train_reward_model(context, Cadence())["accuracy"] > 0.9
