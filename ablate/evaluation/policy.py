"""A policy as the engines use it: prompts rendered once, responses and log-likelihoods in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ablate.context import Resources
from ablate.evaluation.items import Finish
from ablate.evaluation.journal import Part
from ablate.evaluation.sampling import Sampling
from ablate.models.chat import Messages, encode_rendered, render, split_reasoning
from ablate.models.loading import load_policy, load_tokenizer
from ablate.models.properties import context_length, eos_ids, pad_id
from ablate.training.collate import pad_sequences
from ablate.training.devices import stage_device
from ablate.training.logprobs import length_batches, position_ids
from ablate.training.rollouts import Sampled, sample
from ablate.training.seeding import derive_seed

SAMPLE_TOKENS = 1 << 16
"""Padded prompt and response tokens a sampling batch may hold (its key-value cache); results do not depend on it."""

SCORE_TOKENS = 1 << 13
"""Padded tokens of a log-likelihood batch; results do not depend on it."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Answer:
    """A response as text, why it ended, its length in tokens (EOS included), and what was thought before it."""

    text: str
    finish: Finish
    tokens: int
    reasoning: str = ""


def open_policy(folder: Path, resources: Resources, *, chat: bool) -> Policy:
    """The policy of a stage's input, on the stage's device."""
    model: nn.Module = load_policy(folder)
    model.to(stage_device(resources))
    return Policy(model, load_tokenizer(folder, template=chat), chat=chat)


class Writer:
    """Prompts of a policy as text and as tokens, wherever it is computed; ``context`` is how many tokens it reads.

    ``chat`` renders prompts in the chat template, which then holds all special tokens but a BOS that the tokenizer
    adds to every text; without it the tokenizer adds its own.
    """

    def __init__(self, tokenizer: Any, *, chat: bool, context: int | None) -> None:
        self.tokenizer = tokenizer
        self.chat = chat
        self.context = context

    def render(self, messages: Messages, prefix: str = "", thinking: bool | None = None) -> str:
        """The prompt in the chat template, ending in the generation prompt and the start of the assistant's turn."""
        return render(self.tokenizer, messages, prompt=True, thinking=thinking) + prefix

    def encode(self, text: str) -> list[int]:
        """Token ids of a rendered prompt."""
        return encode_rendered(self.tokenizer, text) if self.chat else list(self.tokenizer.encode(text))

    def room(self, tokens: int, limit: int) -> int:
        """Most tokens of a response to a prompt of ``tokens``: what the context has left, at most ``limit``."""
        return limit if self.context is None else min(limit, self.context - tokens)


