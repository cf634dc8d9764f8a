"""TRL's trainers of losses without a reference, which are among what TRL calls experimental."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.experimental.utils import DPODataCollatorWithPadding

from ablate.training.objectives import logged
from ablate.training.reference_free import PolicyLogprobs
from ablate.training.trl_trainers import SIDES, Batch, TRLRows, TRLTrainer


class WholePairRows(TRLRows):
    """Pairs as two labelled sequences, for trainers without a reference."""

    def features(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return each pair's sequences, with labels on the completions alone."""
        examples: list[dict[str, Any]] = []
        for pair in super().features(rows):
            example: dict[str, Any] = {}
            for side in SIDES:
                prompt, completion = pair["prompt_ids"], pair[f"{side}_ids"]
                example[f"{side}_input_ids"] = prompt + completion
                example[f"{side}_attention_mask"] = [1] * (len(prompt) + len(completion))
                example[f"{side}_labels"] = [-100] * len(prompt) + completion
            examples.append(example)
        return examples

    def columns(self, rows_B: Tensor) -> Batch:
        """Return nothing: there is no reference."""
        return {}


class ReferenceFreeTrainer(TRLTrainer):
    """What TRL's CPO and ORPO trainers have in common: mean log-probabilities, and no reference."""

    rows = WholePairRows
    collator = DPODataCollatorWithPadding
    _means: tuple[Tensor, Tensor]
    _stored_metrics: Any

    def tokenize_row(self, feature: dict[str, Any], model: nn.Module | None = None) -> dict[str, Any]:
        """Return the row as it is: it is tokenised already."""
        return feature

    def concatenated_forward(self, model: nn.Module, batch: Batch) -> Any:
        """Return TRL's forward pass; its mean log-probabilities are kept for the training curve."""
        made: tuple[Tensor, ...] = self.theirs.concatenated_forward(self, model, batch)  # type: ignore[attr-defined]
        self._means = made[0].detach(), made[1].detach()
        return made

    def known_at_start(self, batch: Batch) -> Batch:
        """Return nothing: without a reference no first loss is known."""
        return {}

    def observed(self, batch: Batch) -> dict[str, float]:
        """Return our values of TRL's log-probabilities: its own rewards are scaled in other ways."""
        self._stored_metrics.clear()
        tokens = [(batch[f"{side}_labels"] != -100).sum(-1) for side in SIDES]
        sums = [mean_B * tokens_B for mean_B, tokens_B in zip(self._means, tokens, strict=True)]
        values = logged(PolicyLogprobs(*sums, *tokens), self.objective.beta)
        return {name: float(value_B.mean()) for name, value_B in values.items()}


class SimPOTrainer(ReferenceFreeTrainer, CPOTrainer):
    """TRL's CPOTrainer with SimPO's loss, without the cross-entropy that it adds unless told."""

    theirs = CPOTrainer

    def make_arguments(self, common: dict[str, Any]) -> CPOConfig:
        """Return TRL's arguments."""
        return CPOConfig(
            **self.shared(CPOConfig, common),
            loss_type="simpo",
            cpo_alpha=0.0,
            **self.given(beta="beta", simpo_gamma="gamma"),
        )


class OddsRatioTrainer(ReferenceFreeTrainer, ORPOTrainer):
    """TRL's ORPOTrainer: its cross-entropy is a mean over all tokens that pass at once, the prompts' too."""

    theirs = ORPOTrainer
    whole_batches = True

    def make_arguments(self, common: dict[str, Any]) -> ORPOConfig:
        """Return TRL's arguments; its beta is the weight of the odds ratio."""
        return ORPOConfig(**self.shared(ORPOConfig, common), **self.given(beta="odds_ratio_weight"))
