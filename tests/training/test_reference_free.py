"""SimPO and ORPO: against slow formulas, cases worked by hand, TRL, across micro-batches, and as stages."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ablate.algorithms.registry import METHODS
from ablate.models.loading import load_policy, load_tokenizer
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairCollator, PairTokens
from ablate.training.history import History
from ablate.training.offline import OfflineTrainer
from ablate.training.preference import make_objective, run
from ablate.training.reference_free import REFERENCE_FREE_LOSSES, PolicyLogprobs, orpo, simpo
from ablate.training.trainer import TrainingRun

BETA, GAMMA, LAMBDA = 2.0, 0.7, 0.3
Row = tuple[float, float, int, int]


def slow_simpo(c: float, r: float, tokens_c: int, tokens_r: int) -> float:
    """Meng et al. 2024, eq. 6, one pair, as printed."""
    argument = BETA / tokens_c * c - BETA / tokens_r * r - GAMMA
    return -math.log(1 / (1 + math.exp(-argument)))


def slow_orpo(c: float, r: float, tokens_c: int, tokens_r: int) -> float:
    """Hong et al. 2024, eq. 3 to 7, one pair, with probabilities instead of logarithms."""
    p_c, p_r = math.exp(c / tokens_c), math.exp(r / tokens_r)
    odds_ratio = (p_c / (1 - p_c)) / (p_r / (1 - p_r))
    ratio_loss = -math.log(1 / (1 + math.exp(-math.log(odds_ratio))))
    return -c / tokens_c + LAMBDA * ratio_loss


def random_rows(count: int) -> list[Row]:
    generator = random.Random(4)
    return [
        (generator.uniform(-30, -1), generator.uniform(-30, -1), generator.randint(1, 12), generator.randint(1, 12))
        for _ in range(count)
    ]


def as_tensors(rows: list[Row]) -> PolicyLogprobs:
    chosen, rejected, chosen_tokens, rejected_tokens = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)
    )
    return PolicyLogprobs(chosen.requires_grad_(), rejected.requires_grad_(), chosen_tokens, rejected_tokens)


CASES = pytest.mark.parametrize(
    ("slow", "fast"),
    [
        (slow_simpo, lambda pairs: simpo(pairs, beta=BETA, gamma=GAMMA)),
        (slow_orpo, lambda pairs: orpo(pairs, odds_ratio_weight=LAMBDA)),
    ],
    ids=["simpo", "orpo"],
)


@CASES
def test_losses_equal_their_formula_pair_by_pair(slow, fast):
    rows = random_rows(50)
    expected = torch.tensor([slow(*row) for row in rows], dtype=torch.float64)
    torch.testing.assert_close(fast(as_tensors(rows)), expected, rtol=1e-9, atol=1e-12)


@CASES
def test_gradients_equal_central_differences_of_the_slow_loss(slow, fast):
    rows = random_rows(20)
    pairs = as_tensors(rows)
    fast(pairs).sum().backward()
    step = 1e-5
    for index, (c, r, *tokens) in enumerate(rows):
        by_chosen = (slow(c + step, r, *tokens) - slow(c - step, r, *tokens)) / (2 * step)
        by_rejected = (slow(c, r + step, *tokens) - slow(c, r - step, *tokens)) / (2 * step)
        assert pairs.chosen_B.grad[index].item() == pytest.approx(by_chosen, rel=1e-5, abs=1e-8)
        assert pairs.rejected_B.grad[index].item() == pytest.approx(by_rejected, rel=1e-5, abs=1e-8)


def test_simpo_worked_by_hand():
    # means of -1 and -2 nats: beta 2 gives rewards -2 and -4, a difference of 2, the margin: -log sigma(0) = ln 2
    pairs = as_tensors([(-4.0, -6.0, 4, 3)])
    assert simpo(pairs, beta=2.0, gamma=2.0).item() == pytest.approx(math.log(2))
    # without a margin -log sigma(2) = log(1 + e^-2)
    assert simpo(pairs, beta=2.0, gamma=0.0).item() == pytest.approx(0.1269280)
    assert [reward.item() for reward in pairs.rewards(2.0)] == [-2.0, -4.0]


def test_orpo_worked_by_hand():
    # p(c) = 1/2 and p(r) = 1/4 a token: odds 1 and 1/3, ratio 3, -log sigma(log 3) = -log(3/4); NLL = ln 2
    pairs = as_tensors([(-4 * math.log(2), -3 * math.log(4), 4, 3)])
    assert orpo(pairs, odds_ratio_weight=1.0).item() == pytest.approx(math.log(2) - math.log(3 / 4))
    assert orpo(pairs, odds_ratio_weight=0.0).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("certain", [-1e-6, -80.0], ids=["probability near 1", "probability near 0"])
def test_orpo_keeps_finite_gradients_in_float32(certain):
    values = [torch.tensor([value], requires_grad=True) for value in (certain, -1.0)]
    ones = torch.ones(1)
    orpo(PolicyLogprobs(*values, ones, ones), odds_ratio_weight=1.0).sum().backward()
    assert all(math.isfinite(value.grad.item()) for value in values)


def test_the_table_and_the_methods_agree():
    for name, function in REFERENCE_FREE_LOSSES.items():
        assert function.__name__ == name
        assert METHODS[name].needs == ("pairs",)


# ---- on a model ----


def trainer_of(policy: Path, data: Path, work: Path, algorithm: str, *, micro_batch: int | None = None, **changes: Any):
    parameters = METHODS[algorithm].parameters.model_validate({"epochs": 2, "batch_size": 8, **changes})
    pairs = PairTokens.read(data)
    plan = TrainingRun(seed=3, work=work, history=History(), cadence=Cadence(), micro_batch=micro_batch)
    collator = PairCollator(pairs, pad_id=0)
    return OfflineTrainer(load_policy(policy), make_objective(algorithm, parameters), pairs, collator, parameters, plan)


def perturbed(folder: Path):
    model = load_policy(folder)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def one_token_prompts(data: Path, folder: Path, count: int) -> Path:
    """Write pairs whose prompts have one token and whose chosen completions have five."""
    rows = pq.read_table(data).slice(0, count).to_pylist()
    for index, row in enumerate(rows):
        row["prompt_ids"] = row["prompt_ids"][:1]
        row["chosen_ids"] = [6 + (7 * index + place) % 40 for place in range(5)]
    table = {name: [row[name] for row in rows] for name in ("id", "prompt_ids", "chosen_ids", "rejected_ids")}
    pq.write_table(pa.table(table), folder / "short.parquet")
    return folder / "short.parquet"


def trl_batch(pairs: PairTokens, rows: list[int]) -> dict[str, torch.Tensor]:
    """The padded batch of TRL's CPO and ORPO trainers."""
    batch = {}
    for side in ("chosen", "rejected"):
        sequences = [[*pairs.prompts[row], *getattr(pairs, side)[row]] for row in rows]
        width = max(map(len, sequences))
        labels = [[-100] * len(pairs.prompts[row]) + list(getattr(pairs, side)[row]) for row in rows]
        batch[f"{side}_input_ids"] = torch.tensor([ids + [0] * (width - len(ids)) for ids in sequences])
        batch[f"{side}_attention_mask"] = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences])
        batch[f"{side}_labels"] = torch.tensor([ids + [-100] * (width - len(ids)) for ids in labels])
    return batch


