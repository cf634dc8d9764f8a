"""The respond stage: a policy's responses to the prompts of a set, as records that have no labels yet."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ablate.context import StageContext, write_json
from ablate.data.converters.native import as_row
from ablate.data.json_lines import read_json_lines, write_json_lines
from ablate.data.records import PreferenceRecord, Response, message
from ablate.errors import StageError
from ablate.evaluation.policy import Answer, Policy, open_policy
from ablate.models.chat import Messages, plain_text
from ablate.training.seeding import derive_seed

WRITER = "policy"
"""What the records call the model that wrote the responses."""


def run(context: StageContext) -> dict[str, Any]:
    """Write ``records.jsonl`` and ``report.json``: ``n`` sampled responses to each of ``prompts``.

    A response that is empty, or ends at the limit or the context instead of with the end of the turn, is left out;
    a prompt that keeps fewer than two is dropped.
    """
    config = context.config
    policy = open_policy(context.inputs["policy"], context.resources, chat=config["chat"])
    rows = read_json_lines(context.inputs["prompts"])
    prompts: list[Messages] = [tuple(row["prompt"]) for row in rows]
    rendered = [text for prompt in prompts for text in [_rendered(policy, prompt)] * config["n"]]
    answers = policy.generate(
        rendered,
        limit=config["max_new_tokens"],
        temperature=config["temperature"],
        top_p=config["top_p"],
        seed=derive_seed(config["seed"], "responses"),
        progress=lambda done, total: context.events.progress(done, total, "responses"),
    )
    finishes: Counter[str] = Counter()
    records = []
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        own = answers[index * config["n"] : (index + 1) * config["n"]]
        kept = _responses(own, finishes)
        if len(kept) >= 2:
            records.append(PreferenceRecord(prompt, kept, source=row["source"], row_id=row["id"]))
    if not records:
        raise StageError(
            f"no prompt of {len(prompts)} has two finished responses; responses ended as: {dict(finishes)}",
            hint="raise max_new_tokens, or check that the policy ends its turns",
        )
    write_json_lines(context.output / "records.jsonl", map(as_row, records))
    report = {
        "in": len(prompts),
        "kept": len(records),
        "dropped": {"fewer-than-two-responses": len(prompts) - len(records)},
        "responses": {"in": len(answers), "ended": dict(sorted(finishes.items()))},
        "mean_tokens": sum(answer.tokens for answer in answers) / len(answers),
    }
    write_json(context.output / "report.json", report)
    return report


def _rendered(policy: Policy, prompt: Messages) -> str:
    return policy.render(prompt) if policy.chat else plain_text(prompt)


def _responses(answers: list[Answer], finishes: Counter[str]) -> tuple[Response, ...]:
    kept = []
    for answer in answers:
        text = answer.text.strip()
        ended = answer.finish if text or answer.finish != "eos" else "empty"
        finishes[ended] += 1
        if ended == "eos":
            kept.append(Response((message("assistant", text),), model=WRITER))
    return tuple(kept)
