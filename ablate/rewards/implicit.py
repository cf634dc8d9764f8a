"""How likely a policy finds responses, from which graders make its implicit reward (``rewards/likelihood.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from ablate.catalogs.suite_parts import Reading
from ablate.context import StageContext, write_json
from ablate.data.json_lines import write_json_lines
from ablate.data.suite_files import open_source
from ablate.data.tokenise import completion_ids
from ablate.errors import StageError
from ablate.models.chat import Ids, Message, Messages, encode_chats
from ablate.models.loading import load_policy, load_tokenizer
from ablate.models.properties import context_length, pad_id
from ablate.rewards.likelihood import PAIR_LIKELIHOODS, Likelihood
from ablate.rewards.pairs import Candidates, Pair, build_pairs, responses_of, scored_row, truncated
from ablate.training.devices import stage_device
from ablate.training.logprobs import sequence_logprobs

Progress = Callable[[int, int], None]

KEPT_PROMPT = 128
"""Tokens of a prompt that are kept where it has to be cut."""


class LanguageModel:
    """A causal language model that says how likely responses are; what is longer than it reads has no likelihood.

    Where ``reading`` lets texts be cut, :meth:`fitted` does it.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, progress: Progress | None = None, reading: Reading | None = None
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.progress = progress
        self.reading = reading or Reading()
        limits = [limit for limit in (self.reading.max_length, context_length(model)) if limit is not None]
        self.max_length = min(limits, default=None)

    def chat_tokens(self, prompts: Sequence[Messages], responses: Sequence[str]) -> list[tuple[Ids, Ids]]:
        """Ids of each prompt and of its response, as training sees them: the response ends with its end-of-turn."""
        turns = [Message(role="assistant", content=response) for response in responses]
        whole = [[*prompt, turn] for prompt, turn in zip(prompts, turns, strict=True)]
        asked = encode_chats(self.tokenizer, prompts, prompt=True)["input_ids"]
        full = encode_chats(self.tokenizer, whole)["input_ids"]
        return [
            (before, completion_ids(ids, before, self.tokenizer, str(row)))
            for row, (before, ids) in enumerate(zip(asked, full, strict=True))
        ]

    def plain_tokens(self, prompts: Sequence[str], responses: Sequence[str]) -> list[tuple[Ids, Ids]]:
        """Ids of each prompt and of its response after a space, without a chat template; nothing ends the response.

        Raises StageError where the prompt's tokens are not those that the whole text begins with.
        """
        before = [list(self.tokenizer.encode(prompt)) for prompt in prompts]
        texts = (f"{prompt} {response}" for prompt, response in zip(prompts, responses, strict=True))
        full = [list(self.tokenizer.encode(text)) for text in texts]
        for prompt, ids, whole in zip(prompts, before, full, strict=True):
            if whole[: len(ids)] != ids:
                raise StageError(
                    f"the tokens of the prompt {prompt[-40:]!r} are not those that prompt and response begin with, so "
                    "that the response has no tokens of its own",
                    hint="this tokenizer ends texts with a mark, or joins the prompt's end with the response; a policy "
                    "with a chat template has no such problem",
                )
        return [(ids, whole[len(ids) :]) for ids, whole in zip(before, full, strict=True)]

    def fitted(self, asked: Sequence[tuple[Ids, Ids]]) -> list[tuple[Ids, Ids]]:
        """Token ids of one prompt and its responses, cut where the longest does not fit and ``reading`` allows it.

        All responses then see the last ``KEPT_PROMPT`` tokens of the prompt, and lose their own end if that is not
        enough (the rule of TRL's DPO trainer, which RewardBench took over).
        """
        limit, longest = self.max_length, max(len(before) + len(after) for before, after in asked)
        if limit is None or longest <= limit or self.reading.too_long == "unscored":
            return list(asked)
        kept = min(KEPT_PROMPT, limit // 2)
        return [(before[-kept:], after[: limit - len(before[-kept:])]) for before, after in asked]

    def likelihoods(self, tokens: Sequence[tuple[Ids, Ids]]) -> list[Likelihood | None]:
        """Likelihoods in the order given; batches hold sequences of similar length, which changes nothing."""
        room = self.max_length
        fits = [row for row, (before, after) in enumerate(tokens) if room is None or len(before) + len(after) <= room]
        before_N, after_N = ([np.array(tokens[row][side], dtype=np.int64) for row in fits] for side in (0, 1))
        found: list[Likelihood | None] = [None] * len(tokens)
        done = 0
        for rows, logps in sequence_logprobs(self.model, before_N, after_N, pad_id(self.tokenizer)):
            for row, value in zip(rows.tolist(), logps.tolist(), strict=True):
                found[fits[row]] = Likelihood(value, len(after_N[row]))
            done += len(rows)
            if self.progress:
                self.progress(done, len(fits))
        return found


def run(context: StageContext) -> dict[str, Any]:
    """Write ``likelihoods.jsonl``, how likely ``policy`` finds the responses of a suite's pairs, and ``protocol.json``.

    Config: the suite's data, ``chat`` (whether the policy knows a chat template) and ``reading``.
    """
    chat = bool(context.config["chat"])
    pairs = build_pairs(open_source(context), context.config)
    model: nn.Module = load_policy(context.inputs["policy"])
    model.to(stage_device(context.resources))
    tokenizer = load_tokenizer(context.inputs["policy"], template=chat)
    language_model = LanguageModel(
        model,
        tokenizer,
        lambda done, total: context.events.progress(done, total, "responses"),
        Reading.model_validate(context.config.get("reading") or {}),
    )
    rows = pair_rows(language_model, pairs, chat=chat)
    write_json_lines(context.output / PAIR_LIKELIHOODS, rows)
    write_json(context.output / "protocol.json", {"made": dict(context.config)})
    return {"pairs": len(rows), "too_long": sum(map(_is_unread, rows)), "truncated": truncated(rows)}


def _is_unread(row: Mapping[str, Any]) -> bool:
    sides = (row["chosen"], row["rejected"])
    return any(None in side if isinstance(side, list) else side is None for side in sides)


def pair_rows(model: LanguageModel, asked: Sequence[Pair | Candidates], *, chat: bool) -> list[dict[str, Any]]:
    """One row for each prompt with the likelihoods and lengths (characters) of its responses.

    ``truncated``, where it is not 0, counts responses that were read in part, or without their whole prompt.
    """
    texts = [responses_of(one) for one in asked]
    repeated = [(one, text) for one, own in zip(asked, texts, strict=True) for text in own]
    said = [text for _, text in repeated]
    if chat:
        whole = model.chat_tokens([one.prompt for one, _ in repeated], said)
    else:
        whole = model.plain_tokens([one.plain_text() for one, _ in repeated], said)
    fitted: list[tuple[Ids, Ids]] = []
    for own in texts:
        fitted += model.fitted(whole[len(fitted) : len(fitted) + len(own)])
    found = iter(zip(model.likelihoods(fitted), fitted, whole, strict=True))
    rows = []
    for one, own in zip(asked, texts, strict=True):
        mine = [next(found) for _ in own]
        values = [None if likelihood is None else likelihood.as_json() for likelihood, _, _ in mine]
        rows.append(scored_row(one, values, sum(kept != before for _, kept, before in mine)))
    return rows
