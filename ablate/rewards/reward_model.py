"""Trained reward models as rewards: heads at the last token of the rendered conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ablate.catalogs.suite_parts import Reading
from ablate.errors import StageError
from ablate.models.chat import Messages, encode_rendered, render
from ablate.models.loading import load_reward_model, load_tokenizer
from ablate.models.properties import context_length
from ablate.models.reward_heads import AttributeHeads, with_heads
from ablate.rewards.interface import Score
from ablate.training.collate import pad_sequences
from ablate.training.logprobs import length_batches
from ablate.training.score_head import sequence_outputs

BATCH_TOKENS = 1 << 14
"""Padded tokens a batch may hold; scores do not depend on it."""

CPU_BATCH_TOKENS = 1 << 12
"""The most on a processor, whose caches larger batches do not fit: benchmarks/evaluation.py."""

ReadAt: TypeAlias = Literal["end-of-turn", "last"]
"""The token at which a head is read."""


class SequenceModel:
    """A sequence classifier, read at the end of conversations in the model's own chat template.

    The template is applied once to prompt and response together, special tokens included. ``at``: a head that was
    trained here is read at the end-of-turn token, and what the template writes after it is cut off; others at the last
    token of the rendered text, as ``AutoModelForSequenceClassification`` reads them. What is longer than
    ``reading.max_length`` or the model's context has no score, or loses its start or end, as ``reading`` says.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        at: ReadAt = "end-of-turn",
        reading: Reading | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.progress = progress
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.at = at
        self.reading = reading or Reading()
        limits = [limit for limit in (self.reading.max_length, context_length(model)) if limit is not None]
        self.max_length = min(limits, default=None)

    def tokens(self, prompt: Messages, response: str) -> list[int]:
        """Token ids from the first prompt token to the one that the head is read at."""
        text = render(self.tokenizer, [*prompt, {"role": "assistant", "content": response}])
        ids = encode_rendered(self.tokenizer, text)
        if self.at == "last":
            return ids
        if self.tokenizer.eos_token_id not in ids:
            raise StageError("the reward model's chat template does not end turns with its EOS token")
        return ids[: len(ids) - ids[::-1].index(self.tokenizer.eos_token_id)]

    def fitted(self, ids: list[int]) -> list[int] | None:
        """Token ids that the model reads; null where they are too many and none may be dropped.

        A beginning-of-sequence token stays at the start of what loses its start.
        """
        if self.max_length is None or len(ids) <= self.max_length:
            return ids
        if self.reading.too_long == "unscored":
            return None
        if self.reading.too_long == "cut-end":
            return ids[: self.max_length]
        kept = ids[:1] if ids[0] == self.tokenizer.bos_token_id else []
        return [*kept, *ids[len(kept) - self.max_length :]]

    @torch.no_grad()
    def outputs(self, sequences: Sequence[Sequence[int] | None]) -> list[list[float] | None]:
        """Outputs of the head at the end of each sequence; batches hold sequences of similar length.

        A null sequence, or one that is longer than the model reads, has none. Raises StageError for an output that is
        no finite number.
        """
        ids = [np.array(() if tokens is None else tokens, dtype=np.int64) for tokens in sequences]
        fits = [row for row, tokens in enumerate(ids) if len(tokens) and not self._is_too_long(tokens)]
        outputs: list[list[float] | None] = [None] * len(ids)
        device = next(self.model.parameters()).device
        done = 0
        most = min(BATCH_TOKENS, CPU_BATCH_TOKENS) if device.type == "cpu" else BATCH_TOKENS
        for batch_rows in length_batches(np.array([len(ids[row]) for row in fits], dtype=np.int64), most):
            rows = [fits[place] for place in batch_rows]
            batch = pad_sequences([ids[row] for row in rows], [ids[row][:0] for row in rows], pad_id=0)
            found = self._head(batch["input_ids"].to(device), batch["attention_mask"].to(device))
            if not bool(found.isfinite().all()):
                raise StageError("the reward model gives a score that is no finite number")
            for row, values in zip(rows, found.tolist(), strict=True):
                outputs[row] = values
            done += len(rows)
            if self.progress:
                self.progress(done, len(fits))
        return outputs

    def _is_too_long(self, tokens: np.ndarray[Any, Any]) -> bool:
        return self.max_length is not None and len(tokens) > self.max_length

    def _head(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Return the outputs [B, outputs] of a decoder at its last real token, of an encoder as it pools itself."""
        if isinstance(getattr(self.model, "score", None), nn.Module):
            return sequence_outputs(self.model, input_ids_BT, attention_mask_BT)
        logits: Tensor = self.model(input_ids=input_ids_BT, attention_mask=attention_mask_BT).logits
        return logits.float()


class RewardModel(SequenceModel):
    """Scores responses: the one output of the head at the end of prompt and response."""

    def score(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[float | None]:
        """Scores in the order given; null where a conversation is longer than the model reads and none may be cut."""
        return [score.value for score in self.read(prompts, responses)]

    def read(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[Score]:
        """Scores in the order given, with whether a part of the conversation was cut off."""
        whole = [self.tokens(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        fitted = [self.fitted(ids) for ids in whole]
        return [
            Score(None if values is None else values[0], kept is not None and len(kept) < len(ids))
            for ids, kept, values in zip(whole, fitted, self.outputs(fitted), strict=True)
        ]


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