def trl_trainer(algorithm: str, policy: Path, output: Path) -> Any:
    from datasets import Dataset

    turns = {"prompt": "w1", "chosen": "w2", "rejected": "w3"}
    common = {"output_dir": str(output), "use_cpu": True, "bf16": False, "report_to": "none", "max_length": 64}
    if algorithm == "simpo":
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        trainer_class: Any = CPOTrainer
        args: Any = CPOConfig(**common, loss_type="simpo", cpo_alpha=0.0, beta=BETA, simpo_gamma=GAMMA)
    else:
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        trainer_class, args = ORPOTrainer, ORPOConfig(**common, beta=LAMBDA)
    args.gradient_checkpointing = False
    return trainer_class(
        model=perturbed(policy),
        args=args,
        processing_class=load_tokenizer(policy),
        train_dataset=Dataset.from_list([turns] * 4),
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algorithm", ["simpo", "orpo"])
def test_loss_and_gradients_equal_those_of_trl(policy_folder, write_pairs, tmp_path, algorithm):
    """ORPO on prompts of one token and chosen completions of one length: TRL's NLL is over the prompt, too."""
    data = write_pairs(29)
    if algorithm == "orpo":
        data = one_token_prompts(data, tmp_path, 12)
    changes = {"simpo": {"beta": BETA, "gamma": GAMMA}, "orpo": {"odds_ratio_weight": LAMBDA}}[algorithm]
    ours = trainer_of(policy_folder, data, tmp_path / "ours", algorithm, **changes)
    model, rows = perturbed(policy_folder), list(range(12))
    loss_B, values = ours.objective(model, ours.data_collator(rows))
    loss_B.mean().backward()
    theirs = trl_trainer(algorithm, policy_folder, tmp_path / "trl")
    expected, metrics = theirs.get_batch_loss_metrics(theirs.model, trl_batch(PairTokens.read(data), rows))
    expected.backward()
    assert expected.item() > 0.1
    assert loss_B.mean().item() == pytest.approx(expected.item(), abs=1e-5)
    for one, other in zip(model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)
    scale = LAMBDA if algorithm == "orpo" else 1.0  # TRL logs lambda times the means that we log
    assert scale * values["rewards/chosen"].mean().item() == pytest.approx(metrics["rewards/chosen"], abs=1e-5)


@pytest.mark.parametrize("algorithm", ["simpo", "orpo"])
def test_accumulating_8_times_1_equals_1_times_8(policy_folder, write_pairs, tmp_path, algorithm):
    data, records, models = write_pairs(13), [], []
    for micro_batch in (1, 8):
        trainer = trainer_of(
            policy_folder, data, tmp_path / str(micro_batch), algorithm, micro_batch=micro_batch, learning_rate=1e-4
        )
        trainer.fit()
        records.append(trainer.run.history.records)
        models.append(trainer.model)
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)
    for one, other in zip(*records, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("algorithm", ["simpo", "orpo"])
def test_a_stage_without_a_reference_learns_to_prefer_the_chosen(policy_folder, write_pairs, make_context, algorithm):
    config = {"algorithm": algorithm, "seed": 3, "parameters": {"epochs": 12, "batch_size": 8, "learning_rate": 1e-3}}
    context = make_context(algorithm, config, {"policy": policy_folder, "data": write_pairs(29)})
    assert run(context)["rewards/accuracy"] > 0.9
    first, *_, last = map(json.loads, (context.output / "history.jsonl").read_text().splitlines())
    assert last["loss"] < first["loss"]
    assert last["rewards/margin"] > first["rewards/margin"]
    mean = first["rewards/chosen"] / (2.0 if algorithm == "simpo" else 1.0)
    assert -5 < mean < -3, "a random policy gives each of 46 tokens about -ln 46 = -3.8 nats"
