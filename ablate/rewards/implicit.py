"""How likely a policy finds responses, from which graders make its implicit reward (``rewards/likelihood.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from ablate.context import StageContext, write_json
from ablate.data.json_lines import write_json_lines
from ablate.data.tokenise import completion_ids
from ablate.errors import StageError
from ablate.models.chat import Ids, Message, Messages, encode_chats
from ablate.models.loading import load_policy, load_tokenizer
from ablate.models.properties import context_length, pad_id
from ablate.rewards.likelihood import PAIR_LIKELIHOODS, Likelihood
from ablate.rewards.pairs import Pair, build_pairs
from ablate.training.devices import stage_device
from ablate.training.logprobs import sequence_logprobs

Progress = Callable[[int, int], None]


class LanguageModel:
    """A causal language model that says how likely responses are; what does not fit its context has no likelihood."""

    def __init__(self, model: nn.Module, tokenizer: Any, progress: Progress | None = None) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.progress = progress

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

    def likelihoods(self, tokens: Sequence[tuple[Ids, Ids]]) -> list[Likelihood | None]:
        """Likelihoods in the order given; batches hold sequences of similar length, which changes nothing."""
        room = context_length(self.model)
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
    """Write ``likelihoods.jsonl``, how likely ``policy`` finds both sides of a suite's pairs, and ``protocol.json``.

    Config: the suite's data and ``chat``, whether the policy knows a chat template.
    """
    chat = bool(context.config["chat"])
    pairs = build_pairs(context)
    model: nn.Module = load_policy(context.inputs["policy"])
    model.to(stage_device(context.resources))
    tokenizer = load_tokenizer(context.inputs["policy"], template=chat)
    language_model = LanguageModel(
        model, tokenizer, lambda done, total: context.events.progress(done, total, "responses")
    )
    rows = pair_rows(language_model, pairs, chat=chat)
    write_json_lines(context.output / PAIR_LIKELIHOODS, rows)
    write_json(context.output / "protocol.json", {"made": dict(context.config)})
    too_long = sum(row["chosen"] is None or row["rejected"] is None for row in rows)
    return {"pairs": len(rows), "too_long": too_long}


def pair_rows(model: LanguageModel, pairs: Sequence[Pair], *, chat: bool) -> list[Mapping[str, Any]]:
    """One row for each pair with the likelihoods and lengths (characters) of both responses."""
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    if chat:
        tokens = model.chat_tokens([pair.prompt for pair in pairs] * 2, texts)
    else:
        tokens = model.plain_tokens([pair.plain_text() for pair in pairs] * 2, texts)
    found = [None if likelihood is None else likelihood.as_json() for likelihood in model.likelihoods(tokens)]
    return [
        {**pair.facts(), "chosen": chosen, "rejected": rejected}
        for pair, chosen, rejected in zip(pairs, found[: len(pairs)], found[len(pairs) :], strict=True)
    ]
