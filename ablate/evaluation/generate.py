"""The generate stage: a policy's responses, or log-likelihoods of choices, for the items of a suite."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ablate.context import StageContext, write_json
from ablate.data.records import message
from ablate.data.suite_files import open_source
from ablate.errors import StageError
from ablate.evaluation.items import (
    ITEMS,
    PROTOCOL,
    SERVED,
    Item,
    Likelihoods,
    Response,
    request_digest,
    write_items,
    write_likelihoods,
    write_responses,
)
from ablate.evaluation.journal import Journal
from ablate.evaluation.lmeval import capture
from ablate.evaluation.policy import Answer, Policy, open_policy
from ablate.evaluation.sampling import Sampling
from ablate.evaluation.served_policy import ServedPolicy, open_served_policy
from ablate.evaluation.suite_items import build_items
from ablate.models.chat import plain_text
from ablate.training.seeding import derive_seed

Made = tuple[list[Response], list[Likelihoods]]
AnyPolicy = Policy | ServedPolicy
"""A policy that this machine computes, or a server."""


def run(context: StageContext) -> dict[str, Any]:
    """Write ``items.jsonl``, ``responses.jsonl`` and/or ``likelihoods.jsonl``, and ``protocol.json``."""
    config = context.config
    engine = config["engine"]
    if engine not in ENGINES:
        raise StageError(f"unknown engine {engine!r}", hint=f"allowed: {', '.join(ENGINES)}")
    items = build_items(open_source(context), config)
    served = open_served_policy(context) if "endpoint" in context.locations else None
    policy = served or open_policy(context.inputs["policy"], context.resources, chat=config["chat"])
    responses, likelihoods = ENGINES[engine](policy, items, context)
    write_items(context.output, items)
    if responses:
        write_responses(context.output, responses)
    if likelihoods:
        write_likelihoods(context.output, likelihoods)
    digest = hashlib.sha256((context.output / ITEMS).read_bytes()).hexdigest()
    write_json(context.output / PROTOCOL, {"made": dict(config), "items": digest[:12]})
    if served is not None:
        write_json(context.output / SERVED, served.account.as_json())
    too_long = sum(row.finish == "too_long" for row in responses) + sum(row.logprobs is None for row in likelihoods)
    return {"items": len(items), "responses": len(responses), "likelihoods": len(likelihoods), "too_long": too_long}


def ask_items(policy: AnyPolicy, items: list[Item], context: StageContext) -> Made:
    """``decoding.samples`` responses to each item, all samples of an item after one another.

    With ``decoding.repeats`` they are given again and again, as samples of their own; see :meth:`Policy.generate`.

    An item with several user turns is asked them in turn, each with what was answered before; a turn whose prompt does
    not fit the context is ``too_long``, as are those after it.
    """
    decoding = context.config["decoding"]
    samples, repeats = decoding["samples"], decoding.get("repeats", 1)
    passes = [
        [_Dialogue(item, repeat * samples + sample) for item in items for sample in range(samples)]
        for repeat in range(repeats)
    ]
    for repeat, dialogues in enumerate(passes):
        for turn in range(1 + max(len(item.followups) for item in items)):
            asked = [dialogue for dialogue in dialogues if turn <= len(dialogue.item.followups)]
            _ask_turn(policy, asked, turn, repeat, context)
    return [response for same in zip(*passes, strict=True) for one in same for response in one.responses], []


@dataclass(frozen=True)
class _Dialogue:
    """One sample of an item: what was answered so far."""

    item: Item
    sample: int
    responses: list[Response] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether a turn did not fit, so that nothing can follow it."""
        return any(response.finish == "too_long" for response in self.responses)

    def prompt(self, policy: AnyPolicy, thinking: bool | None) -> str:
        """Return the prompt of the next turn; what was thought before earlier answers is not in it."""
        if not self.responses:
            return _prompt(policy, self.item, thinking)
        turns = [self.item.prompt[-1]["content"], *self.item.followups]
        messages = list(self.item.prompt)
        for response, asked in zip(self.responses, turns[1:], strict=False):
            messages += [message("assistant", self.item.prefix + response.response), message("user", asked)]
        return policy.render(messages, thinking=thinking) if policy.chat else plain_text(messages)


