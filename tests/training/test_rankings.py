"""Rankings on the offline trainer: batches, micro-batches, what learns from them, and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ablate.algorithms.registry import METHODS
from ablate.algorithms.reward_model import RewardModelParameters
from ablate.data.rankings import SCHEMA
from ablate.errors import DataError
from ablate.models.loading import load_policy, load_reward_model, load_tokenizer
from ablate.models.reward_heads import AttributeHeads
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairCollator, PairTokens, read_margins
from ablate.training.history import History
from ablate.training.logprobs import completion_logprobs
from ablate.training.offline import OfflineTrainer
from ablate.training.ranking import RankedPolicyObjective, ranking_loss, train_ranking
from ablate.training.rankings import RankingCollator, RankingTokens, by_prompt
from ablate.training.reward import TASKS, train_reward_model
from ablate.training.reward_losses import RANKING_LOSSES
from ablate.training.reward_objectives import AttributeObjective, PairObjective, RankingObjective
from ablate.training.score_head import sequence_scores
from ablate.training.trainer import TrainingRun

PARAMETERS = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3}
WRITE = {"helpfulness": 0.5, "verbosity": -1.0}


@pytest.fixture
def write_rankings(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes rankings of 2 to 5 responses; better ones hold lower ids, some are tied."""

    def write(count: int, *, sizes: tuple[int, int] = (2, 6), name: str = "rankings.parquet") -> Path:
        random = np.random.default_rng(1)
        rows = []
        for index in range(count):
            size = int(random.integers(*sizes))
            ranks = sorted([1, *random.integers(1, 4, size - 2).tolist(), 3])
            low = [6 + 13 * (rank - 1) for rank in ranks]
            rows.append(
                {
                    "id": f"prompt-{index}",
                    "prompt_ids": random.integers(6, 46, random.integers(2, 9)).tolist(),
                    "completion_ids": [
                        random.integers(start, start + 13, random.integers(2, 9)).tolist() for start in low
                    ],
                    "ranks": ranks,
                    "scores": [3.0 - rank for rank in ranks],
                    "aspects": [[("helpfulness", 4.0 - rank), *([("verbosity", 1.0)] * (rank == 2))] for rank in ranks],
                }
            )
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / name)
        return tmp_path / name

    return write


def reward_config(loss: str, **changes: Any) -> dict[str, Any]:
    return {"parameters": {**PARAMETERS, "min_learning_rate": 3e-4, "loss": loss, **changes}, "seed": 5}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def test_a_batch_holds_every_response_behind_its_own_prompt(write_rankings):
    rankings = RankingTokens.read(write_rankings(9))
    assert rankings.sequences == max(rankings.responses_N)
    batch = RankingCollator(rankings, pad_id=0)([3, 0])
    table = pq.read_table(write_rankings(9)).to_pylist()
    expected = [row["prompt_ids"] + ids for row in (table[3], table[0]) for ids in row["completion_ids"]]
    found = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    assert found == expected
    assert batch["completion_mask"].sum(1).tolist() == [
        len(ids) for row in (table[3], table[0]) for ids in row["completion_ids"]
    ]
    width = max(len(table[3]["ranks"]), len(table[0]["ranks"]))
    for row, stored in zip(range(2), (table[3], table[0]), strict=True):
        assert batch["ranks"][row].tolist() == stored["ranks"] + [0] * (width - len(stored["ranks"]))
    lengths = [len(row["prompt_ids"]) + max(map(len, row["completion_ids"])) for row in table]
    assert rankings.lengths_N.tolist() == lengths
    values = torch.arange(len(expected)).float()
    spread = by_prompt(values, batch["ranks"])
    assert spread[batch["ranks"] > 0].tolist() == values.tolist() and not spread[batch["ranks"] == 0].any()


@pytest.mark.parametrize(
    ("loss", "per_prompt"), [("k-wise", -1), ("instruct-k", -1), ("attributes", 0), ("bradley-terry", None)]
)
def test_labels_are_comparisons_or_rated_responses(write_rankings, write_pairs, loss, per_prompt):
    """A ranking of k responses holds k - 1 comparisons, a pair one; ratings are one a response."""
    data = write_pairs(9) if per_prompt is None else write_rankings(9)
    given = {"loss": loss} | ({"attributes": "helpfulness=1"} if loss == "attributes" else {})
    counts = TASKS[loss](data, 0, RewardModelParameters(**given), 128).counts
    sizes = [len(row["ranks"]) for row in pq.read_table(data).to_pylist()] if per_prompt is not None else [1] * 9
    assert counts["labels"] == sum(size + (per_prompt or 0) for size in sizes)


