"""What reward models minimise, from the forward pass to one value a pair, a prompt or a rating."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ablate.training.rankings import by_prompt
from ablate.training.reward_losses import both_orders, bradley_terry, centring, mean_over, ordered_pairs
from ablate.training.score_head import sequence_outputs, sequence_scores

RankingLoss = Callable[[Tensor, Tensor], Tensor]


class _OverExamples:
    """An objective with one unit an example, which may start anywhere: a fresh head is random."""

    def units(self, batch: dict[str, Any]) -> int:
        """Return the pairs, or the prompts."""
        return len(batch["rows"])

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Require nothing."""


@dataclass(frozen=True)
class PairObjective(_OverExamples):
    """Bradley–Terry over one forward pass of chosen and rejected together; the batch may hold margins [B]."""

    centring: float = 0.0

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per pair, and accuracy (a tie is an error), margin and scores."""
        chosen_B, rejected_B = sequence_scores(model, batch["input_ids"], batch["attention_mask"]).chunk(2)
        loss_B = bradley_terry(chosen_B, rejected_B, batch.get("margin", 0.0))
        if self.centring:
            ranks_BK = torch.ones(len(chosen_B), 2, dtype=torch.int64, device=chosen_B.device)
            loss_B = loss_B + self.centring * centring(torch.stack([chosen_B, rejected_B], 1), ranks_BK)
        margin_B = (chosen_B - rejected_B).detach()
        values = {
            "accuracy": (margin_B > 0).float(),
            "margin": margin_B,
            "scores/chosen": chosen_B.detach(),
            "scores/rejected": rejected_B.detach(),
        }
        return loss_B, values


@dataclass(frozen=True)
class RankingObjective(_OverExamples):
    """A loss over rankings: the responses of a prompt share a forward pass, and the prompt is the unit."""

    loss: RankingLoss
    centring: float = 0.0

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per prompt, and what :func:`agreement` says of scores and ranks."""
        ranks_BK = batch["ranks"]
        scores_BK = by_prompt(sequence_scores(model, batch["input_ids"], batch["attention_mask"]), ranks_BK)
        loss_B = self.loss(scores_BK, ranks_BK)
        if self.centring:
            loss_B = loss_B + self.centring * centring(scores_BK, ranks_BK)
        present_BK = ranks_BK > 0
        mean_B = scores_BK.detach().sum(1) / present_BK.sum(1)
        return loss_B, {**agreement(scores_BK.detach(), ranks_BK), "scores/mean": mean_B}


def agreement(scores_BK: Tensor, ranks_BK: Tensor) -> dict[str, Tensor]:
    """Return how scores and ranks agree, per prompt [B].

    ``accuracy``: the share of the prompt's untied pairs whose better response scores strictly higher; ``agreement``:
    Kendall's tau, concordant minus discordant pairs over untied ones; ``best``: whether the response with the highest
    score is ranked first; ``margin``: mean score of the better minus the worse response of a pair.
    """
    pairs_BKK = ordered_pairs(ranks_BK)
    differences_BKK = scores_BK.unsqueeze(2) - scores_BK.unsqueeze(1)
    highest_B = scores_BK.masked_fill(ranks_BK == 0, float("-inf")).argmax(1, keepdim=True)
    return {
        "accuracy": mean_over((differences_BKK > 0).float(), pairs_BKK),
        "agreement": mean_over(differences_BKK.sign(), pairs_BKK),
        "best": (ranks_BK.gather(1, highest_B).squeeze(1) == 1).float(),
        "margin": mean_over(differences_BKK, pairs_BKK),
    }


@dataclass(frozen=True)
class AttributeObjective:
    """Squared errors of one head an attribute; the unit is a rating, and missing ratings count for nothing."""

    attributes: Sequence[str]

    def units(self, batch: dict[str, Any]) -> int:
        """Return the ratings."""
        return int((~batch["ratings"].isnan()).sum())

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the squared error per rating, with its size, the rating and what was said in its place."""
        outputs_NA = sequence_outputs(model, batch["input_ids"], batch["attention_mask"])
        rated_NA = ~batch["ratings"].isnan()
        said_U, ratings_U = outputs_NA[rated_NA], batch["ratings"][rated_NA]
        values = {
            "absolute_error": (said_U - ratings_U).abs().detach(),
            "ratings": ratings_U,
            "predictions": said_U.detach(),
        }
        return (said_U - ratings_U) ** 2, values

    def check_start(self, loss_U: Tensor, batch: dict[str, Any]) -> None:
        """Require nothing: fresh heads are random."""


@dataclass(frozen=True)
class ComparisonObjective(_OverExamples):
    """The loss of a model that reads both responses, over both orders of each pair."""

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss per pair, and accuracy (of the mean of both orders), margin and how far the orders differ."""
        forward_B, backward_B = sequence_scores(model, batch["input_ids"], batch["attention_mask"]).chunk(2)
        margin_B = (forward_B - backward_B).detach() / 2
        values = {
            "accuracy": (margin_B > 0).float(),
            "margin": margin_B,
            "order": (forward_B + backward_B).detach() / 2,
        }
        return both_orders(forward_B, backward_B), values
