"""A policy behind an address: prompts written here, completed by a server, nothing computed on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablate.catalogs.served import Served
from ablate.context import StageContext
from ablate.errors import StageError
from ablate.evaluation.journal import Part
from ablate.evaluation.policy import Answer, Progress, Writer, read_text
from ablate.evaluation.sampling import Sampling
from ablate.models.loading import load_tokenizer
from ablate.models.properties import configured_context
from ablate.rewards.api import Account, AnswerCache, Body, Client, Endpoint
from ablate.training.seeding import derive_seed


class ServedPolicy(Writer):
    """Completes prompts through an OpenAI-compatible ``/completions``, and has no log-likelihoods.

    ``account`` says who answered and when. Responses are kept by the client as they come, by the content of what was
    asked: an attempt goes on where the one before it was stopped.
    """

    def __init__(self, tokenizer: Any, served: Served, cache: AnswerCache, *, chat: bool, context: int | None) -> None:
        super().__init__(tokenizer, chat=chat, context=context)
        self.served, self.cache, self.account = served, cache, Account()
        self.endpoint = Endpoint(served.url, served.key, timeout=served.timeout, parallel=served.parallel)
        self.model = served.model or self._only_model()

    def generate(
        self, prompts: Sequence[str], how: Sampling, progress: Progress | None = None, kept: Part | None = None
    ) -> list[Answer]:
        """One response to each prompt, as :meth:`ablate.evaluation.policy.Policy.generate` gives them.

        A sampled row has a seed of its own. What a repeat asks is asked anew, whatever was answered before. A stop
        string is what ended a response where the server says so.
        """
        asked: dict[int, Body] = {}
        for row, prompt in enumerate(prompts):
            ids = self.encode(prompt)
            if (room := self.room(len(ids), how.limit)) > 0:
                drawn = {"top_p": how.top_p, "seed": derive_seed(how.seed, "row", row)} if how.temperature > 0 else {}
                body = {"prompt": self._sent(prompt, ids), "max_tokens": room, "temperature": how.temperature, **drawn}
                asked[row] = {"model": self.model, **body, **({"stop": list(how.stop)} if how.stop else {})}
        pace = self.served.requests_per_minute
        client = Client(self.endpoint, self._cache(how.repeat), requests_per_minute=pace, progress=progress)
        answers = [Answer("", "too_long", 0)] * len(prompts)
        for row, said in zip(asked, client.answers(list(asked.values())), strict=True):
            self.account.count(said)
            tokens = said["usage"]["out"] if "usage" in said else self._tokens(said["text"])
            ended = {"finished": said["finish"] != "length", "stopped": "stopped" in said}
            answers[row] = read_text(prompts[row], said["text"], tokens, how.stop, **ended)
        return answers

    def loglikelihoods(
        self, requests: Sequence[tuple[str, str]], progress: Progress | None = None, kept: Part | None = None
    ) -> list[tuple[float, bool] | None]:
        """Raise StageError for any request: servers give the likelihoods of what they write, not of what they read."""
        if requests:
            raise StageError(
                f"{self.endpoint.url} completes prompts, and this suite compares log-likelihoods of given texts",
                hint="evaluate it without the endpoint, on this machine",
            )
        return []

    def _cache(self, repeat: int) -> AnswerCache:
        name = f"again-{repeat}" if repeat else ""
        return AnswerCache(self.cache.folder / name, tuple(folder / name for folder in self.cache.earlier))

    def _tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def _sent(self, prompt: str, ids: list[int]) -> str:
        """The text of which a server makes the tokens of this prompt: it adds special tokens as the tokenizer does."""
        for text in (prompt, prompt.removeprefix(str(self.tokenizer.bos_token or ""))):
            if list(self.tokenizer.encode(text)) == ids:
                return text
        raise StageError(
            f"the tokenizer adds special tokens of its own to prompts in the chat template: {prompt[:80]!r}",
            hint="evaluate it without the endpoint, on this machine",
        )

    def _only_model(self) -> str:
        names = self.endpoint.models()
        if len(names) != 1:
            raise StageError(
                f"{self.endpoint.url} serves {len(names)} models: {', '.join(names)}",
                hint="say which is meant: {url: …, model: …}",
            )
        return names[0]


def open_served_policy(context: StageContext) -> ServedPolicy:
    """Return the policy of a stage's input at the address that the stage's locations name; no weight is read."""
    folder = Path(context.inputs["policy"])
    chat = bool(context.config["chat"])
    return ServedPolicy(
        load_tokenizer(folder, template=chat),
        Served.model_validate_json(context.locations["endpoint"]),
        AnswerCache.of_stage(context),
        chat=chat,
        context=configured_context(folder),
    )