class Policy(Writer):
    """A causal language model with its tokenizer.

    A prompt that leaves no room for a token in the context is never cut: it is answered ``too_long``.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, chat: bool) -> None:
        super().__init__(tokenizer, chat=chat, context=context_length(model))
        self.model = model.eval()
        self.eos = eos_ids(model, tokenizer)
        self.pad = pad_id(tokenizer)

    def generate(
        self, prompts: Sequence[str], how: Sampling, progress: Progress | None = None, kept: Part | None = None
    ) -> list[Answer]:
        """One response to each prompt, of no more tokens than the context has room for.

        Answers that ``kept`` knows are not drawn again, the others are added to it. Each repeat has batches of half
        the size, which change a response by rounding alone. Raises ``UsageError`` for bad sampling values.
        """
        ids = [self.encode(prompt) for prompt in prompts]
        room = [self.room(len(row), how.limit) for row in ids]
        answers = {row: Answer(*value) for row, value in kept.known.items()} if kept else {}
        # Rows with equal room form a batch of their own: learned position embeddings allow no step past the context.
        for length, rows in sorted(_grouped(room).items(), reverse=True):
            seed = derive_seed(how.seed, "room", length)
            for batch in self._batches([ids[row] for row in rows], length, SAMPLE_TOKENS >> how.repeat):
                places = [place for place in batch if rows[place] not in answers]
                prompts_of_batch = [ids[rows[place]] for place in places]
                drawn = self._sample(prompts_of_batch, places, length, how, seed)
                asked = [prompts[rows[place]] for place in places]
                made = [self._answer(text, item, how.stop) for text, item in zip(asked, drawn, strict=True)]
                found = {rows[place]: answer for place, answer in zip(places, made, strict=True)}
                answers |= found
                if kept and found:
                    kept.keep({row: astuple(answer) for row, answer in found.items()})
                if progress:
                    progress(len(answers), len(ids))
        return [answers.get(row, Answer("", "too_long", 0)) for row in range(len(ids))]

    def _batches(self, prompts: list[list[int]], length: int, tokens: int) -> list[list[int]]:
        """Places of prompts that are answered together, the longest first, of at most so many ``tokens``; none where
        there is no room."""
        if length <= 0:
            return []
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        size = max(1, tokens // (len(prompts[order[0]]) + length))
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _sample(
        self, prompts: list[list[int]], numbers: list[int], length: int, how: Sampling, seed: int
    ) -> list[Sampled]:
        return sample(
            self.model,
            prompts,
            max_new_tokens=length,
            temperature=how.temperature,
            top_p=how.top_p,
            eos_token_ids=self.eos,
            pad_token_id=self.pad,
            generator_seed=seed,
            batch_size=max(1, len(prompts)),
            numbers=numbers,
        )

    def _answer(self, prompt: str, sampled: Sampled, stop: Sequence[str]) -> Answer:
        kept = sampled.ids[:-1] if sampled.finished else sampled.ids
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return read_text(prompt, text, len(sampled.ids), stop, finished=sampled.finished)

    @torch.no_grad()
    def loglikelihoods(
        self, requests: Sequence[tuple[str, str]], progress: Progress | None = None, kept: Part | None = None
    ) -> list[tuple[float, bool] | None]:
        """log p(continuation | context), summed over tokens, and whether greedy decoding gives it.

        None where context and continuation do not fit. Continuations that share all input tokens (the letters of a
        multiple-choice question) share a forward pass. ``kept`` as in :meth:`generate`.
        """
        found = {row: (float(value), bool(flag)) for row, (value, flag) in kept.known.items()} if kept else {}
        shared: dict[tuple[tuple[int, ...], int], list[tuple[int, int]]] = defaultdict(list)
        for place, (context, continuation) in enumerate(requests):
            before, after = self.split_tokens(context, continuation)
            if self.context is None or len(before) + len(after) <= self.context:
                inputs = (*before, *after[:-1])
                shared[inputs, len(after)].append((place, after[-1]))
        inputs_N = list(shared)
        done = 0
        lengths_N = np.array([len(tokens) for tokens, _ in inputs_N], dtype=np.int64)
        for rows in length_batches(lengths_N, SCORE_TOKENS):
            wanted = [row for row in rows if any(place not in found for place, _ in shared[inputs_N[row]])]
            logprobs = self._last_logprobs([inputs_N[row] for row in wanted]) if wanted else []
            fresh: dict[int, tuple[float, bool]] = {}
            for row, logprobs_CV in zip(wanted, logprobs, strict=True):
                key = inputs_N[row]
                for place, last in shared[key]:
                    fresh[place] = _continuation(logprobs_CV, (*key[0][len(key[0]) - key[1] + 1 :], last))
            found |= fresh
            if kept and fresh:
                kept.keep(fresh)
            done += len(rows)
            if progress:
                progress(done, len(inputs_N))
        return [found.get(place) for place in range(len(requests))]

    def split_tokens(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of context and continuation, tokenised together and cut where the context's tokens end.

        Spaces at the end of the context go to the continuation, as words begin with their space in most tokenizers.
        An empty context becomes one EOS token.
        """
        spaces = len(context) - len(context.rstrip())
        if spaces and context.rstrip():
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        if not context:
            return [min(self.eos)], list(self.tokenizer.encode(continuation, add_special_tokens=False))
        before = self.encode(context)
        after = self.encode(context + continuation)[len(before) :]
        # A tokenizer that drops what it can't spell leaves nothing: compare that as a token of its own.
        return before, after or list(self.tokenizer.encode(continuation, add_special_tokens=False)) or [self.pad]

    def _last_logprobs(self, keys: Sequence[tuple[tuple[int, ...], int]]) -> list[torch.Tensor]:
        """Log-probabilities [C, V] after the last C input tokens of each (input tokens, C), float32."""
        device = next(self.model.parameters()).device
        rows = [np.array(tokens, dtype=np.int64) for tokens, _ in keys]
        batch = pad_sequences(rows, [row[:0] for row in rows], self.pad, side="left")
        mask_BT = batch["attention_mask"].to(device)
        output = self.model(
            input_ids=batch["input_ids"].to(device),
            attention_mask=mask_BT,
            position_ids=position_ids(mask_BT),
            use_cache=False,
            logits_to_keep=max(count for _, count in keys),
        )
        counts = [count for _, count in keys]
        pairs = zip(output.logits, counts, strict=True)
        return [logits_CV[-count:].float().log_softmax(-1) for logits_CV, count in pairs]


def read_text(
    prompt: str, written: str, tokens: int, stop: Sequence[str], *, finished: bool, stopped: bool = False
) -> Answer:
    """The answer that what was written after a prompt is: without what was thought first, cut at the first stop string.

    ``finished``: the model ended it, or a stop string that was cut off already (``stopped``).
    """
    reasoning, text = split_reasoning(prompt, written)
    ends = [text.find(mark) for mark in stop if mark and mark in text]
    if ends or stopped:
        return Answer(text[: min(ends, default=len(text))], "stop", tokens, reasoning)
    return Answer(text, "eos" if finished else "length", tokens, reasoning)


def _continuation(logprobs_CV: torch.Tensor, tokens: Sequence[int]) -> tuple[float, bool]:
    ids_C = torch.tensor(tokens, device=logprobs_CV.device)
    chosen_C = logprobs_CV.gather(-1, ids_C.unsqueeze(-1)).squeeze(-1)
    return float(chosen_C.double().sum()), bool((logprobs_CV.argmax(-1) == ids_C).all())


def _grouped(lengths: Sequence[int]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths):
        groups[length].append(row)
    return groups
