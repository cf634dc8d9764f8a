"""Reward models: other objectives on the offline trainer, which end as models with one score a sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ablate.algorithms.reward_model import RewardLoss, RewardModelParameters, attribute_weights
from ablate.context import StageContext
from ablate.models.loading import load_reward_model, load_tokenizer, save_model
from ablate.models.properties import context_length, pad_id
from ablate.models.reward_heads import AttributeHeads, fold_attributes, mark_end_of_turn, mark_pairwise
from ablate.training.checkpoints import Cadence
from ablate.training.collate import Collator, PairCollator, PairTokens, read_margins
from ablate.training.comparisons import ComparedPairs, ComparisonCollator
from ablate.training.distributed import is_main
from ablate.training.lora import settle, with_adapter
from ablate.training.offline import train_offline
from ablate.training.rankings import RankingCollator, RankingTokens
from ablate.training.reward_losses import RANKING_LOSSES
from ablate.training.reward_objectives import AttributeObjective, ComparisonObjective, PairObjective, RankingObjective
from ablate.training.seeding import derive_seed, seed_everything
from ablate.training.trainer import Objective


@dataclass(frozen=True)
class Task:
    """What a loss trains on, what it minimises, and what is counted of it beside the training curve.

    ``labels`` among the counts are those that the set holds: a comparison of two responses is one, so a ranking of k
    responses has k - 1; so is a rated response.
    """

    collator: Collator
    objective: Objective
    counts: dict[str, int]


def pairs_task(data: Path, pad: int, parameters: RewardModelParameters, context: int | None) -> Task:
    """Return Bradley–Terry over pairs, with their margins where the loss has them."""
    pairs = PairTokens.read(data)
    columns = {"margin": parameters.margin_scale * read_margins(data)} if parameters.loss == "margin" else {}
    objective = PairObjective(parameters.centring)
    counts = {"pairs": len(pairs), "labels": len(pairs)}
    return Task(PairCollator(pairs, pad_id=pad, columns=columns), objective, counts)


def rankings_task(data: Path, pad: int, parameters: RewardModelParameters, context: int | None) -> Task:
    """Return a loss over the rankings of k responses."""
    rankings = RankingTokens.read(data)
    counts = _counts(rankings, labels=len(rankings.ranks) - len(rankings))
    objective = RankingObjective(RANKING_LOSSES[parameters.loss], parameters.centring)
    return Task(RankingCollator(rankings, pad), objective, counts)


def attributes_task(data: Path, pad: int, parameters: RewardModelParameters, context: int | None) -> Task:
    """Return regression of the ratings of responses, a head an attribute."""
    weights = attribute_weights(parameters.attributes)
    rankings = RankingTokens.read(data)
    ratings = rankings.ratings(list(weights), [name for name, weight in weights.items() if weight])
    counts = _counts(rankings, labels=len(rankings.ranks))
    return Task(RankingCollator(rankings, pad, ratings), AttributeObjective(list(weights)), counts)


def _counts(rankings: RankingTokens, *, labels: int) -> dict[str, int]:
    return {"prompts": len(rankings), "responses": len(rankings.ranks), "labels": labels}


def pairwise_task(data: Path, pad: int, parameters: RewardModelParameters, context: int | None) -> Task:
    """Return the comparison of two responses in one sequence, over the pairs that fit the model's ``context``."""
    every = PairTokens.read(data)
    pairs = ComparedPairs.within(every, context)
    counts = {"pairs": len(pairs), "too_long": len(every) - len(pairs), "labels": len(pairs)}
    return Task(ComparisonCollator(pairs, pad), ComparisonObjective(), counts)


TASKS: dict[RewardLoss, Callable[[Path, int, RewardModelParameters, int | None], Task]] = {
    "bradley-terry": pairs_task,
    "margin": pairs_task,
    "k-wise": rankings_task,
    "instruct-k": rankings_task,
    "attributes": attributes_task,
    "pairwise": pairwise_task,
}


def run(context: StageContext) -> dict[str, Any]:
    """Train a reward model from a policy and a fresh head; write ``model/`` and ``history.jsonl``."""
    return train_reward_model(context, Cadence(context.resources.checkpoint_seconds))


def train_reward_model(context: StageContext, cadence: Cadence) -> dict[str, Any]:
    """Do the work of ``run`` with checkpoints written at ``cadence``, which changes nothing in the result."""
    parameters = RewardModelParameters.model_validate(context.config["parameters"])
    seed = int(context.config["seed"])
    seed_everything(seed)
    tokenizer = load_tokenizer(context.inputs["model"])
    weights = attribute_weights(parameters.attributes) if parameters.loss == "attributes" else {}
    model = load_reward_model(
        context.inputs["model"],
        head_seed=derive_seed(seed, "head"),
        outputs=max(len(weights), 1),
        quantisation=parameters.quantisation,
    )
    with_adapter(model, parameters, seed)
    # transformers' own forward, which others may score with, needs the id to find the last token
    model.config.pad_token_id = tokenizer.pad_token_id
    mark_end_of_turn(model.config)
    task = TASKS[parameters.loss](context.inputs["data"], pad_id(tokenizer), parameters, context_length(model))
    floor = min(parameters.min_learning_rate / parameters.learning_rate, 1.0)
    history = train_offline(context, model, task.objective, task.collator, parameters, cadence=cadence, floor=floor)
    if is_main():  # which alone has all weights
        settle(model, context.output)
        heads = _finished(model, parameters, weights)
        save_model(model, tokenizer, context.output / "model")
        if heads is not None:
            heads.save(context.output / "model")
    history.write(context.output / "history.jsonl")
    return {**task.counts, **history.last}


def _finished(
    model: PreTrainedModel, parameters: RewardModelParameters, weights: dict[str, float]
) -> AttributeHeads | None:
    """Make a trained model one with a single score, which says what it is of; return its heads of attributes."""
    if parameters.loss == "pairwise":
        mark_pairwise(model.config)
    return fold_attributes(model, weights) if weights else None
