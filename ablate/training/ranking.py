"""Policies that learn from k ranked responses to a prompt: losses over rankings on the offline trainer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ablate.algorithms.base import RankingParameters
from ablate.algorithms.registry import find_method
from ablate.context import StageContext
from ablate.errors import StageError, suggestion
from ablate.models.loading import load_tokenizer
from ablate.models.properties import pad_id
from ablate.training.checkpoints import Cadence
from ablate.training.logprobs import completion_logprobs
from ablate.training.lora import publish, tuned_policy
from ablate.training.offline import train_offline
from ablate.training.ranking_losses import POLICY_LOSSES, RankedLogprobs
from ablate.training.rankings import RankingCollator, RankingTokens, by_prompt
from ablate.training.reward_objectives import agreement
from ablate.training.seeding import seed_everything


@dataclass(frozen=True)
class RankedPolicyObjective:
    """A loss over the log-probabilities of all responses of a prompt, in one forward pass."""

    loss: Callable[[RankedLogprobs], Tensor]

    def units(self, batch: dict[str, Any]) -> int:
        """Return the prompts."""
        return len(batch["rows"])

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per prompt, how ranks and log pi per token agree, and log pi of the best response."""
        ranks_BK = batch["ranks"]
        ranked = RankedLogprobs(
            by_prompt(completion_logprobs(model, batch), ranks_BK),
            by_prompt(batch["completion_mask"].sum(-1), ranks_BK).clamp_min(1),
            ranks_BK,
            batch["scores"],
        )
        values = {f"logps/{name}": value for name, value in agreement(ranked.averaged().detach(), ranks_BK).items()}
        return self.loss(ranked), {**values, "logps/chosen": ranked.best_logp().detach()}

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Require nothing: without a reference the first loss may be anything."""


def ranking_loss(algorithm: str, parameters: RankingParameters) -> Callable[[RankedLogprobs], Tensor]:
    """Return the loss of ``algorithm`` with its keyword arguments taken from the parameters of the same names."""
    if algorithm not in POLICY_LOSSES:
        raise StageError(f"{algorithm!r} has no loss over rankings", hint=suggestion(algorithm, POLICY_LOSSES))
    function = POLICY_LOSSES[algorithm]
    options = [option for option in inspect.signature(function).parameters if option != "ranked"]
    return partial(function, **{option: getattr(parameters, option) for option in options})


def run(context: StageContext) -> dict[str, Any]:
    """Train a policy with the loss that ``config["algorithm"]`` names; write ``model/`` and ``history.jsonl``."""
    return train_ranking(context, Cadence(context.resources.checkpoint_seconds))


def train_ranking(context: StageContext, cadence: Cadence) -> dict[str, Any]:
    """Do the work of ``run`` with checkpoints written at ``cadence``, which changes nothing in the result."""
    algorithm = context.config["algorithm"]
    parameters = find_method(algorithm).parameters.model_validate(context.config["parameters"])
    if not isinstance(parameters, RankingParameters):
        raise StageError(f"{algorithm!r} does not learn from rankings")
    seed_everything(int(context.config["seed"]))
    rankings = RankingTokens.read(context.inputs["data"])
    model = tuned_policy(context, parameters)
    tokenizer = load_tokenizer(context.inputs["policy"])
    objective = RankedPolicyObjective(ranking_loss(algorithm, parameters))
    collator = RankingCollator(rankings, pad_id(tokenizer))
    history = train_offline(context, model, objective, collator, parameters, cadence=cadence)
    publish(model, tokenizer, context.output / "model")
    history.write(context.output / "history.jsonl")
    return {"prompts": len(rankings), "responses": len(rankings.ranks), **history.last}
