"""The generate stage: a policy's responses, or log-likelihoods of choices, for the items of a suite."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from ablate.context import StageContext, write_json
from ablate.data.suite_files import open_source
from ablate.errors import StageError
from ablate.evaluation.items import (
    ITEMS,
    PROTOCOL,
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
from ablate.evaluation.policy import Policy, open_policy
from ablate.evaluation.suite_items import build_items
from ablate.training.seeding import derive_seed

Made = tuple[list[Response], list[Likelihoods]]


def run(context: StageContext) -> dict[str, Any]:
    """Write ``items.jsonl``, ``responses.jsonl`` and/or ``likelihoods.jsonl``, and ``protocol.json``."""
    config = context.config
    engine = config["engine"]
    if engine not in ENGINES:
        raise StageError(f"unknown engine {engine!r}", hint=f"allowed: {', '.join(ENGINES)}")
    items = build_items(open_source(context), config)
    policy = open_policy(context.inputs["policy"], context.resources, chat=config["chat"])
    responses, likelihoods = ENGINES[engine](policy, items, context)
    write_items(context.output, items)
    if responses:
        write_responses(context.output, responses)
    if likelihoods:
        write_likelihoods(context.output, likelihoods)
    digest = hashlib.sha256((context.output / ITEMS).read_bytes()).hexdigest()
    write_json(context.output / PROTOCOL, {"made": dict(config), "items": digest[:12]})
    too_long = sum(row.finish == "too_long" for row in responses) + sum(row.logprobs is None for row in likelihoods)
    return {"items": len(items), "responses": len(responses), "likelihoods": len(likelihoods), "too_long": too_long}


def ask_items(policy: Policy, items: list[Item], context: StageContext) -> Made:
    """``decoding.samples`` responses to each item, all samples of an item after one another."""
    decoding = context.config["decoding"]
    prompts = [_prompt(policy, item, decoding.get("thinking")) for item in items]
    samples = range(decoding["samples"])
    repeated = [(item, sample, prompt) for item, prompt in zip(items, prompts, strict=True) for sample in samples]
    answers = policy.generate(
        [prompt for _, _, prompt in repeated],
        limit=decoding["max_new_tokens"],
        stop=decoding["stop"],
        temperature=decoding["temperature"],
        top_p=decoding["top_p"],
        seed=derive_seed(decoding["seed"], "responses"),
        progress=lambda done, total: context.events.progress(done, total, "responses"),
        kept=_journal(context).part("responses"),
    )
    responses = [
        Response(item.id, item.task, sample, prompt, answer.text, answer.finish, answer.tokens, answer.reasoning)
        for (item, sample, prompt), answer in zip(repeated, answers, strict=True)
    ]
    return responses, []


def ask_choices(policy: Policy, items: list[Item], context: StageContext) -> Made:
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


def ask_lm_eval(policy: Policy, items: list[Item], context: StageContext) -> Made:
    """Answers to all requests of the suite's lm-eval tasks."""
    return capture(policy, items, context.config, context.work, _journal(context))


ENGINES: dict[str, Callable[[Policy, list[Item], StageContext], Made]] = {
    "items": ask_items,
    "choices": ask_choices,
    "lm-eval": ask_lm_eval,
}


def _journal(context: StageContext) -> Journal:
    return Journal(context.work, context.previous_work)


def _prompt(policy: Policy, item: Item, thinking: bool | None = None) -> str:
    return policy.render(item.prompt, item.prefix, thinking) if policy.chat else item.plain_text()