def slow_scores(model: Any, rankings: RankingTokens, row: int) -> list[float]:
    """Score every response alone, without padding."""
    found = []
    for number in range(rankings.first[row], rankings.first[row + 1]):
        ids = torch.from_numpy(np.concatenate([rankings.prompts[row], rankings.completions[number]]))[None]
        found.append(sequence_scores(model, ids, torch.ones_like(ids)).item())
    return found


@pytest.mark.parametrize("loss", ["k-wise", "instruct-k"])
def test_lists_of_different_sizes_in_a_batch_change_no_loss(policy_folder, write_rankings, loss):
    rankings = RankingTokens.read(write_rankings(7))
    assert len(set(rankings.responses_N)) > 1
    model = load_reward_model(policy_folder, head_seed=0).eval()
    loss_B, values = RankingObjective(RANKING_LOSSES[loss], centring=0.3)(
        model, RankingCollator(rankings, pad_id=0)(range(7))
    )
    for row in range(7):
        scores = torch.tensor([slow_scores(model, rankings, row)])
        ranks = torch.from_numpy(rankings.ranks[rankings.responses(row)])[None]
        alone = RANKING_LOSSES[loss](scores, ranks)
        size = scores.shape[1]
        sums = [(scores[0, i] + scores[0, j]) ** 2 for i in range(size) for j in range(i)]
        assert loss_B[row].item() == pytest.approx((alone + 0.3 * sum(sums) / len(sums)).item(), abs=1e-5)
        assert values["scores/mean"][row].item() == pytest.approx(scores.mean().item(), abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_margin_and_centring_equal_those_of_trl(policy_folder, write_pairs, tmp_path):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    data = write_pairs(16)
    table = pq.read_table(data)
    gaps = pa.array([0.25 * index for index in range(16)], pa.float64())
    pq.write_table(table.set_column(table.column_names.index("margin"), "margin", gaps), data)
    margins = 0.5 * read_margins(data)
    ours = load_reward_model(policy_folder, head_seed=0)
    collator = PairCollator(PairTokens.read(data), pad_id=0, columns={"margin": margins})
    loss_B, _ = PairObjective(centring=0.01)(ours, collator(list(range(16))))
    loss_B.mean().backward()
    rows = [
        {
            **{f"{side}_ids": row["prompt_ids"] + row[f"{side}_ids"] for side in ("chosen", "rejected")},
            "margin": 0.5 * row["margin"],
        }
        for row in pq.read_table(data).to_pylist()
    ]
    arguments = RewardConfig(
        output_dir=str(tmp_path / "trl"),
        use_cpu=True,
        bf16=False,
        report_to="none",
        gradient_checkpointing=False,
        center_rewards_coefficient=0.01,
    )
    theirs = RewardTrainer(
        model=load_reward_model(policy_folder, head_seed=0),
        args=arguments,
        processing_class=load_tokenizer(policy_folder),
        train_dataset=Dataset.from_list(rows),
    )
    theirs.model.train()
    expected = theirs.compute_loss(theirs.model, DataCollatorForPreference(pad_token_id=0)(rows))
    expected.backward()
    assert loss_B.mean().item() == pytest.approx(expected.item(), abs=1e-5)
    plain, _ = PairObjective()(ours, PairCollator(PairTokens.read(data), pad_id=0)(list(range(16))))
    assert abs(plain.mean().item() - expected.item()) > 0.05
    for one, other in zip(ours.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_a_margin_is_the_scaled_gap_and_never_negative(write_pairs):
    data = write_pairs(3)
    with pytest.raises(DataError, match="3 of 3 pairs have no score gap, first pair-0"):
        read_margins(data)
    table = pq.read_table(data)
    gaps = pa.array([2.0, -1.0, 0.5], pa.float64())
    pq.write_table(table.set_column(table.column_names.index("margin"), "margin", gaps), data)
    task = TASKS["margin"](data, 0, RewardModelParameters(loss="margin", margin_scale=0.5), 128)
    assert task.collator([0, 1, 2])["margin"].tolist() == [1.0, 0.0, 0.25]


OBJECTIVES = {
    "k-wise": lambda: RankingObjective(RANKING_LOSSES["k-wise"], 0.1),
    "instruct-k": lambda: RankingObjective(RANKING_LOSSES["instruct-k"]),
    "attributes": lambda: AttributeObjective(list(WRITE)),
    "rrhf": lambda: RankedPolicyObjective(ranking_loss("rrhf", METHODS["rrhf"].parameters())),
    "pro": lambda: RankedPolicyObjective(ranking_loss("pro", METHODS["pro"].parameters())),
}


def make_trainer(policy_folder: Path, data: Path, work: Path, name: str, micro_batch: int) -> OfflineTrainer:
    rankings = RankingTokens.read(data)
    policy = name in METHODS
    model = load_policy(policy_folder) if policy else load_reward_model(policy_folder, head_seed=2, outputs=2)
    if name in RANKING_LOSSES:
        model = load_reward_model(policy_folder, head_seed=2)
    method = METHODS["rrhf"].parameters.model_validate({**PARAMETERS, "learning_rate": 1e-4})
    ratings = rankings.ratings(list(WRITE), WRITE) if name == "attributes" else None
    run = TrainingRun(seed=3, work=work, history=History(), cadence=Cadence(), micro_batch=micro_batch)
    collator = RankingCollator(rankings, 0, ratings)
    return OfflineTrainer(model, OBJECTIVES[name](), rankings, collator, method, run)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_accumulating_8_times_1_equals_1_times_8(policy_folder, write_rankings, tmp_path, name):
    data = write_rankings(13)
    found = []
    for micro_batch in (1, 8):
        trainer = make_trainer(policy_folder, data, tmp_path / f"{name}{micro_batch}", name, micro_batch)
        trainer.fit()
        found.append((trainer.run.history.records, {k: v.clone() for k, v in trainer.model.state_dict().items()}))
    (ones, first), (eights, second) = found
    for one, eight in zip(ones, eights, strict=True):
        assert one.keys() == eight.keys()
        for key, value in one.items():
            if key == "epoch":  # transformers counts it in micro-batches
                continue
            assert value == pytest.approx(eight[key], rel=1e-4, abs=1e-5), key
    for key, tensor in first.items():
        torch.testing.assert_close(tensor, second[key], rtol=0, atol=1e-6)


def interrupted(train: Callable[..., Any], context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save = OfflineTrainer._save_checkpoint

    def save_and_stop(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(OfflineTrainer, "_save_checkpoint", save_and_stop)
        train(context, Cadence(steps=2))


@pytest.mark.parametrize("name", ["k-wise", "attributes", "rrhf", "pro"])
def test_resuming_gives_the_same_weights_bitwise(policy_folder, write_rankings, make_context, monkeypatch, name):
    data = write_rankings(21)
    if name in METHODS:
        train, role = train_ranking, "policy"
        config = {"algorithm": name, "seed": 3, "parameters": PARAMETERS}
    else:
        train, role = train_reward_model, "model"
        more = {"attributes": "helpfulness=0.5, verbosity=-1"} if name == "attributes" else {}
        config = reward_config(name, **more)
    inputs = {role: policy_folder, "data": data}
    whole, first = (make_context(which, config, inputs) for which in ("whole", "first"))
    summary = train(whole, Cadence())
    assert summary["prompts"] == 21 and summary["step"] == 6
    interrupted(train, first, monkeypatch)
    again = make_context("again", config, inputs, previous_work=[first.work])
    train(again, Cadence())
    one, other = weights(whole.output), weights(again.output)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert (whole.output / "history.jsonl").read_text() == (again.output / "history.jsonl").read_text()


@pytest.mark.parametrize("loss", ["k-wise", "instruct-k"])
def test_reward_models_learn_the_order_of_rankings(policy_folder, write_rankings, make_context, loss):
    inputs = {"model": policy_folder, "data": write_rankings(64)}
    context = make_context("reward", reward_config(loss, epochs=5, centring=0.01), inputs)
    summary = train_reward_model(context, Cadence())
    assert summary["accuracy"] > 0.95 and summary["agreement"] > 0.9 and summary["best"] > 0.9
    history = [json.loads(line) for line in (context.output / "history.jsonl").read_text().splitlines()]
    assert history[0]["accuracy"] < 0.8
    assert load_reward_model(context.output / "model").config.num_labels == 1


@pytest.mark.parametrize("name", ["rrhf", "pro"])
def test_policies_learn_the_order_of_rankings(policy_folder, write_rankings, make_context, name):
    data = write_rankings(64)
    config = {"algorithm": name, "seed": 3, "parameters": {**PARAMETERS, "epochs": 5}}
    context = make_context(name, config, {"policy": policy_folder, "data": data})
    summary = train_ranking(context, Cadence())
    assert summary["logps/accuracy"] > 0.9
    rankings, model = RankingTokens.read(data), load_policy(context.output / "model").eval()
    batch = RankingCollator(rankings, 0)(range(8))
    with torch.no_grad():
        logps_N = completion_logprobs(model, batch) / batch["completion_mask"].sum(-1)
    best_B = by_prompt(logps_N - logps_N.min() + 1, batch["ranks"]).argmax(1, keepdim=True)
    assert (batch["ranks"].gather(1, best_B) == 1).float().mean() > 0.8


def test_attributes_become_one_score_that_is_their_weighted_sum(policy_folder, write_rankings, make_context):
    inputs = {"model": policy_folder, "data": write_rankings(64)}
    config = reward_config("attributes", epochs=8, attributes="helpfulness=0.5, verbosity=-1, humor=0")
    context = make_context("reward", config, inputs)
    summary = train_reward_model(context, Cadence())
    assert summary["loss"] < 0.3
    heads = AttributeHeads.read(context.output / "model")
    assert heads.weights == {"helpfulness": 0.5, "verbosity": -1.0, "humor": 0.0} and heads.heads_AH.shape[0] == 3
    model = load_reward_model(context.output / "model").eval()
    rankings = RankingTokens.read(inputs["data"])
    batch = RankingCollator(rankings, 0)([0, 1, 2])
    with torch.no_grad():
        hidden = model.model(input_ids=batch["input_ids"]).last_hidden_state
        last = hidden[torch.arange(len(hidden)), batch["attention_mask"].sum(1) - 1]
        said = last @ heads.heads_AH.T
        scores = sequence_scores(model, batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(scores, 0.5 * said[:, 0] - said[:, 1], rtol=1e-4, atol=1e-4)
    # ratings: helpfulness 4 - rank; verbosity 1, and on rank 2 alone
    ranks = batch["ranks"][batch["ranks"] > 0]
    assert (said[:, 0] - (4 - ranks)).abs().mean() < 0.5


def test_squared_errors_are_over_the_ratings_there_are(policy_folder, write_rankings):
    rankings = RankingTokens.read(write_rankings(5))
    ratings = rankings.ratings(list(WRITE), WRITE)
    batch = RankingCollator(rankings, 0, ratings)(range(5))
    model = load_reward_model(policy_folder, head_seed=0, outputs=2).eval()
    objective = AttributeObjective(list(WRITE))
    loss_U, _ = objective(model, batch)
    expected = []
    for row in range(5):
        for number in range(rankings.first[row], rankings.first[row + 1]):
            ids = torch.from_numpy(np.concatenate([rankings.prompts[row], rankings.completions[number]]))[None]
            said = model.score(model.model(input_ids=ids).last_hidden_state[0, -1]).tolist()
            rated = rankings.aspects[number]
            expected += [(said[at] - rated[name]) ** 2 for at, name in enumerate(WRITE) if name in rated]
    assert objective.units(batch) == len(expected) == len(loss_U)
    assert loss_U.tolist() == pytest.approx(expected, abs=1e-4)


def test_an_attribute_with_a_weight_that_nothing_is_rated_for_is_named(policy_folder, write_rankings, make_context):
    config = reward_config("attributes", attributes="helpfulnes=1, humor=0")
    context = make_context("reward", config, {"model": policy_folder, "data": write_rankings(4)})
    with pytest.raises(DataError, match=r"(?s)is rated for 'helpfulnes'.*did you mean 'helpfulness'"):
        train_reward_model(context, Cadence())


def test_pairs_are_no_rankings(write_pairs):
    with pytest.raises(DataError, match="not tokenised rankings"):
        RankingTokens.read(write_pairs(3))
