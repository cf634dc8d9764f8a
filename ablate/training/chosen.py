"""Fine-tuning on the chosen completions: SFT's objective on the offline trainer, in the batches of all its methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ablate.algorithms.sft_chosen import ChosenParameters
from ablate.context import StageContext
from ablate.models.loading import load_tokenizer
from ablate.models.properties import pad_id
from ablate.training.checkpoints import Cadence
from ablate.training.collate import PairCollator, PairTokens, pad_sequences
from ablate.training.lora import publish, tuned_policy
from ablate.training.offline import train_offline
from ablate.training.seeding import seed_everything
from ablate.training.sft import NextTokenObjective


@dataclass(frozen=True)
class ChosenCollator(PairCollator):
    """Makes a batch of B sequences from B pairs: prompts and chosen completions."""

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the padded batch of these rows."""
        prompts, chosen = ([side[row] for row in rows] for side in (self.pairs.prompts, self.pairs.chosen))
        batch = pad_sequences(prompts, chosen, self.pad_id, side=self.side, extra=self.extra)
        return {**batch, "rows": torch.tensor(rows)}


def run(context: StageContext, *, cadence: Cadence | None = None) -> dict[str, Any]:
    """Fine-tune ``policy`` on the chosen completions of ``data``; write ``model/`` and ``history.jsonl``."""
    parameters = ChosenParameters.model_validate(context.config["parameters"])
    seed_everything(int(context.config["seed"]))
    pairs = PairTokens.read(context.inputs["data"])
    model, tokenizer = tuned_policy(context, parameters), load_tokenizer(context.inputs["policy"])
    collator = ChosenCollator(pairs, pad_id=pad_id(tokenizer))
    plan = cadence or Cadence(context.resources.checkpoint_seconds)
    history = train_offline(context, model, NextTokenObjective(), collator, parameters, cadence=plan)
    publish(model, tokenizer, context.output / "model")
    history.write(context.output / "history.jsonl")
    return {"pairs": len(pairs), **history.last}
