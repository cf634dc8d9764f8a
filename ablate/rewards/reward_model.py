"""A trained reward model as a reward: the scalar head at the last token of the rendered conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ablate.errors import StageError
from ablate.models.chat import Messages, encode_rendered, render
from ablate.models.properties import context_length
from ablate.training.collate import pad_sequences
from ablate.training.logprobs import length_batches
from ablate.training.score_head import sequence_scores

BATCH_TOKENS = 1 << 14
"""Padded tokens a batch may hold; scores do not depend on it."""


class RewardModel:
    """Scores conversations in the reward model's own chat template.

    The template is applied once to prompt and response together, special tokens included; what it writes after the
    end-of-turn token is cut off, so that the score is read where training read it. ``max_length`` (default: the
    model's context) is never exceeded by cutting: a longer conversation has no score.
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
    def score(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        """Scores in the order given; batches hold conversations of similar length."""
        ids = [np.array(self.tokens(p, r), dtype=np.int64) for p, r in zip(prompts, responses, strict=True)]
        fits = [row for row, tokens in enumerate(ids) if self.max_length is None or len(tokens) <= self.max_length]
        scores: list[float | None] = [None] * len(ids)
        device = next(self.model.parameters()).device
        done = 0
        for batch_rows in length_batches(np.array([len(ids[row]) for row in fits], dtype=np.int64), BATCH_TOKENS):
            rows = [fits[place] for place in batch_rows]
            batch = pad_sequences([ids[row] for row in rows], [ids[row][:0] for row in rows], pad_id=0)
            scores_B = sequence_scores(self.model, batch["input_ids"].to(device), batch["attention_mask"].to(device))
            for row, value in zip(rows, scores_B.tolist(), strict=True):
                scores[row] = value
            done += len(rows)
            if self.progress:
                self.progress(done, len(fits))
        return scores