def _ask_turn(policy: AnyPolicy, dialogues: list[_Dialogue], turn: int, repeat: int, context: StageContext) -> None:
    """Add the next response to every dialogue; those of one temperature are sampled together."""
    decoding = context.config["decoding"]
    thinking = decoding.get("thinking")
    prompts = {id(dialogue): dialogue.prompt(policy, thinking) for dialogue in dialogues}
    temperatures = dict.fromkeys(dialogue.item.temperature for dialogue in dialogues)
    for own in temperatures:
        group = [dialogue for dialogue in dialogues if dialogue.item.temperature == own]
        going_on = [dialogue for dialogue in group if not dialogue.ended]
        seed = derive_seed(decoding["seed"], "responses", *([turn] if turn else []))
        answers = policy.generate(
            [prompts[id(dialogue)] for dialogue in going_on],
            Sampling(
                decoding["max_new_tokens"],
                decoding["stop"],
                temperature=decoding["temperature"] if own is None else own,
                top_p=decoding["top_p"],
                seed=seed,
                repeat=repeat,
            ),
            progress=lambda done, total: context.events.progress(done, total, "responses"),
            kept=_journal(context).part(_part_name(turn, own, repeat)),
        )
        said = {id(dialogue): answer for dialogue, answer in zip(going_on, answers, strict=True)}
        for dialogue in group:
            answer = said.get(id(dialogue), Answer("", "too_long", 0))
            item, facts = dialogue.item, (answer.text, answer.finish, answer.tokens, answer.reasoning, turn)
            dialogue.responses.append(Response(item.id, item.task, dialogue.sample, prompts[id(dialogue)], *facts))


def _part_name(turn: int, temperature: float | None, repeat: int) -> str:
    """Name what is kept of one list of requests: those of a turn, a temperature and a pass."""
    own = "" if temperature is None else f"-at-{temperature:g}"
    return f"responses{f'-{turn}' if turn else ''}{own}{f'-again-{repeat}' if repeat else ''}"


def ask_choices(policy: AnyPolicy, items: list[Item], context: StageContext) -> Made:
    """Log-likelihoods of each item's choices."""
    prompts = [_prompt(policy, item) for item in items]
    requests = [(prompt, choice) for item, prompt in zip(items, prompts, strict=True) for choice in item.choices]
    answers = policy.loglikelihoods(
        requests,
        progress=lambda done, total: context.events.progress(done, total, "prompts"),
        kept=_journal(context).part("likelihoods"),
    )
    likelihoods, start = [], 0
    for item, prompt in zip(items, prompts, strict=True):
        own = answers[start : start + len(item.choices)]
        start += len(item.choices)
        fit = [answer for answer in own if answer is not None]
        digest = request_digest(prompt, item.choices)
        if len(fit) < len(own):
            likelihoods.append(Likelihoods(item.id, item.task, digest, None))
        else:
            logprobs, greedy = tuple(value for value, _ in fit), tuple(flag for _, flag in fit)
            likelihoods.append(Likelihoods(item.id, item.task, digest, logprobs, greedy))
    return [], likelihoods


def ask_lm_eval(policy: AnyPolicy, items: list[Item], context: StageContext) -> Made:
    """Answers to all requests of the suite's lm-eval tasks."""
    return capture(policy, items, context.config, context.work, _journal(context))


ENGINES: dict[str, Callable[[AnyPolicy, list[Item], StageContext], Made]] = {
    "items": ask_items,
    "choices": ask_choices,
    "lm-eval": ask_lm_eval,
}


def _journal(context: StageContext) -> Journal:
    return Journal(context.work, context.previous_work)


def _prompt(policy: AnyPolicy, item: Item, thinking: bool | None = None) -> str:
    return policy.render(item.prompt, item.prefix, thinking) if policy.chat else item.plain_text()
