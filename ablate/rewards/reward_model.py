"""Trained reward models as rewards: heads at the last token of the rendered conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import logsigmoid

from ablate.errors import StageError
from ablate.models.chat import Messages, encode_rendered, render
from ablate.models.loading import load_reward_model, load_tokenizer
from ablate.models.properties import context_length
from ablate.models.reward_heads import AttributeHeads, with_heads
from ablate.training.collate import pad_sequences
from ablate.training.logprobs import length_batches
from ablate.training.score_head import sequence_outputs

BATCH_TOKENS = 1 << 14
"""Padded tokens a batch may hold; scores do not depend on it."""


class SequenceModel:
    """A decoder with a linear head, read at the end of conversations in the model's own chat template.

    The template is applied once to prompt and response together, special tokens included; what it writes after the
    end-of-turn token is cut off, so that the head is read where training read it. ``max_length`` (default: the
    model's context) is never exceeded by cutting: nothing is said of a longer text.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.progress = progress
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_length = max_length if max_length is not None else context_length(model)

    def tokens(self, prompt: Messages, response: str) -> list[int]:
        """Token ids from the first prompt token to the end-of-turn token of the response."""
        text = render(self.tokenizer, [*prompt, {"role": "assistant", "content": response}])
        ids = encode_rendered(self.tokenizer, text)
        if self.tokenizer.eos_token_id not in ids:
            raise StageError("the reward model's chat template does not end turns with its EOS token")
        return ids[: len(ids) - ids[::-1].index(self.tokenizer.eos_token_id)]

    @torch.no_grad()
    def outputs(self, sequences: Sequence[Sequence[int]]) -> list[list[float] | None]:
        """Outputs of the head at the end of each sequence; batches hold sequences of similar length."""
        ids = [np.array(tokens, dtype=np.int64) for tokens in sequences]
        fits = [row for row, tokens in enumerate(ids) if self.max_length is None or len(tokens) <= self.max_length]
        outputs: list[list[float] | None] = [None] * len(ids)
        device = next(self.model.parameters()).device
        done = 0
        for batch_rows in length_batches(np.array([len(ids[row]) for row in fits], dtype=np.int64), BATCH_TOKENS):
            rows = [fits[place] for place in batch_rows]
            batch = pad_sequences([ids[row] for row in rows], [ids[row][:0] for row in rows], pad_id=0)
            found = sequence_outputs(self.model, batch["input_ids"].to(device), batch["attention_mask"].to(device))
            for row, values in zip(rows, found.tolist(), strict=True):
                outputs[row] = values
            done += len(rows)
            if self.progress:
                self.progress(done, len(fits))
        return outputs


class RewardModel(SequenceModel):
    """Scores responses: the one output of the head at the end of prompt and response."""

    def score(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        """Scores in the order given; null where a conversation is longer than the model's context."""
        outputs = self.outputs([self.tokens(p, r) for p, r in zip(prompts, responses, strict=True)])
        return [None if values is None else values[0] for values in outputs]


class AttributeModel(SequenceModel):
    """Rates responses in the attributes that a reward model was trained on, a head for each of ``attributes``."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        attributes: Sequence[str],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(model, tokenizer, progress=progress)
        self.attributes = tuple(attributes)

    @classmethod
    def open(
        cls, folder: Path, device: torch.device, *, progress: Callable[[int, int], None] | None = None
    ) -> AttributeModel:
        """Open the folder of a reward model with loss attributes; raises DataError for another one."""
        heads = AttributeHeads.read(folder)
        model = load_reward_model(folder)
        with_heads(model, heads.heads_AH)
        model.to(device)  # type: ignore[arg-type]
        return cls(model, load_tokenizer(folder), tuple(heads.weights), progress=progress)

    def rate(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[dict[str, float] | None]:
        """Ratings by attribute, in the order given; null where a conversation is longer than the model's context."""
        outputs = self.outputs([self.tokens(p, r) for p, r in zip(prompts, responses, strict=True)])
        return [None if values is None else dict(zip(self.attributes, values, strict=True)) for values in outputs]


class ComparisonModel(SequenceModel):
    """Says which of two responses is better: reads both in one sequence, in both orders."""

    def compare(self, prompts: Sequence[Messages], firsts: Sequence[str], seconds: Sequence[str]) -> list[float | None]:
        """Log-odds of the mean probability of both orders that the first response is better."""
        asked = list(zip(prompts, firsts, seconds, strict=True))
        one = [[*self.tokens(prompt, first), *self.tokens(prompt, second)] for prompt, first, second in asked]
        other = [[*self.tokens(prompt, second), *self.tokens(prompt, first)] for prompt, first, second in asked]
        outputs = self.outputs([*one, *other])
        return [
            None if forward is None or backward is None else mean_log_odds(forward[0], -backward[0])
            for forward, backward in zip(outputs[: len(one)], outputs[len(one) :], strict=True)
        ]


def mean_log_odds(one: float, other: float) -> float:
    """Return the log-odds of the mean of two probabilities that are given as log-odds, far from 0 and 1 too."""
    odds = torch.tensor([one, other], dtype=torch.float64)
    return float(logsigmoid(odds).logsumexp(0) - logsigmoid(-odds).logsumexp(0))
